"""Recommendations from exported models."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from baco.cli.main import call
from baco.compressors.budget import Budget
from baco.data.interactions import Interactions, save_interactions
from baco.data.logs import Log
from baco.data.synthetic import Synthetic
from baco.errors import UserError
from baco.files import from_json_array, json_array, read_arrays, write_arrays
from baco.registry import method_class
from baco.rng import stream, torch_stream
from baco.serving.export import export_model, has_ids_of, read_description
from baco.serving.parquet import write_parquet
from baco.serving.recommender import Recommender


@pytest.fixture
def log(tmp_path) -> Log:
    """Users and items with ids of their own; u0 has all items but two."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"user": rng.integers(1, 30, 400), "item": rng.integers(0, 25, 400)})
    frame = pd.concat([frame, pd.DataFrame({"user": 0, "item": range(23)})]).drop_duplicates()
    frame["user"] = [f"u{user}" for user in frame["user"]]
    frame["item"] = 1000 + 3 * frame["item"]
    frame.to_csv(tmp_path / "log.csv", index=False)
    return Log(path=str(tmp_path / "log.csv"))


def config_of(data: Interactions) -> dict:
    """What a recommender reads of a record's configuration."""
    return {"dataset": data.fingerprint, "backbone": {"name": "mf"}}


@pytest.fixture
def exported(log, tmp_path):
    """An export with the data and the embeddings it is of."""
    data = log.load(tmp_path)
    budget = Budget.parse(0.5, "parameters", data.num_users, data.num_items, 8)
    tables = method_class("random")().fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(1.0, torch_stream(0, "init"))
    export_model(tmp_path / "tables.npz", tables, config_of(data), log, data)
    return tmp_path / "tables.npz", data, [side.detach().numpy() for side in tables()]


def test_the_best_items_that_a_user_does_not_have_yet(exported, tmp_path):
    path, data, (users, items) = exported
    found = Recommender.load(path, tmp_path).recommend(k=5)
    for number, user in enumerate(data.user_ids):
        splits = data.train, data.val, data.test
        has = np.concatenate([split.items[split.users == number] for split in splits])
        free = np.setdiff1d(np.arange(data.num_items), has)
        expected = np.sort(items[free] @ users[number])[::-1][:5]
        own = found[found["user"] == user]
        position = {one: place for place, one in enumerate(data.item_ids)}
        chosen = [position[one] for one in own["item"]]
        assert own["rank"].tolist() == list(range(1, len(expected) + 1))
        np.testing.assert_allclose(own["score"], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(items[chosen] @ users[number], expected, rtol=1e-5, atol=1e-6)
        assert not set(chosen) & set(has) and len(set(chosen)) == len(chosen)
    assert len(found[found["user"] == "u0"]) == data.num_items - 23


def test_scores_do_not_depend_on_the_blocks(exported, tmp_path, monkeypatch):
    served = Recommender.load(exported[0], tmp_path)
    whole = served.recommend(k=5)
    monkeypatch.setattr("baco.serving.recommender.PAIRS", 7)
    pd.testing.assert_frame_equal(served.recommend(k=5), whole)


@pytest.fixture
def in_blocks(exported, tmp_path, monkeypatch) -> list[str]:
    """A command that ranks for the thirty users in four blocks."""
    monkeypatch.setattr("baco.serving.recommender.BLOCK", 8)
    return ["recommend", str(exported[0]), "--data", str(tmp_path), "-k", "5"]


def test_all_users_in_blocks_are_a_parquet_file(exported, in_blocks, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert call([*in_blocks, "--out", str(tmp_path / "new" / "best.parquet")]) == 0
    file = parquet.ParquetFile(tmp_path / "new" / "best.parquet")
    assert file.num_row_groups == 4
    assert [str(one) for one in file.schema_arrow.types] == ["string", "int64", "string", "float"]
    whole = Recommender.load(exported[0], tmp_path).recommend(k=5)
    assert file.read().to_pydict() == whole.to_dict("list")
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_all_users_in_blocks_are_one_csv(exported, in_blocks, tmp_path, capsys):
    assert call(in_blocks) == 0
    whole = Recommender.load(exported[0], tmp_path).recommend(k=5)
    assert capsys.readouterr().out == whole.to_csv(index=False, float_format="%.6g")


def test_a_parquet_file_is_whole_or_what_it_was(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    one = pd.DataFrame({"user": ["u1"], "item": np.array([7], np.uint64)})
    nothing = pd.DataFrame({"user": np.array([], object), "item": np.array([], np.uint64)})
    write_parquet(tmp_path / "a.parquet", [nothing, one])
    written = (tmp_path / "a.parquet").read_bytes()
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.to_pylist() == [{"user": "u1", "item": 7}]
    assert [str(kind) for kind in table.schema.types] == ["string", "uint64"]
    with pytest.raises(ZeroDivisionError):
        write_parquet(tmp_path / "a.parquet", (pd.DataFrame({"user": [1 // n]}) for n in (1, 0)))
    assert (tmp_path / "a.parquet").read_bytes() == written and len(list(tmp_path.iterdir())) == 1


def test_a_file_that_cannot_be_written_is_told_before_anything_is_ranked(tmp_path, capsys, monkeypatch):
    asked = ["recommend", str(tmp_path / "none.npz"), "--out"]
    assert call([*asked, "best.csv"]) == 1
    assert capsys.readouterr().err == "error: --out=best.csv must end in .parquet\n"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert call([*asked, str(tmp_path / "best.parquet")]) == 1
    assert capsys.readouterr().err == "error: a Parquet file needs the package pyarrow: pip install 'baco[feather]'\n"


def test_some_users_in_the_order_asked_for(exported, tmp_path):
    path, _, _ = exported
    served = Recommender.load(path, tmp_path)
    everybody = served.recommend(k=3)
    some = served.recommend(["u7", "u2"], k=3)
    assert some["user"].tolist() == ["u7"] * 3 + ["u2"] * 3
    for user in ("u7", "u2"):
        pd.testing.assert_frame_equal(
            some[some["user"] == user].reset_index(drop=True),
            everybody[everybody["user"] == user].reset_index(drop=True),
        )


def test_without_ids_of_a_source_positions_are_the_ids(tmp_path):
    source = Synthetic(num_users=40, num_items=30, num_interactions=200, num_clusters=4)
    data = source.load(tmp_path)
    tables = method_class("full")().fit(data.train, Budget.parse(1, "parameters", 40, 30, 4), stream(0, "assign"))
    tables.reset_parameters(1.0, torch.Generator().manual_seed(0))
    export_model(tmp_path / "tables.npz", tables, config_of(data), source, data)
    found = Recommender.load(tmp_path / "tables.npz", tmp_path).recommend([39, "0"], k=2)
    assert found["user"].tolist() == [39, 39, 0, 0] and found["item"].between(0, 29).all()


def test_users_may_come_from_an_iterator(exported, tmp_path):
    served = Recommender.load(exported[0], tmp_path)
    pd.testing.assert_frame_equal(served.recommend(iter(["u1", "u0"]), 2), served.recommend(["u1", "u0"], 2))


def test_what_cannot_be_served_is_told(exported, tmp_path):
    path, _, _ = exported
    served = Recommender.load(path, tmp_path)
    with pytest.raises(UserError, match="user 'u99' has no interaction in 'custom'; such as 'u0' have"):
        served.recommend(["u1", "u99"])
    for k in (0, 2.5):
        with pytest.raises(UserError, match=f"k={k} must be a whole number, 1 or more"):
            served.recommend(k=k)
    with pytest.raises(UserError, match=r"there is no file .*none\.npz; it must be the export of a run"):
        Recommender.load(tmp_path / "none.npz", tmp_path)
    with pytest.raises(UserError, match=r"there is no file .*none\.npz; it must be the export of a run"):
        read_description(tmp_path / "none.npz")
    write_arrays(tmp_path / "foreign.npz", {"model": json_array({})})
    with pytest.raises(UserError, match=r"foreign\.npz does not say of which model it is"):
        Recommender.load(tmp_path / "foreign.npz", tmp_path)
    with pytest.raises(UserError, match=r"foreign\.npz does not say of which model it is"):
        read_description(tmp_path / "foreign.npz")
    (tmp_path / "broken.npz").write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"broken\.npz cannot be read"):
        Recommender.load(tmp_path / "broken.npz", tmp_path)
    with pytest.raises(UserError, match=r"broken\.npz cannot be read"):
        read_description(tmp_path / "broken.npz")

    arrays = read_arrays(path)
    write_arrays(tmp_path / "old.npz", {name: array for name, array in arrays.items() if name != "model"})
    with pytest.raises(UserError, match="does not say of which model"):
        Recommender.load(tmp_path / "old.npz", tmp_path)
    strange = from_json_array(arrays["model"]) | {"tables": "CodebokTables"}
    write_arrays(tmp_path / "new.npz", arrays | {"model": json_array(strange)})
    with pytest.raises(UserError, match="kind of tables 'CodebokTables' is unknown; did you mean 'CodebookTables'"):
        Recommender.load(tmp_path / "new.npz", tmp_path)


def test_the_prepared_data_serve_where_the_log_is_gone(exported, tmp_path):
    path, data, _ = exported
    expected = Recommender.load(path, tmp_path).recommend(k=4)
    (tmp_path / "log.csv").unlink()
    pd.testing.assert_frame_equal(Recommender.load(path, str(tmp_path)).recommend(k=4), expected)
    moved = tmp_path / "elsewhere"
    save_interactions(data, moved / "custom" / "any" / "interactions.npz")
    (moved / "custom" / "any" / "other.npz").write_bytes(b"no archive")
    pd.testing.assert_frame_equal(Recommender.load(path, moved).recommend(k=4), expected)


def test_ids_are_those_of_the_log_it_was_trained_on(exported, log, tmp_path):
    """Another log of the same interactions, with other ids in the same order, is prepared beside it."""
    path, data, _ = exported
    expected = Recommender.load(path, tmp_path).recommend(k=2)
    frame = pd.read_csv(log.path)
    frame["user"] = [f"new_{user}" for user in frame["user"]]
    frame["item"] += 7000
    frame.to_csv(tmp_path / "a_log.csv", index=False)
    renamed = Log(path=str(tmp_path / "a_log.csv")).load(tmp_path)
    assert renamed.fingerprint == data.fingerprint and renamed.user_ids[0] == "new_u0"
    assert has_ids_of(path, data) and not has_ids_of(path, renamed)
    for prepared in (tmp_path / "custom").rglob("*.npz"):
        if not prepared.parent.name.startswith("a_log"):
            prepared.unlink()
    pd.testing.assert_frame_equal(Recommender.load(path, tmp_path).recommend(k=2), expected)


def test_other_data_are_refused(exported, tmp_path):
    path, *_ = exported
    for prepared in (tmp_path / "custom").rglob("*.npz"):
        prepared.unlink()
    with open(tmp_path / "log.csv", "a") as file:
        file.write("u1,1075\n")
    with pytest.raises(UserError, match="was trained on other interactions than 'custom'"):
        Recommender.load(path, tmp_path)
