"""Records, and lists of them."""

import subprocess
import sys

import numpy as np
import pytest

from baco.errors import UserError
from baco.evaluation.metrics import user_metrics
from baco.results.runs import COMPARISON, OVERVIEW, comparison, frame, to_text
from baco.runs import record as records
from baco.runs.record import (
    load_record,
    load_records,
    pack_hits,
    record_arrays,
    record_id,
    record_name,
    save_record,
    unpack_hits,
)

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
            "quantize": None,
            "popularity": 0.0,
            "start": "normal",
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
        "seconds": {"clustering": 1.234, "search": 0.0, "training": 10.0},
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


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 0}', b'{"schema": 1}', b"\xff"])
def test_what_is_no_record_does_not_count(tmp_path, content, caplog):
    (tmp_path / "x.json").write_bytes(content)
    assert load_record(tmp_path / "x.json") is None
    assert load_record(tmp_path / "missing.json") is None
    assert load_records(tmp_path) == []
    assert f"{tmp_path / 'x.json'} is damaged or of another version" in caplog.text


def test_damaged_arrays_are_named(tmp_path):
    record = a_record()
    names = record["names"]
    name = record_name(names["dataset"], names["backbone"], names["method"], record["id"])
    save_record(tmp_path, name, record, {"users": np.arange(1000)})
    path = tmp_path / f"{name}.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{path} cannot be read .*; delete it and the .json beside it"):
        record_arrays(record, tmp_path)


def test_records_of_another_version_of_the_results_do_not_count(tmp_path):
    for name, version in (("older", {"results_version": 0}), ("first", {}), ("own", {"results_version": 1})):
        save_record(tmp_path, name, a_record() | version | {"name": name}, {"users": np.arange(3)})
    assert [record["name"] for record in load_records(tmp_path)] == ["first", "own"]


def test_an_interrupted_save_leaves_no_record(tmp_path):
    with pytest.raises(TypeError):
        save_record(tmp_path, "x", {"value": object()}, {"users": np.arange(3)})
    assert load_records(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"], "the .json comes last and alone counts"


def test_frames_are_in_percent_and_tell_what_is_missing():
    table = frame([a_record(), a_record(recall=None) | {"seconds": {}}], COMPARISON)
    assert table.loc[0, "R@20"] == pytest.approx(9.16)
    assert table.loc[1, ["R@20", "training s"]].isna().all()
    assert to_text(table).splitlines()[2].split() == ["BACO", "529,088", "2,200,000", "—", "—", "—", "—", "—"]


def test_text_is_aligned():
    lines = to_text(frame([a_record(), a_record(label="Full model", recall=0.1)], OVERVIEW)).splitlines()
    assert "beauty   LightGCN  BACO        " in lines[1]
    ends = [line.index(word) + len(word) for line, word in zip(lines, ("R@20", " 9.16", "10.00"), strict=True)]
    assert len(set(ends)) == 1


def test_settings_of_a_method_are_shown_where_they_differ():
    rows = [a_record(T=5, solver="a"), a_record(T=9, solver="a"), a_record("full", "Full model")]
    table = comparison(rows)
    assert table["settings"].tolist() == ["T=5", "T=9", ""]
    assert list(table)[:2] == ["method", "settings"]
    rows[1]["config"]["popularity"] = 0.25
    assert comparison(rows)["settings"].tolist() == ["T=5, popularity=0.0", "T=9, popularity=0.25", ""]
    rows[0]["config"]["start"] = "spectral"
    assert comparison(rows)["settings"].tolist()[1] == "T=9, popularity=0.25, start=normal"
    codes = [a_record("pq", "PQ", popularity=power) for power in (0.0, 1.0)]
    assert comparison(codes)["settings"].tolist() == ["popularity=0.0", "popularity=1.0"]


def test_so_are_those_of_backbone_protocol_and_format():
    rows = [a_record(), a_record(batch_size=2048), a_record("full", "Full model"), a_record("full", "Full model, int8")]
    rows[0]["config"]["backbone"] = {"name": "lightgcn", "num_layers": 1}
    rows[2]["config"]["backbone"] = {"name": "mf"}
    rows[2]["config"]["dim"] = 32
    rows[3]["config"]["quantize"] = {"name": "int8", "fitted": True}
    assert comparison(rows)["settings"].tolist() == [
        "backbone.num_layers=1, protocol.batch_size=1024",
        "backbone.num_layers=2, protocol.batch_size=2048",
        "dim=32, protocol.batch_size=1024",
        "dim=64, backbone.num_layers=2, protocol.batch_size=1024",
    ]


def test_several_splits_of_a_dataset_are_told_apart():
    rows = [a_record(), a_record(fingerprint="0" * 64)]
    assert comparison(rows)["split"].tolist() == ["ffffffff", "00000000"]
    assert "split" not in comparison(rows[:1])


def test_a_long_list_leaves_out_settings_that_are_the_methods_own():
    baco = [a_record(solver="asynchronous", num_rounds=rounds) for rounds in (None, 9)]
    plus = [a_record("baco_plus", "BACO+", code_share=share) for share in (0.5, 0.4)]
    for record, power, start in zip(plus, (0.25, 0.0), ("spectral", "normal"), strict=True):
        record["config"] |= {"popularity": power, "start": start, "backbone": {"name": "mf"}}
    gone = [a_record("gone", "Gone", depth=depth) for depth in (1, 2)]
    table = frame([*baco, *plus, *gone], OVERVIEW, hide_defaults=True)
    assert table["settings"].tolist() == [
        "",
        "num_rounds=9",
        "",
        "code_share=0.4, popularity=0.0, start=normal",
        "depth=1",
        "depth=2",
    ]


def test_a_sweeps_table_tells_its_runs_apart():
    without_search = [name for name in COMPARISON if name != "search s"]
    assert list(comparison([a_record(), a_record("full", "Full model")])) == without_search
    table = comparison([a_record(seed=0), a_record(seed=1, protocol="paper")])
    assert list(table) == ["protocol", "seed", *without_search]
    drawn = a_record()
    drawn["seconds"]["search"] = 0.02
    assert list(comparison([drawn])) == without_search
    searched = a_record("bet", "BET")
    searched["seconds"]["search"] = 60.0
    assert list(comparison([a_record(), searched])) == list(COMPARISON)


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "baco", *map(str, arguments)], capture_output=True, text=True)


def test_the_commands(tmp_path):
    for record in (a_record(), a_record("full", "Full model", "def", 0.13)):
        save_record(tmp_path / "records", record["id"], record, {"users": np.arange(2)})
    listed = command("records", "--results", tmp_path, "--method", "baco")
    assert listed.returncode == 0 and "BACO" in listed.stdout and "Full" not in listed.stdout
    closed = subprocess.run(
        f"{sys.executable} -m baco records --results {tmp_path} | true", shell=True, capture_output=True, text=True
    )
    assert closed.stderr == ""
    nothing = command("records", "--results", tmp_path, "--dataset", "gowalla")
    assert nothing.returncode == 1 and "there is no such record" in nothing.stderr
