"""Records, and lists of them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from baco.cli.main import call
from baco.errors import UserError
from baco.evaluation.metrics import user_metrics
from baco.files import read_arrays
from baco.results.runs import COMPARISON, OVERVIEW, RUNS, comparison, frame, to_text
from baco.runs import record as records
from baco.runs.description import METHOD_ADDED_LATER
from baco.runs.record import (
    load_record,
    load_records,
    pack_hits,
    record_arrays,
    record_id,
    record_name,
    save_record,
    unpack_hits,
    users_name,
)

DECIDES = {
    "method": {"name": "baco", "resolution": None},
    "dim": 64,
    "seed": 0,
    "protocol": {"name": "quick", "init_std": 0.1},
}


def a_record(
    method="baco",
    label="BACO",
    identity="abc",
    recall=0.0916,
    protocol="quick",
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
            "method": {"name": method} | METHOD_ADDED_LATER.get(method, {}) | settings,
            "loss": {"name": "bpr", "score": "dot", "epsilon": 0.0},
            "quantize": None,
            "popularity": 0.0,
            "start": "normal",
            "lazy_rows": False,
            "ranked_users": None,
            "dim": 64,
            "columns": None,
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


def arrays(num_users=9, num_relevant=60) -> dict[str, np.ndarray]:
    """Per-user results in which nobody has a hit."""
    return pack_hits(np.arange(num_users), np.full(num_users, num_relevant), np.zeros((num_users, 50), bool))


def name_of(record: dict) -> str:
    names = record["names"]
    return record_name(names["dataset"], names["backbone"], names["method"], record["id"])


def test_ids_ignore_the_order_of_keys_and_nothing_else():
    reordered = {key: DECIDES[key] for key in reversed(DECIDES)}
    assert record_id(reordered) == record_id(DECIDES)
    changes = [
        {"seed": 1},
        {"dim": 32},
        {"method": {"name": "baco", "resolution": 1.0}},
        {"new": None},
        {"protocol": {"name": "quick", "init_std": 0.2}},
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
    for identity in ("b", "a"):
        record = a_record(identity=identity)
        save_record(tmp_path / "new", name_of(record), record, packed)
    assert [record["id"] for record in load_records(tmp_path / "new")] == ["a", "b"]
    assert load_record(tmp_path / "new" / f"{name_of(record)}.json") == record == a_record(identity="a")
    users, num_relevant, again = unpack_hits(record_arrays(record, tmp_path / "new"))
    np.testing.assert_array_equal(users, np.arange(9))
    for name, values in user_metrics(hits, np.full(9, 60), 10).items():
        np.testing.assert_array_equal(values, user_metrics(again, num_relevant, 10)[name])
    assert {path.suffix for path in (tmp_path / "new").iterdir()} == {".json", ".npz"}, "no temporary file is left"


def test_records_tell_whether_training_was_cut_off(tmp_path):
    record = a_record()
    record["config"]["protocol"]["max_epochs"] = 128
    rising = [[epoch, 0.5, 0.001 * epoch] for epoch in range(8, 129, 8)]
    record["training"] = {"epochs": 128, "best_epoch": 128, "history": rising}
    path = save_record(tmp_path, "older", record, arrays())
    before, loaded = path.read_bytes(), load_record(path)
    assert loaded["training"]["convergence"]["cut_off"] is True
    assert path.read_bytes() == before, "older records are judged where they are read"
    assert load_record(save_record(tmp_path, "new", loaded, arrays())) == loaded
    assert frame([loaded, a_record()], RUNS)["cut off"].tolist() == [True, None]


def test_records_of_one_split_share_its_test_users(tmp_path):
    made = [a_record(identity="a"), a_record(identity="b"), a_record(identity="c", fingerprint="0" * 64)]
    sizes = {"users_per_row": np.array([5, 4], np.int32)}
    for record, count in zip(made, (9, 9, 7), strict=True):
        save_record(tmp_path, name_of(record), record, arrays(count) | sizes)
        assert set(read_arrays(tmp_path / f"{name_of(record)}.npz")) == {"hits", "k", "users_per_row"}
    shared = {path.name for path in tmp_path.glob("test_users-*")}
    assert shared == {"test_users-ffffffffffff.npz", "test_users-000000000000.npz"}
    for record, count in zip(made, (9, 9, 7), strict=True):
        joined = record_arrays(record, tmp_path)
        expected = arrays(count) | sizes
        assert joined.keys() == expected.keys()
        for key, values in expected.items():
            np.testing.assert_array_equal(joined[key], values)
            assert joined[key].dtype == values.dtype


def test_the_shared_file_is_written_once(tmp_path):
    save_record(tmp_path, "a", a_record(identity="a"), arrays())
    path = tmp_path / f"{users_name(a_record())}.npz"
    before = path.stat()
    save_record(tmp_path, "b", a_record(identity="b"), arrays())
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("other", [{"num_users": 8}, {"num_relevant": 59}])
def test_other_test_users_of_the_same_split_are_refused(tmp_path, other):
    save_record(tmp_path, "a", a_record(identity="a"), arrays())
    with pytest.raises(UserError, match=r"test_users-f{12}\.npz has other test users .*; put the record into another"):
        save_record(tmp_path, "b", a_record(identity="b"), arrays(**other))
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "a.npz", "test_users-ffffffffffff.npz"}


def test_missing_test_users_are_named(tmp_path):
    record = a_record()
    save_record(tmp_path, name_of(record), record, arrays())
    path = tmp_path / f"{users_name(record)}.npz"
    path.unlink()
    with pytest.raises(UserError, match=f"{path} is missing, which {name_of(record)}.npz needs; copy it from where"):
        record_arrays(record, tmp_path)
    save_record(tmp_path, name_of(record), record, arrays())
    assert record_arrays(record, tmp_path)["users"].tolist() == list(range(9)), "running it again mends that"


def test_damaged_test_users_are_named(tmp_path):
    record = a_record()
    save_record(tmp_path, name_of(record), record, arrays())
    path = tmp_path / f"{users_name(record)}.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{path} cannot be read .*; delete it and copy it"):
        record_arrays(record, tmp_path)
    with pytest.raises(UserError, match=f"{path} cannot be read .*; delete it and repeat this"):
        save_record(tmp_path, "b", a_record(identity="b"), arrays())


def test_arrays_of_an_older_version_are_named(tmp_path):
    record = a_record()
    path = tmp_path / f"{name_of(record)}.npz"
    np.savez_compressed(path, **arrays())
    with pytest.raises(UserError, match=f"{path} is of an older version.*; delete it and the .json beside it"):
        record_arrays(record, tmp_path)


def test_a_record_whose_arrays_are_gone_has_none(tmp_path):
    assert record_arrays(a_record(), tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 0}', b'{"schema": 1}', b"\xff"])
def test_what_is_no_record_does_not_count(tmp_path, content, caplog):
    (tmp_path / "x.json").write_bytes(content)
    assert load_record(tmp_path / "x.json") is None
    assert load_record(tmp_path / "missing.json") is None
    assert load_records(tmp_path) == []
    assert f"{tmp_path / 'x.json'} is damaged or of another version" in caplog.text


def test_damaged_arrays_are_named(tmp_path):
    record = a_record()
    save_record(tmp_path, name_of(record), record, arrays(1000))
    path = tmp_path / f"{name_of(record)}.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{path} cannot be read .*; delete it and the .json beside it"):
        record_arrays(record, tmp_path)


def test_records_of_another_version_of_the_results_do_not_count(tmp_path):
    for name, version in (("older", {"results_version": 0}), ("first", {}), ("own", {"results_version": 1})):
        save_record(tmp_path, name, a_record() | version | {"name": name}, arrays())
    assert [record["name"] for record in load_records(tmp_path)] == ["first", "own"]


def test_an_interrupted_save_leaves_no_record(tmp_path):
    with pytest.raises(TypeError):
        save_record(tmp_path, "x", a_record() | {"value": object()}, arrays())
    assert load_records(tmp_path) == []
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"test_users-ffffffffffff.npz", "x.npz"}, "the .json comes last and alone counts"


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


def test_the_commands(tmp_path, capsys):
    for record in (a_record(), a_record("full", "Full model", "def", 0.13)):
        save_record(tmp_path / "records", record["id"], record, arrays())
    listing = ["records", "--results", str(tmp_path)]
    assert call([*listing, "--method", "baco"]) == 0
    listed = capsys.readouterr().out
    assert "BACO" in listed and "Full" not in listed
    closed = subprocess.run(
        f"{sys.executable} -m baco {' '.join(listing)} | true", shell=True, capture_output=True, text=True
    )
    assert closed.stderr == ""
    assert call([*listing, "--dataset", "gowalla"]) == 1 and "there is no such record" in capsys.readouterr().err


def test_a_record_with_empty_sections_does_not_count(tmp_path, caplog):
    sections = ("names", "labels", "config", "dataset", "size", "seconds", "metrics", "environment")
    (tmp_path / "z.json").write_text(json.dumps({"schema": 1, "id": "x"} | {section: {} for section in sections}))
    assert load_records(tmp_path) == [] and "z.json" in caplog.text
