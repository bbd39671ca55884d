"""Recommendations for users who were not in training."""

import io
import logging

import numpy as np
import pandas as pd
import pytest
import torch

from baco.cli.main import call
from baco.data.interactions import Interactions
from baco.data.logs import Log
from baco.errors import UserError
from baco.registry import method_class
from baco.rng import stream, torch_stream
from baco.serving.export import export_model, read_interactions
from baco.serving.recommender import Recommender
from tests.serving.test_recommender import Budget, config_of

SPLITS = {
    "train": [[0, 0, 1, 1, 2, 3], [0, 1, 1, 2, 2, 4]],
    "val": [[0, 2], [2, 3]],  # nobody has item 3 in training
    "test": [[1], [0]],
}
ITEMS = np.array([10, 11, 12, 13, 14])


@pytest.fixture
def data() -> Interactions:
    pairs = {split: np.array(pairs) for split, pairs in SPLITS.items()}
    return Interactions.from_pairs("shop", pairs, 4, 5, np.array(["a", "b", "c", "d"]), ITEMS)


@pytest.fixture
def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, generator=generator), torch.randn(5, 3, generator=generator)


def frame(*pairs) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["user", "item"])


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_a_new_user_stands_among_those_who_chose_the_same(data, embeddings, score):
    users, items = embeddings
    found = Recommender(data, users, items, score).recommend(
        interactions=frame(("zoe", 11), ("eve", "12"), ("zoe", 10), ("zoe", 11), ("eve", 13)), k=9
    )
    zoe = (users[0] + (users[0] + users[1]) / 2) / 2
    eve = (users[1] + users[2]) / 2  # nobody has item 13: it says nothing, and eve is not told of it again
    expected = []
    for name, row, has in (("zoe", zoe, [0, 1]), ("eve", eve, [2, 3])):
        scores = items @ (row / row.norm() if score == "cosine" else row)
        ranked = [item for item in scores.argsort(descending=True).tolist() if item not in has]
        expected += [(name, rank + 1, ITEMS[item], float(scores[item])) for rank, item in enumerate(ranked)]
    expected = pd.DataFrame(expected, columns=found.columns)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-5)


def test_some_of_the_new_users(data, embeddings):
    served = Recommender(data, *embeddings)
    new = frame((7, 11), (8, 12), (9, 14))
    everybody = served.recommend(interactions=new, k=2)
    some = served.recommend(["9", 7], 2, new)
    assert some["user"].tolist() == [9, 9, 7, 7]
    assert some["item"].tolist() == [*everybody["item"][4:], *everybody["item"][:2]]
    with pytest.raises(UserError, match="user 'a' has no interaction in the interactions given; such as '7' have"):
        served.recommend(["a"], interactions=new)


def test_items_that_the_training_did_not_have_are_counted_and_left_out(data, embeddings, caplog):
    served = Recommender(data, *embeddings)
    clean = served.recommend(interactions=frame(("zoe", 11)), k=3)
    assert not caplog.records
    with caplog.at_level(logging.WARNING, logger="baco"):
        found = served.recommend(interactions=frame(("eve", 99), ("zoe", 11), ("zoe", "x"), ("ida", 13)), k=3)
    pd.testing.assert_frame_equal(found, clean)
    assert "3 of 4 interactions are with items that are not in the training of 'shop', such as '99'" in caplog.text
    assert "2 users have no others" in caplog.text


@pytest.mark.parametrize(
    ("interactions", "message"),
    [
        (frame(("zoe", 11), ("b", 12)), "user 'b' of the interactions is in 'shop' already; leave its rows out"),
        (frame(("zoe", 99)), "no item of the interactions is in the training of 'shop', which has such as '10'"),
        (frame(("zoe", 11), ("eve", None)), "the interactions have no item in row 1"),
        (frame(("zoe", 11)).rename(columns={"item": "items"}), "interactions: column 'item' is unknown; .*'items'"),
        (frame(), "no item of the interactions"),
    ],
)
def test_interactions_that_cannot_be_used_are_told(data, embeddings, interactions, message):
    with pytest.raises(UserError, match=message):
        Recommender(data, *embeddings).recommend(interactions=interactions)


def test_a_log_of_new_users_is_read_as_that_of_the_training(tmp_path, capsys):
    rng = np.random.default_rng(0)
    log = pd.DataFrame({"who": rng.integers(20, size=300), "what": rng.integers(15, size=300), "stars": 5, "day": 1})
    log["what"] = "i" + log["what"].astype(str)
    log.to_csv(tmp_path / "log.csv", index=False, sep="|")
    columns = {"user": "who", "item": "what", "rating": "stars", "timestamp": "day"}
    source = Log(path=str(tmp_path / "log.csv"), **columns, separator="|", min_rating=3, split="time")
    data = source.load(tmp_path)
    budget = Budget.parse(1, "parameters", data.num_users, data.num_items, 4)
    tables = method_class("full")().fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(1.0, torch_stream(0, "init"))
    path = tmp_path / "tables.npz"
    export_model(path, tables, config_of(data), source, data)

    (tmp_path / "new.csv").write_text("what|stars|who\ni3|5|zoe\ni4|4|zoe\ni5|1|eve\n")
    new = read_interactions(tmp_path / "new.csv", path)
    assert sorted(zip(new["user"], new["item"], strict=True)) == [("zoe", "i3"), ("zoe", "i4")]
    command = ["recommend", str(path), "--data", str(tmp_path), "-k", "3", "--interactions"]
    assert call([*command, str(tmp_path / "new.csv")]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    expected = Recommender.load(path, tmp_path).recommend(k=3, interactions=new)
    assert found["item"].tolist() == expected["item"].tolist() and set(found["user"]) == {"zoe"}
    assert call([*command, str(tmp_path / "none.csv")]) == 1
    assert f"error: there is no file {tmp_path / 'none.csv'}" in capsys.readouterr().err
