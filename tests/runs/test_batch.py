"""Batches, with a worker that is not `baco run`; `tests/cli/test_batch.py` has the real one."""

import contextlib
import json
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from baco.cli.main import main
from baco.errors import UserError
from baco.runs import batch
from baco.runs.batch import Places, collect, pack, run_batch
from baco.runs.record import (
    load_records,
    pack_hits,
    record_arrays,
    record_id,
    record_name,
    save_record,
    unpack_hits,
)
from tests.records import blank_record

# Records once, fails once, and then hears nothing any more; `sys.argv` has what `baco run` would get.
WORKER = """
import json, os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
folders = dict(argument.split("=") for argument in sys.argv[1:])
records, runs = (pathlib.Path(folders[key]) for key in ("results_dir", "runs_dir"))
assert folders["+grid"] == "smoke" and folders["seed"] == "3"
(runs / "failures").mkdir(parents=True)
(runs / "failures" / "other.json").write_text('{"reason": "it cannot be"}')
(records / "new.npz").write_bytes(b"arrays")
(records / "new.json").write_text("{}")
time.sleep(60)
"""


def worker(program: str) -> tuple[str, ...]:
    """A command that takes the place of `baco run`."""
    return sys.executable, "-c", program


def saved(results: Path, seed: int, users: int = 3, **changes) -> str:
    """A record as a run leaves it, with `seed` hits of each user; its name."""
    groups = {"backbone": "mf", "method": "baco", "protocol": "quick"}
    config = {group: {"name": name} for group, name in groups.items()} | {"seed": seed, "dim": 64}
    names = {"dataset": "beauty"} | groups
    dataset = {"fingerprint": "f" * 64}
    record = blank_record(id=record_id(config), config=config, names=names, dataset=dataset)
    record |= changes
    name = record_name("beauty", "mf", "baco", record_id(config))
    hits = np.tile(np.arange(10) < seed, (users, 1))
    save_record(results / "records", name, record, pack_hits(np.arange(users), np.full(users, 60), hits))
    return name


def test_a_worker_that_does_not_stop_is_ended_with_what_it_did(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "RUN", worker(WORKER))
    monkeypatch.setattr(batch, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(batch, "POLL_SECONDS", 0.05)
    saved(tmp_path / "results", 1)  # from before
    begin = time.monotonic()
    count = run_batch("smoke", 1 / 60, tmp_path / "out", tmp_path / "results", tmp_path / "runs", ["seed=3"])
    assert count == 1 and 1 < time.monotonic() - begin < 10
    with zipfile.ZipFile(tmp_path / "out" / "batch.zip") as archive:
        assert archive.namelist() == ["records/new.npz", "records/new.json", "failures/other.json"]
        assert archive.read("records/new.npz") == b"arrays"


def test_a_worker_that_fails_at_once_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "RUN", worker("import sys; sys.exit('error: no such setting')"))
    monkeypatch.setattr(batch, "POLL_SECONDS", 0.05)
    with pytest.raises(UserError, match="the worker failed before its first run"):
        run_batch("smoke", 1, tmp_path / "out", tmp_path / "results", tmp_path / "runs", ["devic=cuda"])


def test_a_worker_that_is_killed_is_an_error_and_what_it_did_is_kept(tmp_path, monkeypatch):
    saved(tmp_path / "results", 1)
    monkeypatch.setattr(batch, "RUN", worker(WORKER.replace("time.sleep(60)", "os.kill(os.getpid(), signal.SIGKILL)")))
    monkeypatch.setattr(batch, "POLL_SECONDS", 0.05)
    with pytest.raises(
        UserError, match=r"was killed by signal 9; is there enough memory\? .*batch\.zip has what it had"
    ):
        run_batch("smoke", 1, tmp_path / "out", tmp_path / "results", tmp_path / "runs", ["seed=3"])
    with zipfile.ZipFile(tmp_path / "out" / "batch.zip") as archive:
        assert "records/new.json" in archive.namelist()


@pytest.mark.parametrize(
    ("minutes", "out", "message"),
    [
        (-1.0, "out", "--minutes -1 must be a number, 0 or more"),
        (1.0, "file/out", "--out: the folder .*file/out cannot"),
    ],
)
def test_a_batch_that_cannot_be_is_not_begun(tmp_path, minutes, out, message):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=message):
        run_batch("smoke", minutes, tmp_path / out, tmp_path / "results", tmp_path / "runs", [])


@pytest.mark.parametrize("option", ["results", "runs"])
def test_what_is_no_folder_is_named(tmp_path, option):
    saved(tmp_path / "away" / "results", 1)
    (tmp_path / "file").write_text("no folder")
    folders = {"results": tmp_path / "here", "runs": tmp_path / "runs"} | {option: tmp_path / "file"}
    with pytest.raises(UserError, match=f"--{option}: the folder {tmp_path / 'file'}"):
        collect(packed(tmp_path / "away"), **folders)


@pytest.mark.parametrize("command", ["tables", "figures", "report.html"])
def test_what_cannot_be_written_to_is_named(tmp_path, monkeypatch, capsys, command):
    saved(tmp_path, 1)
    (tmp_path / command).mkdir() if command == "report.html" else (tmp_path / command).write_text("no folder")
    monkeypatch.setattr(sys, "argv", ["baco", command.partition(".")[0], "--results", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert re.match(f"error: --results: .*{command} cannot be", capsys.readouterr().err)


def test_the_worker_does_not_outlive_an_interrupted_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "RUN", worker("import time; time.sleep(60)"))
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(batch.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0])

    def interrupted(seconds):
        monkeypatch.setattr(batch.time, "sleep", sleep)
        raise KeyboardInterrupt

    sleep = time.sleep
    monkeypatch.setattr(batch.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_batch("smoke", 1, tmp_path / "out", tmp_path / "results", tmp_path / "runs", [])
    assert started[0].poll() is not None
    assert (tmp_path / "out" / "batch.zip").exists()


def packed(away: Path) -> Path:
    path = away / "batch.zip"
    path.write_bytes(pack(set(Places.of(away / "results", away / "runs").files())))
    return path


def test_records_are_merged_and_those_here_are_kept(tmp_path):
    away, here = tmp_path / "away", tmp_path / "here"
    shared, fresh = saved(away / "results", 1), saved(away / "results", 2)
    saved(here / "results", 1, created="earlier")
    (here / "runs" / "failures").mkdir(parents=True)
    (here / "runs" / "failures" / f"{fresh}.json").write_text("{}")
    assert collect(packed(away), here / "results", here / "runs") == (1, 0)
    found = {record["config"]["seed"]: record for record in load_records(here / "results" / "records")}
    assert set(found) == {1, 2} and found[1]["created"] == "earlier" and "created" not in found[2]
    users, _, hits = unpack_hits(record_arrays(found[2], here / "results" / "records"))
    assert users.tolist() == [0, 1, 2] and hits.sum(1).tolist() == [2, 2, 2]
    assert not list((here / "runs" / "failures").iterdir()), "it is recorded now"
    assert collect(packed(away), here / "results", here / "runs") == (0, 0)
    assert shared != fresh


def test_a_batch_carries_the_test_users_once(tmp_path):
    away, here = tmp_path / "away", tmp_path / "here"
    for seed in (1, 2):
        saved(away / "results", seed)
    with zipfile.ZipFile(packed(away)) as archive:
        shared = [name for name in archive.namelist() if "test_users" in name]
        assert shared == ["records/test_users-ffffffffffff.npz"]
    assert collect(packed(away), here / "results", here / "runs") == (2, 0)
    for record in load_records(here / "results" / "records"):
        assert record_arrays(record, here / "results" / "records")["users"].tolist() == [0, 1, 2]


def test_other_test_users_than_those_here_are_refused(tmp_path):
    away, here = tmp_path / "away", tmp_path / "here"
    saved(away / "results", 1, users=4)
    saved(here / "results", 2)
    with pytest.raises(UserError, match=r"here/.*test_users-f{12}\.npz has other test users"):
        collect(packed(away), here / "results", here / "runs")
    assert [record["config"]["seed"] for record in load_records(here / "results" / "records")] == [2]


def test_a_batch_without_test_users_is_refused(tmp_path):
    away = tmp_path / "away"
    name = saved(away / "results", 1)
    (away / "results" / "records" / "test_users-ffffffffffff.npz").unlink()
    with pytest.raises(UserError, match=f"'{name}' is damaged or of another version"):
        collect(packed(away), tmp_path / "here", tmp_path / "runs")


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"PK"), lambda path: np.savez(path, users=[0])])
def test_damaged_test_users_in_a_batch_are_named(tmp_path, damage):
    away = tmp_path / "away"
    saved(away / "results", 1)
    damage(away / "results" / "records" / "test_users-ffffffffffff.npz")
    with pytest.raises(UserError, match=r"batch\.zip: 'test_users-f{12}' cannot be read .*; make the batch again"):
        collect(packed(away), tmp_path / "here", tmp_path / "runs")
    assert not (tmp_path / "here").exists()


def test_failures_are_merged_where_there_is_no_record(tmp_path):
    away, here = tmp_path / "away", tmp_path / "here"
    known = saved(here / "results", 1)
    (away / "runs" / "failures").mkdir(parents=True)
    for name in (known, "other"):
        (away / "runs" / "failures" / f"{name}.json").write_text(json.dumps({"name": name}))
    assert collect(packed(away), here / "results", here / "runs") == (0, 1)
    assert [path.name for path in (here / "runs" / "failures").iterdir()] == ["other.json"]


@pytest.mark.parametrize("lacking", ["id", "size", "metrics"])
def test_a_record_that_would_not_count_here_is_refused(tmp_path, lacking):
    away = tmp_path / "away"
    name = saved(away / "results", 1)
    path = away / "results" / "records" / f"{name}.json"
    batch_of_it = packed(away)
    record = json.loads(path.read_text())
    del record[lacking]
    with zipfile.ZipFile(batch_of_it) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(batch_of_it, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, json.dumps(record) if member.endswith(".json") else content)
    with pytest.raises(UserError, match=f"'{name}' is damaged or of another version"):
        collect(batch_of_it, tmp_path / "here", tmp_path / "runs")
    assert not (tmp_path / "here").exists()


def test_what_is_damaged_is_refused_whole(tmp_path):
    away, here = tmp_path / "away", tmp_path / "here"
    saved(away / "results", 1)
    broken = saved(away / "results", 2)
    (away / "results" / "records" / f"{broken}.json").write_text('{"schema": 1}')
    with pytest.raises(UserError, match=f"'{broken}' is damaged"):
        collect(packed(away), here / "results", here / "runs")
    assert not here.exists()


def test_a_batch_damaged_on_its_way_is_refused(tmp_path):
    saved(tmp_path / "away" / "results", 1)
    path = packed(tmp_path / "away")
    content = path.read_bytes()
    for place in range(60, len(content), 41):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        with contextlib.suppress(UserError):
            collect(path, tmp_path / "here", tmp_path / "runs")
    path.write_bytes(content[:100] + bytes(40) + content[140:])
    with pytest.raises(UserError, match=r"batch\.zip cannot be read as a batch"):
        collect(path, tmp_path / "away" / "here", tmp_path / "runs")


def test_a_record_under_another_name_is_refused(tmp_path):
    away = tmp_path / "away"
    name = saved(away / "results", 1)
    for suffix in ("json", "npz"):
        path = away / "results" / "records" / f"{name}.{suffix}"
        path.rename(path.with_name(f"beauty-mf-baco-000000000000.{suffix}"))
    with pytest.raises(UserError, match="damaged or of another version"):
        collect(packed(away), tmp_path / "here", tmp_path / "runs")


@pytest.mark.parametrize("name", ["../records/x.json", "records/../../x.json", "x.json", "records/x.py"])
def test_other_archives_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "batch.zip", "w") as archive:
        archive.writestr(name, "{}")
    with pytest.raises(UserError, match="is no batch"):
        collect(tmp_path / "batch.zip", tmp_path / "results", tmp_path / "runs")
    (tmp_path / "no.zip").write_text("nothing")
    with pytest.raises(UserError, match="cannot be read as a batch"):
        collect(tmp_path / "no.zip", tmp_path / "results", tmp_path / "runs")
