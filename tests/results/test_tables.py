"""The tables of experiments, from made-up records and from the committed ones."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from baco.compressors.budget import Budget
from baco.results import columns
from baco.results.columns import section_notes
from baco.results.render import Cell, Table, to_html, to_latex, to_markdown
from baco.results.summary import join_sections, sections
from baco.results.tables import against_one_sided, comparison, documents, overview, speed, write_tables
from baco.results.wanted import Wanted
from baco.runs.experiments import Experiment, load_experiment
from baco.runs.record import RECORD_SCHEMA, pack_hits, record_id, record_name, save_record

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "results" / "records"
FULL = 34464 * 64  # parameters of the full model on Beauty


def a_record(recall=0.1, parameters=529088, fingerprint="f" * 64, limited=True, **settings) -> dict:
    """A record of a run on Beauty."""
    wanted = Wanted.of({"dataset": "beauty", "seed": 0, "protocol": "quick"} | settings)
    budget = Budget.parse(wanted.run.budget, wanted.run.budget_unit, 22363, 12101, 64)
    method, backbone, protocol = (wanted.config[group]["name"] for group in ("method", "backbone", "protocol"))
    packed = wanted.config["quantize"] is not None
    return {
        "schema": RECORD_SCHEMA,
        "id": record_id(wanted.config | {"asked": settings, "split": fingerprint}),
        "names": {"dataset": "beauty", "backbone": backbone, "method": method, "protocol": protocol},
        "labels": {
            "dataset": "beauty",
            "backbone": {"lightgcn": "LightGCN", "mf": "MF", "none": "—"}[backbone],
            "method": method.upper() + " + INT" * packed,
        },
        "config": wanted.config,
        "dataset": {"name": "beauty", "fingerprint": fingerprint, "num_users": 22363, "num_items": 12101}
        | {"train": 158801, "val": 19850, "test": 19851},
        "size": {
            "parameters": parameters,
            "bytes": 4 * parameters,
            "parameter_ratio": parameters / FULL,
            "full_parameters": FULL,
            "budget_limit": budget.limit if limited else FULL,
            "budget_unit": wanted.run.budget_unit,
            "limited": limited,
        },
        "seconds": {"clustering": 1.5, "training": 10.0, "epoch": 0.1, "validation": 1.0, "test": 0.5},
        "training": {"epochs": 128},
        "metrics": {"test": {f"{name}@{k}": recall for k in (10, 20, 50) for name in ("recall", "ndcg")}},
        "environment": {"device": "cpu", "cpu": "a CPU", "gpu": None},
    }


def full(**settings) -> dict:
    return a_record(0.2, FULL, limited=False, method="full", **settings)


def experiment(*runs: dict) -> Experiment:
    return Experiment(
        "main_table", "Title", "About.", tuple({"dataset": "beauty", "protocol": "quick"} | run for run in runs)
    )


def rows_of(document) -> list[dict[str, str]]:
    """The rows of the first table, as text."""
    (table, *_) = document.tables
    return [dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows]


def test_seeds_are_joined_and_what_is_missing_is_told(tmp_path):
    runs = [{"method": method, "seed": seed} for method in ("baco", "random") for seed in (0, 1, 2)]
    records = [a_record(recall, method="baco", seed=seed) for seed, recall in enumerate((0.10, 0.11, 0.12))]
    records.append(a_record(0.05, method="random", seed=1))
    document = comparison(experiment(*runs), sections(experiment(*runs), records, tmp_path))
    first, second = rows_of(document)
    assert (first["method"], first["seeds"], first["R@10"]) == ("BACO", "3", "11.00 ± 1.00")
    assert (second["method"], second["seeds"], second["R@10"]) == ("RANDOM", "1", "5.00")
    notes = " ".join(document.tables[0].notes)
    assert (
        "Missing: RANDOM (seed 0, 2). `python run.py +grid=main_table dataset=beauty protocol=quick` runs them."
        in notes
    )
    assert document.data["R@10 sd"].tolist() == pytest.approx([1.0, np.nan], nan_ok=True)


def test_seeds_are_joined_whatever_the_order_of_their_settings(tmp_path):
    runs = experiment(
        {"method": "baco", "start": "spectral", "budget": 0.2, "seed": 0},
        {"budget": 0.2, "start": "spectral", "method": "baco", "seed": 1},
    )
    (section,) = sections(runs, [], tmp_path)
    assert [len(row.missing) for row in section.rows] == [2]


def test_a_run_is_found_by_every_setting_that_decides(tmp_path):
    wanted = experiment({"method": "baco", "method.secondary": False, "budget": 0.1})
    others = [
        a_record(method="baco", budget=0.1),
        a_record(method="baco", budget=0.2, **{"method.secondary": False}),
        a_record(method="baco", budget=0.1, seed=1, **{"method.secondary": False}),
        a_record(method="baco", budget=0.1, dim=32, **{"method.secondary": False}),
        a_record(method="baco", budget=0.1, protocol="paper", **{"method.secondary": False}),
        a_record(method="baco", budget=0.1, backbone="mf", **{"method.secondary": False}),
    ]
    (section,) = sections(wanted, others, tmp_path)
    assert section.records == []
    right = a_record(0.3, method="baco", budget=0.1, **{"method.secondary": False})
    (row,) = rows_of(comparison(wanted, sections(wanted, [*others, right], tmp_path)))
    assert (row["method"], row["budget"], row["R@20"]) == ("BACO, secondary=false", "10%", "30.00")


def test_a_methods_own_popularity_counts_with_mf_only(tmp_path):
    own = a_record(0.3, method="baco_plus", backbone="mf", loss="bpr")
    none = a_record(0.1, method="baco_plus", loss="bpr", popularity=0)
    none["config"]["backbone"] = own["config"]["backbone"]
    assert own["config"]["popularity"] > 0 and none["config"]["popularity"] == 0
    assert a_record(method="baco_plus", backbone="lightgcn", loss="bpr")["config"]["popularity"] == 0
    run = {"method": "baco_plus", "backbone": "mf", "loss": "bpr"}
    runs = experiment(run, run | {"popularity": 0})
    rows = rows_of(comparison(runs, sections(runs, [none, own], tmp_path)))
    assert [(row["method"], row["R@20"]) for row in rows] == [
        ("BACO_PLUS", "30.00"),
        ("BACO_PLUS, popularity=0", "10.00"),
    ]


def test_rows_of_fewer_columns_stand_apart_in_the_same_budget(tmp_path):
    wide, narrow = a_record(0.1, method="pq", budget=0.2), a_record(0.3, method="pq", budget=0.2, columns=16)
    runs = experiment({"method": "pq", "budget": 0.2}, {"method": "pq", "budget": 0.2, "columns": 16})
    rows = rows_of(comparison(runs, sections(runs, [narrow, wide], tmp_path)))
    assert [(row["method"], row["budget"], row["R@20"]) for row in rows] == [
        ("PQ", "20%", "10.00"),
        ("PQ, columns=16", "20%", "30.00"),
    ]


def test_a_methods_own_start_is_what_its_rows_stand_for(tmp_path):
    own, drawn = a_record(0.3, method="baco_plus"), a_record(0.1, method="baco_plus", start="normal")
    assert (own["config"]["start"], drawn["config"]["start"]) == ("spectral", "normal")
    runs = experiment({"method": "baco_plus"}, {"method": "baco_plus", "start": "normal"})
    rows = rows_of(comparison(runs, sections(runs, [drawn, own], tmp_path)))
    assert [(row["method"], row["R@20"]) for row in rows] == [
        ("BACO_PLUS", "30.00"),
        ("BACO_PLUS, start=normal", "10.00"),
    ]


def test_quantized_runs_and_budgets_in_bytes_have_rows_of_their_own(tmp_path):
    packed = {"quantize": "int8", "budget_unit": "bytes", "budget": 0.125}
    runs = experiment(
        {"method": "baco"},
        {"method": "baco", "quantize": "int8"},
        {"method": "baco"} | packed,
        {"method": "random"} | packed | {"quantize": "none"},
        {"method": "random"} | packed,
        {"method": "random"} | packed | {"quantize.bits": 6},
        {"method": "random"} | packed | {"quantize.bits": 5},
    )
    records = [
        a_record(0.1, method="baco"),
        a_record(0.2, method="baco", quantize="int8"),
        a_record(0.3, 250_000, method="baco", **packed),  # 4 bytes each here
        a_record(0.4, 280_000, method="random", **packed | {"quantize": "none"}),
        a_record(0.5, 280_000, method="random", **packed | {"quantize.bits": 5}),
    ]
    document = comparison(runs, sections(runs, records, tmp_path))
    assert [(row["method"], row["budget"], row["R@20"]) for row in rows_of(document)] == [
        ("BACO", "", "10.00"),
        ("BACO + INT", "", "20.00"),
        ("BACO + INT", "12.5% in bytes", "30.00"),
        ("RANDOM", "12.5% in bytes", "40.00"),
        ("RANDOM + int8", "12.5% in bytes", "—"),
        ("RANDOM + int8, quantize.bits=6", "12.5% in bytes", "—"),
        ("RANDOM + INT", "12.5% in bytes", "50.00"),  # a real label tells the bits
    ]
    assert document.data["settings"].tolist()[:3] == ["", "quantize=int8", "quantize=int8"]
    places = [row[3].place for row in document.tables[0].rows]
    assert places == [1, 0, None, None, None, None, None], "280,000 floats are more than an eighth of the bytes"


def test_methods_without_training_have_a_table_of_their_own_whatever_a_run_says_of_training(tmp_path):
    record = a_record(method="ease", limited=False, backbone="mf", dim=32)
    for key in ("parameter_ratio", "full_parameters", "budget_limit", "budget_unit"):
        del record["size"][key]
    runs = [{"backbone": backbone, "method": method} for backbone in ("lightgcn", "mf") for method in ("full", "ease")]
    asked = experiment(*runs)
    found = sections(asked, [record, full()], tmp_path)
    assert [section.name for section in found if section.records] == [
        "beauty, LightGCN, protocol quick",
        "beauty, without training",
    ]
    of_ease = next(section for section in found if section.records == [record])
    assert not any("Settings" in note or "Missing" in note for note in section_notes(of_ease))
    (row,) = rows_of(comparison(asked, [of_ease]))
    assert (row["method"], row["R@20"], row["ratio"], row["seeds"]) == ("EASE †", "10.00", "—", "1")
    assert [row["method"] for row in rows_of(overview(found))] == ["FULL", "EASE †"]


def test_protocols_and_splits_never_share_a_table(tmp_path):
    runs = experiment({"method": "baco", "protocol": "quick"}, {"method": "baco", "protocol": "paper"})
    records = [
        a_record(0.1, method="baco"),
        a_record(0.2, method="baco", protocol="paper"),
        a_record(0.3, method="baco", fingerprint="0" * 64),
    ]
    tables = comparison(runs, sections(runs, records, tmp_path)).tables
    assert [table.title for table in tables] == [
        "beauty, LightGCN, protocol quick, split 00000000",
        "beauty, LightGCN, protocol quick, split ffffffff",
        "beauty, LightGCN, protocol paper",
    ]
    assert ["00000000" in table.notes[0] for table in tables] == [True, False, False]
    assert [table.rows[0][2].text for table in tables] == ["30.00", "10.00", "20.00"]


def test_methods_at_their_best_stand_in_one_table_which_says_what_was_not_tuned(tmp_path, monkeypatch):
    (tmp_path / "full.yaml").touch()
    monkeypatch.setattr(columns, "tuned_file", lambda choices: tmp_path / f"{choices[-1]}.yaml")
    runs = experiment(*({"method": method, "protocol": "best"} for method in ("full", "baco")))
    records = [full(protocol="best"), a_record(0.1, method="baco", protocol="best")]
    (section,) = sections(runs, records, tmp_path)
    notes = section_notes(section)
    assert "Not tuned: BACO." in notes and any("settings that were tuned for it" in note for note in notes)
    (tmp_path / "baco.yaml").touch()
    assert not any("Not tuned" in note for note in section_notes(section))
    (quick,) = sections(experiment({"method": "full"}), [full()], tmp_path)
    assert not any("tuned" in note for note in section_notes(quick))


def test_a_record_counts_once_for_runs_that_differ_in_their_split(tmp_path):
    runs = experiment({"dataset.val_share": 0.001, "method": "full"}, {"dataset.val_share": 0.01, "method": "full"})
    found = sections(runs, [full(), full(fingerprint="0" * 64)], tmp_path)
    assert [[row.seeds for row in section.rows] for section in found] == [[[0]], [[0]]]
    assert not any(row.missing for section in found for row in section.rows)


@pytest.mark.parametrize("records", [[], [full()]])
def test_a_run_is_missing_where_only_its_like_on_another_split_is_recorded(records, tmp_path):
    runs = experiment({"dataset.val_share": 0.001, "method": "full"}, {"dataset.val_share": 0.01, "method": "full"})
    (section,) = sections(runs, records, tmp_path)
    assert len(section.rows[0].missing) == 2 - len(records)
    assert section.command == "python run.py +grid=main_table dataset=beauty protocol=quick", "which does either"


def test_changed_settings_of_protocol_and_backbone_stand_in_the_title(tmp_path):
    longer = {"protocol.max_epochs": 256, "backbone.num_layers": 3}
    runs = experiment({"method": "baco"}, {"method": "baco"} | longer)
    records = [a_record(0.1, method="baco"), a_record(0.2, method="baco", **longer)]
    found = sections(runs, records, tmp_path)
    assert [section.name for section in found] == [
        "beauty, LightGCN, protocol quick",
        "beauty, LightGCN, protocol quick, max_epochs=256, num_layers=3",
    ]
    assert [section.rows[0].mean("metrics.test.recall@20") for section in found] == [0.1, 0.2]


def test_a_table_without_records_is_called_as_the_others(tmp_path):
    runs = experiment({"method": "baco"}, {"dataset": "gowalla", "method": "baco"})
    titles = [table.title for table in comparison(runs, sections(runs, [a_record()], tmp_path)).tables]
    assert titles == ["beauty, LightGCN, protocol quick", "gowalla, LightGCN, protocol quick"]


def test_the_overview_has_a_column_for_each_comparison_and_the_best_on_top(tmp_path):
    both = [
        {"method": method, "backbone": backbone}
        for backbone in ("lightgcn", "mf")
        for method in ("full", "baco", "random")
    ]
    runs = experiment(*both)
    mf = a_record(0.3, method="random", backbone="mf")
    records = [full(), a_record(0.10, method="baco"), a_record(0.15, method="random"), mf]
    document = overview(sections(runs, records, tmp_path))
    assert [tuple(row.values()) for row in rows_of(document)] == [
        ("FULL", "20.00", "—"),
        ("RANDOM", "15.00", "30.00"),
        ("BACO", "10.00", "—"),
    ]
    (table,) = document.tables
    assert table.columns == ("method", "beauty, LightGCN", "beauty, MF")
    assert [row[1].place for row in table.rows] == [None, 0, 1], "the full model has another budget"
    assert table.notes[0] == "beauty, LightGCN, protocol quick: 529,088 parameters, 24.0% of the full model's."
    assert document.data["R@20"].tolist() == pytest.approx([20, 10, 15, 30])


def test_sections_of_two_experiments_are_joined_where_they_can_be_compared(tmp_path):
    records = [
        a_record(0.1, method="baco", seed=1),
        a_record(0.2, method="random"),
        a_record(0.3, method="baco", protocol="paper"),
    ]
    first = experiment({"method": "baco", "seed": 1})
    second = experiment(
        {"method": "baco", "seed": 0}, {"method": "random", "seed": 0}, {"method": "baco", "protocol": "paper"}
    )
    both = [sections(one, records, tmp_path) for one in (first, second)]
    quick, paper = join_sections([*both[0], *both[1]])
    assert [(row.method, row.seeds) for row in quick.rows] == [("baco", [1]), ("random", [0])], (
        "the first one's rows stay"
    )
    assert [(row.method, row.seeds) for row in paper.rows] == [("baco", [0])]
    assert len(both[0][0].rows) == 1, "what is joined is left as it was"


def test_what_is_missing_of_a_joined_section_is_run_by_the_experiment_that_asks_for_it(tmp_path):
    first = experiment({"method": "baco", "seed": 0}, {"method": "random", "seed": 0})
    alone = {"method": "baco", "method.secondary": False}
    second = replace(experiment({"seed": 0} | alone, {"seed": 1} | alone), name="ablations")
    records = [a_record(method="baco"), a_record(seed=1, **alone)]
    (section,) = join_sections([*sections(first, records, tmp_path), *sections(second, records, tmp_path)])
    assert [note for note in section_notes(section) if note.startswith("Missing")] == [
        "Missing: Random (seed 0). `python run.py +grid=main_table dataset=beauty protocol=quick` runs them.",
        "Missing: BACO, secondary=false (seed 0). `python run.py +grid=ablations dataset=beauty protocol=quick` runs "
        "them.",
    ]


def test_the_best_within_the_budget_is_marked(tmp_path):
    runs = [{"method": "full"}, {"method": "baco"}, {"method": "random"}, {"method": "baco", "method.secondary": False}]
    records = [
        full(),
        a_record(0.10, method="baco"),
        a_record(0.12, FULL // 2, limited=False, method="random"),  # as one without a budget that comes out too large
        a_record(0.11, method="baco", **{"method.secondary": False}),
    ]
    document = comparison(experiment(*runs), sections(experiment(*runs), records, tmp_path))
    assert [row[2].place for row in document.tables[0].rows] == [None, 1, None, 0]
    assert [row["method"] for row in rows_of(document)] == ["FULL", "BACO", "RANDOM †", "BACO, secondary=false"]


def test_without_a_budget_nothing_is_best(tmp_path):
    runs = experiment(*({"method": "baco", "budget": 1, "method.num_rounds": rounds} for rounds in (4, 5)))
    records = [a_record(method="baco", budget=1, **{"method.num_rounds": rounds}) for rounds in (4, 5)]
    document = comparison(runs, sections(runs, records, tmp_path))
    assert [row[3].place for row in document.tables[0].rows] == [None, None]
    assert [row["budget"] for row in rows_of(document)] == ["none", "none"]


def test_differences_are_tested_over_users(tmp_path):
    rng = np.random.default_rng(0)
    users = np.arange(400)
    ours = rng.random((400, 50)) < 0.1
    worse = ours & (rng.random((400, 50)) < 0.5)
    records = {"baco": ours, "random": worse, "full": ours}
    made = []
    for method, hits in records.items():
        record = full() if method == "full" else a_record(method=method)
        name = record_name("beauty", "lightgcn", method, record["id"])
        save_record(tmp_path, name, record, pack_hits(users, np.full(400, 60), hits))
        made.append(record)
    runs = experiment(*({"method": method} for method in records))
    document = comparison(runs, sections(runs, made, tmp_path))
    assert [row[2].mark for row in document.tables[0].rows] == ["", "*", ""]
    line = document.data.set_index("method").loc["random"]
    expected = 100 * (worse[:, :10].sum(1) / 10 - ours[:, :10].sum(1) / 10).mean()
    assert line["R@10 - baco"] == pytest.approx(expected) and line["R@10 p"] < 1e-6 and line["R@10 effect"] < -0.5
    assert document.data.set_index("method").loc["full", "R@10 p"] == 1
    assert document.data["seeds with baco"].tolist() == [1, 1, 1]


def test_without_baco_no_seeds_are_shared_with_it(tmp_path):
    runs = experiment({"method": "random"}, {"method": "baco"})
    document = comparison(runs, sections(runs, [a_record(method="random")], tmp_path))
    assert document.data["seeds with baco"].tolist() == [0, 0]


def test_one_sided_tables_are_tested_against_what_comes_near_it_over_common_seeds(tmp_path):
    rng = np.random.default_rng(0)
    per_user, made = {}, []
    for method, seed in (("one_sided", 0), ("one_sided", 1), ("full", 0), ("full", 1), ("full", 2), ("random", 0)):
        record = full(seed=seed) if method == "full" else a_record(method=method, seed=seed)
        hits = rng.random((400, 50)) < (0.12 if method == "one_sided" else 0.1)
        per_user[method, seed] = hits[:, :20].sum(1) / 20
        name = record_name("beauty", "lightgcn", method, record["id"])
        save_record(tmp_path, name, record, pack_hits(np.arange(400), np.full(400, 60), hits))
        made.append(record)
    runs = experiment(
        *({"method": name, "seed": seed} for name in ("full", "one_sided", "random") for seed in range(3))
    )
    document = against_one_sided(sections(runs, made, tmp_path))
    (line,) = document.data.to_dict("records")
    ours, of_full = ((per_user[name, 0] + per_user[name, 1]) / 2 for name in ("one_sided", "full"))
    assert (line["method"], line["seeds"]) == ("full", 2), "random hashing does not come near it"
    assert line["one_sided - R@20"] == pytest.approx(100 * (ours - of_full).mean())
    test = ttest_rel(ours, of_full)
    low, high = test.confidence_interval(0.95)
    assert line["R@20 p"] == pytest.approx(test.pvalue)
    assert line["R@20 margin"] == pytest.approx(50 * (high - low))
    (table,) = document.tables
    cell = dict(zip(table.columns, table.rows[0], strict=True))["R@20"].text
    assert table.notes[-1].endswith("Family of Holm's correction: all rows (1), each metric by itself.")
    assert cell.startswith(f"+{100 * (ours - of_full).mean():.2f} ± {50 * (high - low):.2f} (p ")
    assert not any("Missing" in note for note in table.notes), "the tables of all rows tell that"


def test_a_difference_is_told_of_each_seed(tmp_path):
    made = []
    for method, seed, recall in (("one_sided", 2, 0.15), ("one_sided", 0, 0.12), ("baco", 0, 0.1), ("baco", 2, 0.11)):
        record = a_record(recall, method=method, seed=seed)
        name = record_name("beauty", "lightgcn", method, record["id"])
        save_record(tmp_path, name, record, pack_hits(np.arange(9), np.full(9, 60), np.zeros((9, 50), bool)))
        made.append(record)
    runs = experiment(*({"method": name, "seed": seed} for name in ("one_sided", "baco") for seed in (2, 0)))
    found = sections(runs, made, tmp_path)
    document = against_one_sided(found)
    assert rows_of(document)[0]["R@20, each seed"] == "+2.00, +4.00", "by seed, 0 and 2"
    assert document.data["R@20 seed sd"].tolist() == pytest.approx([2**0.5])
    (compared,) = [one for one in comparison(runs, found).data.to_dict("records") if one["method"] == "one_sided"]
    assert compared["R@20 seed sd"] == pytest.approx(2**0.5)


@pytest.mark.parametrize(
    ("cut_off", "marked"), [((True, False), True), ((True, False, False), False), ((None,), False)]
)
def test_trainings_that_were_cut_off_are_marked(cut_off, marked, tmp_path):
    made = [a_record(method="baco")]
    for seed, value in enumerate(cut_off):
        made.append(a_record(method="random", seed=seed))
        made[-1]["training"]["convergence"] = {"cut_off": value}
    runs = experiment({"method": "baco"}, *({"method": "random", "seed": seed} for seed in range(3)))
    found = sections(runs, made, tmp_path)
    for document, column in ((comparison(runs, found), 0), (speed(runs, found), 0), (overview(found), 1)):
        (table, *_) = document.tables
        marks = {row[0].text: row[column].mark for row in table.rows}
        assert marks == {"BACO": "", "RANDOM": "§" if marked else ""}
        assert sum(note.startswith("§: cut off") for note in table.notes) == marked
    table, *_ = comparison(runs, found).tables
    assert_is_latex(to_latex(table, "main_table"))


TABLE = Table(
    "50 % & more",
    ("A_note of `code`.",),
    ("method", "R@10"),
    1,
    ((Cell("a_b"), Cell("1.00 ± 0.10", 0, "*")), (Cell("c|d"), Cell("0.50", 1))),
)


def test_markdown():
    assert to_markdown(TABLE, "main").splitlines() == [
        "## 50 % & more",
        "",
        "| method | R@10 |",
        "| --- | ---: |",
        "| a_b | **1.00 ± 0.10**\\* |",
        "| c\\|d | <u>0.50</u> |",
        "",
        "- A_note of `code`.",
    ]


def test_latex():
    text = to_latex(TABLE, "main_table")
    assert text.startswith("% A_note of `code`.\n\\begin{table*}")
    assert r"\caption{50 \% \& more. Bold: best within" in text and r"p $<$ 0.05" in text
    assert r"\label{tab:main_table-50-more}" in text
    assert to_latex(Table("Nothing", (), (), 0, ()), "main_table") == ""
    assert r"a\_b & \textbf{1.00 $\pm$ 0.10}$^{*}$ \\" in text and r"c|d & \underline{0.50} \\" in text
    assert_is_latex(text)


def assert_is_latex(text: str) -> None:
    """Environments and braces are closed, rows have as many cells as columns, and no sign is left to choke on."""
    opened = re.findall(r"\\(begin|end)\{([a-z*]+)\}", text)
    stack = []
    for kind, name in opened:
        stack.append(name) if kind == "begin" else stack.remove(name)
    plain = re.sub(r"(?m)^% .*|\\[\\%&_#{}$]", "", text)
    assert not stack and plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    assert not re.search(r"[^\x00-\x7f]", plain.replace("é", "")), "no sign that needs a special font"
    assert not re.search(r"(?m)^[^%\n]+%", plain), "no comment cuts a line short"
    for spec, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.S):
        assert text.count(r"\toprule") == text.count(r"\bottomrule")
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert all(re.sub(r"\\&", "", row).count("&") == len(spec) - 1 for row in rows)


def test_html_is_escaped_and_marked():
    text = to_html(TABLE)
    assert "<h3>50 % &amp; more</h3>" in text and "<li>A_note of <code>code</code>.</li>" in text
    assert '<td class="n"><b>1.00 ± 0.10</b><sup>*</sup></td>' in text


def test_the_committed_records_are_found(committed):
    main = committed["main_table"].data.query("dataset == 'beauty' and backbone == 'lightgcn'").set_index("method")
    assert main.loc[["full", "one_sided", "random"], "seeds"].tolist() == [3, 3, 1]
    assert main.loc[["full", "one_sided", "random"], "R@10"].round(2).tolist() == [10.33, 10.44, 5.99]
    assert main.loc["one_sided", "R@10 sd"] == pytest.approx(0.22, abs=0.005)
    budgets = committed["budgets"].data.query("backbone == 'lightgcn' and method == 'pq'")
    assert budgets["budget"].tolist() == ["10%", "15%", "20%", "25%"]
    in_bytes = committed["bytes"].data.query("backbone == 'lightgcn' and method == 'pq'")
    assert in_bytes["budget"].tolist() == [f"{share:g}% in bytes" for share in (3, 6, 12.5)]


def test_ours_stand_beside_the_papers(committed):
    data = committed["published"].data.query("dataset == 'beauty' and method == 'baco' and settings == ''")
    line = data.set_index("protocol").loc["paper"]
    assert line["R@10 paper"] == 6.308 and line["R@10"] == pytest.approx(5.79, abs=0.005)
    assert line["R@10 difference"] == pytest.approx(line["R@10"] - 6.308)
    assert committed["published"].data["R@10 paper"].notna().sum() >= 30


def test_no_two_lines_of_a_file_have_the_same_keys(committed):
    keys = ["dataset", "split", "backbone", "protocol", "changed", "dim", "method", "settings", "budget", "device"]
    for name, document in committed.items():
        lines = document.data.reindex(columns=keys)
        assert not lines.duplicated().any(), name


def test_no_two_tables_of_a_document_are_called_alike(committed):
    for name, document in committed.items():
        titles = [table.title for table in document.tables]
        assert len(set(titles)) == len(titles), name


def test_groups_of_users_have_columns(committed):
    (table, *_) = committed["user_groups"].tables
    row = next(row for row in table.rows if row[0].text == "BACO")
    of_group = dict(zip(table.columns, (cell.text for cell in row), strict=True))
    counted = [float(of_group[f"R@20 {part}"]) for part in ("0-25%", "25-50%", "50-75%", "75-100%")]
    assert min(counted) < float(of_group["R@20"]) < max(counted)


def test_all_tables_are_latex(committed):
    for document in committed.values():
        for table in document.tables:
            assert_is_latex(to_latex(table, document.name))


def test_the_same_records_give_the_same_bytes_in_any_order(committed_records, tmp_path):
    few = ("full", "baco", "one_sided")  # all take long
    records = [record for record in committed_records if record["names"]["method"] in few]
    first = write_tables(records, tmp_path / "one", RECORDS)
    second = write_tables(records[::-1], tmp_path / "two", RECORDS)
    assert [path.name for path in first] == [path.name for path in second] and len(first) > 30
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    assert len(pd.read_csv(tmp_path / "one" / "runs.csv")) == len(records)


def test_every_experiment_has_sections_without_any_record(tmp_path):
    for document in documents([], tmp_path):
        assert document.tables or document.name in ("speed", "published", "against_one_sided")
        assert all("nothing is recorded yet" in table.notes[-1].lower() for table in document.tables if not table.rows)
    assert load_experiment("main_table").runs


def test_tables_need_no_torch():
    script = "import sys, baco.__main__, baco.results.tables\n"
    script += "print([name for name in ('torch', 'numba', 'hydra') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
