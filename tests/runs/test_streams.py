"""Whole streams on tiny data, and what becomes of embeddings from one segment to the next."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir

from baco.compressors.budget import Budget
from baco.device import CPU
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment, Codes
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.results.streams import per_segment, to_terminal
from baco.runs.experiments import CONF
from baco.runs.run import Plan, run
from baco.runs.streams import StreamPlan, follow
from baco.runs.updates import Step, begin, extend, folded_in
from baco.serving.users import FoldIn, Users
from baselines.sizes import SizedTables
from tests.cli.workplace import TINY


def plan_in(path: Path, *overrides: str) -> StreamPlan:
    folders = [f"{key}={path / key}" for key in ("results_dir", "runs_dir")]
    given = [*TINY, *folders, "new_ids=0.2", "device=cpu", "threads=1", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return StreamPlan.of(compose("stream", given))


def recalls(record: dict) -> list[float]:
    return [row["metrics"]["test"]["recall@20"] for row in record["segments"]]


def test_retraining_is_an_ordinary_run_after_each_segment(tmp_path):
    plan = plan_in(tmp_path, "method=su", "backbone=mf")
    record = follow(plan)
    assert len(record["segments"]) == plan.stream.num_steps == 3
    assert all(row["size"]["budget_used"] <= 1 for row in record["segments"])
    assert follow(plan) == record, "it is not followed again"
    config = replace(plan.config, results_dir=tmp_path / "runs of their own")
    for row, data in zip(record["segments"], plan.steps, strict=True):
        single = run(Plan.of(config, data))
        assert (row["metrics"]["val"], row["metrics"]["test"]) == (single["metrics"]["val"], single["metrics"]["test"])
        assert row["test_users"] == np.count_nonzero(data.test.user_degrees)


UPDATES = "retrain", "warm", "fold_in"


@pytest.mark.parametrize("backbone", ["mf", "lightgcn"])
def test_updates_begin_alike_and_keep_the_budget(tmp_path, backbone):
    records = [
        follow(plan_in(tmp_path, f"method={method}", f"backbone={backbone}", f"update={update}"))
        for method, updates in (("su", UPDATES), ("baco_plus", (*UPDATES, "extend")))
        for update in updates
    ]
    for retrain, warm, fold_in in (records[:3], records[3:6]):
        assert recalls(retrain)[0] == recalls(warm)[0] == recalls(fold_in)[0]
        assert [row["epochs"] for row in warm["segments"]] == [3, 1, 1]
        assert [row["epochs"] for row in fold_in["segments"]] == [3, 0, 0]
        assert [row["size"]["parameters"] for row in fold_in["segments"]] == 3 * [
            retrain["segments"][0]["size"]["parameters"]
        ]
    assert recalls(records[-1])[0] == recalls(records[3])[0] and len(set(recalls(records[-1]))) == 3
    assert all(row["size"]["budget_used"] <= 1 for record in records for row in record["segments"])
    table = per_segment(records)
    assert list(table) == ["method", "update", "0", "1", "2", "R@20", "N@20", "budget used", "s per update"]
    np.testing.assert_allclose(table["R@20"], [100 * np.mean(recalls(record)) for record in records])
    assert "warm, 1 epochs" in to_terminal(records)


def test_a_method_without_embeddings_can_be_fitted_anew(tmp_path):
    record = follow(plan_in(tmp_path, "method=mostpop"))
    assert len(record["segments"]) == 3 and min(recalls(record)) > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset=beauty"], "dataset 'beauty' has no times"),
        (["first=0.9", "new_ids=0.2"], "dataset 'synthetic': its .* ids make 2 segments"),
        (["update=warn"], "^update=warn must be retrain, warm, extend or fold_in; did you mean 'warm'"),
        (["method=mostpop", "update=warm"], "^update=warm goes on from embeddings, and method=mostpop has none"),
        (["quantize=int8", "update=warm"], "^update=warm goes on from rows that quantize= has packed"),
        (["export=tables.npz"], "^export is for a single run"),
    ],
)
def test_what_is_no_stream(tmp_path, overrides, message):
    given = [text for text in TINY if not text.startswith("dataset.")] if "dataset=beauty" in overrides else TINY
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(UserError, match=message):
        StreamPlan.of(compose("stream", [*given, *overrides]))


def test_methods_that_cannot_go_on_say_so_before_they_train(tmp_path):
    for method, update, message in (
        ("robe", "warm", "^update=warm does not work with method=robe"),
        ("random", "extend", "^update=extend does not work with method=random"),
    ):
        with pytest.raises(UserError, match=message):
            follow(plan_in(tmp_path, f"method={method}", f"update={update}"))
        assert not (tmp_path / "results_dir").exists() or not list((tmp_path / "results_dir").iterdir())


@pytest.mark.parametrize("method", ["baco", "baco_plus"])
def test_old_ids_keep_their_codes_and_rows(tmp_path, method):
    """Without training, all rows that have a name of before have their values of before."""
    plan = plan_in(tmp_path, f"method={method}", "backbone=mf", "popularity=0", "epochs=0", "update=extend")
    steps = [
        Step(plan.config, data, Budget.parse(0.5, "parameters", data.num_users, data.num_items, 16), CPU, epochs=0)
        for data in plan.steps[:2]
    ]
    first = begin(steps[0], "extend")
    second = extend(steps[1], first)
    for side in ("users", "items"):
        old, new = (getattr(model.tables.assignment, side) for model in (first, second))
        assert (new.row_names[new.first[: old.num_ids]] == old.row_names[old.first]).mean() > 0.8
        _, before, after = np.intersect1d(old.row_names, new.row_names, return_indices=True)
        rows = [getattr(model.tables, side).rows.detach() for model in (first, second)]
        assert torch.equal(rows[0][before], rows[1][after]) and len(before) > 0.8 * old.num_rows
    assert second.epochs == 0 and second.seconds["clustering"] > 0


@pytest.fixture
def grown() -> tuple[Biadjacency, np.ndarray, np.ndarray]:
    """A graph of 12 users and 9 items, and embeddings of the first 8 and 6 of them."""
    rng = np.random.default_rng(3)
    users, items = np.nonzero(rng.random((12, 9)) < 0.4)
    rows = [rng.standard_normal((size, 4)).astype(np.float32) for size in (8, 6)]
    return Biadjacency.from_pairs(users, items, 12, 9), *rows


def test_new_users_stand_where_recommendations_put_them(grown):
    """`baco recommend --interactions` has the same rule, and another program."""
    graph, users, items = grown
    old = graph.users < 8
    train = Biadjacency.from_pairs(graph.users[old], graph.items[old], 8, 9)
    rows = torch.as_tensor(users)
    trained = Users(np.arange(8), rows, train.by_user, "the log")

    class Data:
        name, user_ids, item_ids, num_users, num_items = "any", None, None, 8, 9

    Data.train = train
    frame = pd.DataFrame({"user": graph.users[~old], "item": graph.items[~old]})
    served = FoldIn(Data, trained, "dot")(frame)
    found, _ = folded_in(graph, users, items)
    np.testing.assert_allclose(found[served.ids], served.rows, rtol=1e-5)
    np.testing.assert_array_equal(found[:8], users)


def test_who_shares_nothing_with_old_ids_stands_at_their_mean():
    users, items = np.eye(2, 3, dtype=np.float32), np.ones((1, 3), np.float32)
    graph = Biadjacency.from_pairs(np.array([0, 1, 2]), np.array([0, 0, 1]), 3, 2)
    more_users, more_items = folded_in(graph, users, items)
    np.testing.assert_allclose(more_users[2], [0.5, 0.5, 0])
    np.testing.assert_allclose(more_items[1], 1)


def test_what_tables_inherit():
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((size, 4)).astype(np.float32) for size in (5, 3))
    codes = Codes.from_labels(np.array([0, 0, 1, 2, 1])), Codes.from_labels(np.array([0, 1, 0]))
    shared = CodebookTables(Assignment(*codes), 4)
    shared.inherit(users, items)
    np.testing.assert_allclose(shared()[0].detach()[0], users[:2].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(shared()[1].detach()[1], items[1], rtol=1e-6)
    own = CodebookTables(Assignment.of_own_rows(5, 3), 4)
    own.inherit(users, items)
    found = np.concatenate([side.detach() for side in own()])
    np.testing.assert_allclose(found, np.concatenate([users, items]), rtol=1e-5)
    sizes = np.array([4, 3, 2, 1, 1]), np.array([2, 4, 1])
    sized = SizedTables(*sizes, 4)
    sized.inherit(users, items)
    for side, given, own_sizes in zip(sized(), (users, items), sizes, strict=True):
        np.testing.assert_array_equal(side.detach(), given * (np.arange(4) < own_sizes[:, None]))
