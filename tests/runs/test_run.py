"""Runs whose record cannot be written, or that do not fit into memory; `tests/cli` has whole runs."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from baco import device
from baco.compressors.popularity import popularity_scale
from baco.errors import UnrecordedError, UserError
from baco.runs import run as runs
from baco.runs.experiments import CONF
from baco.runs.run import Plan, run
from baco.runs.settings import parse
from baco.serving.export import load_tables, read_export
from tests.cli.workplace import TINY


def plan_in(path: Path, *overrides: str) -> Plan:
    """A tiny run with its folders in `path`."""
    folders = [f"{key}={path / key}" for key in ("results_dir", "runs_dir")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Plan.of(parse(compose("config", [*TINY, *folders, "device=cpu", "threads=1", *overrides])))


def test_a_record_that_cannot_be_written_leaves_its_result_and_nothing_half_written(tmp_path, monkeypatch):
    def full(folder, name, record, arrays):
        raise OSError(28, "No space left on device")

    plan = plan_in(tmp_path, "method=random")
    monkeypatch.setattr(runs, "save_record", full)
    with pytest.raises(UnrecordedError, match=r"cannot be written \(No space left on device\); make room") as caught:
        run(plan)
    assert 0 < caught.value.record["metrics"]["test"]["recall@20"] <= 1
    assert list((tmp_path / "results_dir").iterdir()) == []
    monkeypatch.undo()
    assert run(plan)["metrics"]["test"] == caught.value.record["metrics"]["test"]


FULL = 4 * 500 * 16  # bytes of the embeddings of TINY's users and items


@pytest.mark.parametrize(
    ("method", "needed"),
    [
        ("full", 5 * FULL + FULL),  # with gradients, Adam's two moments, the best state, and the final embeddings
        ("random", 5 * FULL / 2 + FULL),  # half the rows
        ("prune", 4 * FULL + FULL),  # full tables, which are there already
    ],
)
def test_a_training_is_refused_where_it_cannot_fit_into_memory(tmp_path, monkeypatch, method, needed):
    plan = plan_in(tmp_path, f"method={method}", "protocol.max_epochs=1")
    monkeypatch.setattr(device, "available_memory", lambda device: needed - 1)
    with pytest.raises(UserError, match=r"^dim=16 for 500 users and items needs at least 0\.0 GB .* lower dim"):
        run(plan)
    assert not plan.path.exists()
    monkeypatch.setattr(device, "available_memory", lambda device: needed + 0.2 * FULL)
    assert run(plan)["training"]["epochs"] == 1


def test_final_embeddings_that_cannot_fit_are_refused_before_a_clustering(tmp_path, monkeypatch):
    plan = plan_in(tmp_path, "method=baco", "dim=1000")
    monkeypatch.setattr(device, "available_memory", lambda device: 4 * 500 * 1000 - 1)
    with pytest.raises(UserError, match="dim=1000 for 500 users and items"):
        run(plan)
    assert not (tmp_path / "runs_dir" / "assignments").exists()


def test_the_sizes_are_told_in_words_for_a_large_dataset(monkeypatch):
    monkeypatch.setattr(device, "available_memory", lambda device: 16 * 10**9)
    message = (
        r"^dim=1000 for 50,000,000 users and items needs at least 1,200\.0 GB of memory, and 16\.0 GB are free on cpu; "
        "lower dim or the budget, or run it where there is more$"
    )
    with pytest.raises(UserError, match=message):
        runs.check_training_memory(5 * 50_000_000 * 1000, SimpleNamespace(num_nodes=50_000_000), 1000, device.CPU)


def test_codes_inside_of_other_tables_are_told_as_those_of_methods_that_only_assign_codes(tmp_path):
    told = run(plan_in(tmp_path, "method=one_sided", "protocol.max_epochs=1"))["assignment"]
    assert told["rows"] == "items" and told["resolution"] > 0 and told["most_codes"] == 1
    assert told["computed_on"]["numba_threads"] == 1 and told["clusters"]["count"] > 1


def test_scaled_items_of_any_tables_are_paid_for_packed_and_exported(tmp_path):
    export = tmp_path / "tables.npz"
    scaled = ("backbone=mf", "loss=bpr", "popularity=0.25", "quantize=int8", "budget_unit=bytes", f"export={export}")
    plan = plan_in(tmp_path, "method=memrec", "budget=0.2", "protocol.max_epochs=1", *scaled)
    size, arrays = run(plan)["size"], read_export(export)
    assert 0.95 < size["budget_used"] <= 1
    held = sum(array.nbytes for name, array in arrays.items() if name not in ("header", "model"))
    assert size["bytes"] == held > arrays["item_scale"].nbytes == 2 * plan.data.num_items
    tables = load_tables(arrays)
    scale = popularity_scale(plan.data.train.item_degrees, 0.25).astype(np.float32)
    items, inner = (of[1].detach().numpy() for of in (tables(), tables.inner()))
    np.testing.assert_array_equal(items, inner * scale[:, None])


@pytest.mark.parametrize(
    ("method", "backbone"),
    [(method, "mf") for method in ("full", "random", "pq", "one_sided", "pep")] + [("one_sided", "lightgcn")],
)
def test_narrower_rows_keep_to_the_budget_of_the_full_model_of_dim_columns(tmp_path, method, backbone):
    choices = (f"method={method}", f"backbone={backbone}", "protocol.max_epochs=1")
    export = tmp_path / "tables.npz"
    plan, usual = plan_in(tmp_path, *choices, "columns=10", f"export={export}"), plan_in(tmp_path, *choices)
    record = run(plan)
    assert plan.budget.limit == usual.budget.limit and plan.name != usual.name
    assert record["config"]["columns"] == 10 and usual.name == plan_in(tmp_path, *choices, "columns=null").name
    size, (users, items) = record["size"], load_tables(read_export(export))()
    assert (users.shape, items.shape) == ((300, 10), (200, 10))
    assert size["full_parameters"] == 500 * 16 and size["parameter_ratio"] == size["parameters"] / (500 * 16)
    if method == "full":
        assert size["parameters"] == 500 * 10
    else:
        assert size["parameters"] <= 500 * 8 and size["budget_used"] <= 1


def test_narrower_rows_have_more_bits_a_column_in_the_same_budget(tmp_path):
    bits = []
    for columns in (16, 8, 4):
        plan = plan_in(tmp_path, "method=pq", "budget=0.6", f"columns={columns}")
        tables, _, _ = runs.fit_tables(
            plan.config, plan.config.method, plan.data.train, plan.budget, device.CPU, scale=None
        )
        bits.append(tables.quantizer.blocks * tables.quantizer.bits / columns)
    assert bits == sorted(set(bits))


def test_more_columns_than_the_full_model_has_are_refused(tmp_path):
    with pytest.raises(UserError, match="columns=17 is more than dim=16; lower it, or raise dim"):
        plan_in(tmp_path, "method=pq", "columns=17")
