"""Records and the tables made from them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baco.evaluation.metrics import user_metrics
from baco.results import record as records
from baco.results.record import load_record, load_records, pack_hits, record_id, save_record, unpack_hits
from baco.results.tables import COMPARISON, MAIN_TABLE, OVERVIEW, comparison, frame, to_markdown, to_text, write_tables

DECIDES = {
    "method": {"name": "baco", "resolution": None},
    "dim": 64,
    "seed": 0,
    "protocol": {"name": "fast", "init_std": 0.1},
}


def a_record(
    method="baco",
    label="BACO",
    identity="abc",
    recall=0.0916,
    protocol="fast",
    fingerprint="f" * 64,
    seed=0,
    batch_size=1024,
    **settings,
) -> dict:
    cut = {f"{name}@{k}": recall for k in (10, 20, 50) for name in ("recall", "ndcg")}
    return {
        "schema": records.RECORD_SCHEMA,
        "id": identity,
        "names": {"dataset": "beauty", "backbone": "lightgcn", "method": method, "protocol": protocol},
        "labels": {"dataset": "beauty", "backbone": "LightGCN", "method": label},
        "config": {
            "backbone": {"name": "lightgcn", "num_layers": 2},
            "protocol": {"name": protocol, "batch_size": batch_size},
            "method": {"name": method} | settings,
            "dim": 64,
            "seed": seed,
        },
        "dataset": {
            "name": "beauty",
            "fingerprint": fingerprint,
            "num_users": 22363,
            "num_items": 12101,
            "train": 158801,
            "val": 19850,
            "test": 19851,
        },
        "size": {
            "parameters": 529088,
            "bytes": 2200000,
            "parameter_ratio": 0.23986,
            "budget_used": 1.0,
            "budget_limit": 529088,
        },
        "seconds": {"clustering": 1.234, "training": 10.0},
        "training": {"epochs": 128},
        "metrics": {"test": cut},
        "environment": {"device": "cpu"},
    }


def test_ids_ignore_the_order_of_keys_and_nothing_else():
    reordered = {key: DECIDES[key] for key in reversed(DECIDES)}
    assert record_id(reordered) == record_id(DECIDES)
    changes = [
        {"seed": 1},
        {"dim": 32},
        {"method": {"name": "baco", "resolution": 1.0}},
        {"new": None},
        {"protocol": {"name": "fast", "init_std": 0.2}},
    ]
    identities = {record_id(DECIDES | change) for change in changes} | {record_id(DECIDES)}
    assert len(identities) == len(changes) + 1
    assert all(len(identity) == 12 and int(identity, 16) >= 0 for identity in identities)


def test_the_results_version_is_part_of_the_id(monkeypatch):
    before = record_id(DECIDES)
    monkeypatch.setattr(records, "RESULTS_VERSION", records.RESULTS_VERSION + 1)
    assert record_id(DECIDES) != before


def test_records_are_saved_and_found(tmp_path):
    hits = np.random.default_rng(0).random((9, 50)) < 0.2
    packed = pack_hits(np.arange(9), np.full(9, 60), hits)
    for name in ("b", "a"):
        save_record(tmp_path / "new", name, a_record(identity=name), packed)
    assert [record["id"] for record in load_records(tmp_path / "new")] == ["a", "b"]
    assert load_record(tmp_path / "new" / "a.json") == a_record(identity="a")
    with np.load(tmp_path / "new" / "a.npz") as archive:
        users, num_relevant, again = unpack_hits(archive)
    np.testing.assert_array_equal(users, np.arange(9))
    for name, values in user_metrics(hits, np.full(9, 60), 10).items():
        np.testing.assert_array_equal(values, user_metrics(again, num_relevant, 10)[name])
    assert {path.suffix for path in (tmp_path / "new").iterdir()} == {".json", ".npz"}, "no temporary file is left"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 0}'])
def test_what_is_no_record_does_not_count(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert load_record(tmp_path / "x.json") is None
    assert load_record(tmp_path / "missing.json") is None
    assert load_records(tmp_path) == []


def test_an_interrupted_save_leaves_no_record(tmp_path):
    with pytest.raises(TypeError):
        save_record(tmp_path, "x", {"value": object()}, {"users": np.arange(3)})
    assert load_records(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"], "the .json comes last and alone counts"


def test_frames_are_in_percent_and_tell_what_is_missing():
    table = frame([a_record(), a_record(recall=None) | {"seconds": {}}], COMPARISON)
    assert table.loc[0, "R@20"] == pytest.approx(9.16)
    assert table.loc[1, ["R@20", "training s"]].isna().all()
    assert to_text(table).splitlines()[2].split() == ["BACO", "529,088", "2,200,000", "—", "—", "—", "—"]


def test_text_is_aligned():
    lines = to_text(frame([a_record(), a_record(label="Full model", recall=0.1)], OVERVIEW)).splitlines()
    assert "beauty   LightGCN  BACO        " in lines[1]
    ends = [line.index(word) + len(word) for line, word in zip(lines, ("R@20", " 9.16", "10.00"), strict=True)]
    assert len(set(ends)) == 1


def test_markdown_is_a_table():
    lines = to_markdown(frame([a_record()], MAIN_TABLE)).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 3
    assert lines[2].startswith("| BACO | 0 | 529,088 | 24.0% | 2,200,000 | 100.00% | 9.16 |")


def test_the_same_records_give_the_same_bytes_in_any_order(tmp_path):
    rows = [a_record(), a_record("full", "Full model", "def", 0.13), a_record("random", "Random", "ghi", 0.06)]
    for folder, ordered in (("one", rows), ("two", rows[::-1])):
        assert len(write_tables(ordered, tmp_path / folder)) == 2
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    (path,) = (tmp_path / "one").glob("beauty-lightgcn-fast-*.csv")
    csv = pd.read_csv(path)
    assert dict(zip(csv["method"], csv["R@20"], strict=True)) == pytest.approx(
        {"BACO": 9.16, "Full model": 13.0, "Random": 6.0}
    )


def test_runs_that_differ_in_more_than_method_budget_and_seed_never_share_a_table(tmp_path):
    rows = [
        a_record(),
        a_record(protocol="paper"),
        a_record(fingerprint="0" * 64),
        a_record(batch_size=64),
        a_record() | {"config": a_record()["config"] | {"dim": 32}},
        a_record() | {"config": a_record()["config"] | {"backbone": {"name": "lightgcn", "num_layers": 3}}},
    ]
    written = [path for path in write_tables(rows, tmp_path) if path.suffix == ".md"]
    assert len(set(written)) == len(rows)
    texts = [path.read_text() for path in written]
    assert all(text.count("| BACO |") == 1 for text in texts)
    for words in ("protocol paper", "split 00000000", "protocol.batch_size=64", "dim=32", "backbone.num_layers=3"):
        assert sum(words in text for text in texts) == 1, words


def test_a_table_holds_all_seeds_and_budgets_in_order(tmp_path):
    rows = [a_record(seed=seed, identity=f"{seed}", recall=seed / 100) for seed in (2, 0, 1)]
    path = write_tables(rows, tmp_path)[1]
    assert pd.read_csv(path)["seed"].tolist() == [0, 1, 2]


def test_settings_of_a_method_are_shown_where_they_differ(tmp_path):
    rows = [a_record(T=5, solver="a"), a_record(T=9, solver="a"), a_record("full", "Full model")]
    table = comparison(rows)
    assert table["settings"].tolist() == ["T=5", "T=9", ""]
    assert list(table)[:2] == ["method", "settings"]
    text = write_tables(rows, tmp_path)[0].read_text()
    assert "| BACO | T=5 | 0 |" in text and "| Full model |  | 0 |" in text


def test_a_sweeps_table_tells_its_runs_apart():
    assert list(comparison([a_record(), a_record("full", "Full model")])) == list(COMPARISON)
    table = comparison([a_record(seed=0), a_record(seed=1, protocol="paper")])
    assert list(table) == ["protocol", "seed", *COMPARISON]


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "baco", *map(str, arguments)], capture_output=True, text=True)


def test_the_commands(tmp_path):
    for record in (a_record(), a_record("full", "Full model", "def", 0.13)):
        save_record(tmp_path / "records", record["id"], record, {"users": np.arange(2)})
    listed = command("records", "--results", tmp_path, "--method", "baco")
    assert listed.returncode == 0 and "BACO" in listed.stdout and "Full" not in listed.stdout
    written = command("tables", "--results", tmp_path)
    assert [Path(path).suffix for path in written.stdout.split()] == [".md", ".csv"]
    assert all(Path(path).parent == tmp_path / "tables" and Path(path).exists() for path in written.stdout.split())
    nothing = command("records", "--results", tmp_path, "--dataset", "gowalla")
    assert nothing.returncode == 1 and "there is no such record" in nothing.stderr


def test_tables_need_no_torch():
    script = "import sys, baco.__main__; print(json.dumps([m for m in ('torch', 'numba') if m in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", f"import json; {script}"], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
