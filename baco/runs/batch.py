"""A batch: part of a grid done on another machine within a time limit, and brought back as one small file."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baco.errors import UserError
from baco.files import check_folder, check_writable, write_bytes
from baco.runs.record import TEST_USERS, load_record, parse_record, record_id, record_name, share_users, users_name
from baco.runs.time_limit import TimeUp, time_limit

RUN = (sys.executable, "-m", "baco", "run")
GRACE_SECONDS = 15  # for a call into compiled code to end, before the process is ended
POLL_SECONDS = 1
MEMBER = re.compile(r"(records|failures)/([\w.-]+)\.(json|npz)")


@dataclass(frozen=True)
class Places:
    """Where records lie, and where reasons of failures do."""

    records: Path
    failures: Path

    @classmethod
    def of(cls, results: Path, runs: Path) -> Places:
        return cls(results / "records", runs / "failures")

    def files(self) -> dict[Path, int]:
        """The records and failures there are, and when they were written, in nanoseconds."""
        found = {}
        for path in (path for folder in (self.records, self.failures) for path in folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # a failure that has just become a record
                found[path] = path.stat().st_mtime_ns
        return found


def run_batch(grid: str, minutes: float, out: Path, results: Path, runs: Path, overrides: list[str]) -> int:
    """Run a grid in a process of its own, for so long, and leave what it did in `out`/batch.zip.

    The file is whole at any time: it is written anew after each run. The process stops by itself at the limit; one that
    does not, because it is inside a long call, is ended a little later. It does not outlive this call.

    Returns
    -------
    int
        The number of new records.

    Raises
    ------
    UserError
        When the minutes or a folder cannot be, the process fails before it has done anything, or it is killed.
    """
    if not 0 <= minutes < math.inf:
        raise UserError(f"--minutes {minutes:g} must be a number, 0 or more")
    places, path = Places.of(results, runs), out / "batch.zip"
    check_writable(path, "--out")
    before = places.files()
    packed: set[Path] | None = None

    def pack_news() -> set[Path]:
        news = {file for file, written in places.files().items() if before.get(file) != written}
        if news != packed:
            write_bytes(path, pack(news))
        return news

    folders = [f"results_dir={places.records}", f"runs_dir={runs}"]
    command = [*RUN, f"+grid={grid}", f"minutes={minutes}", *folders, *overrides]
    worker = subprocess.Popen(command, start_new_session=True)
    ended = None  # how, where it was not by us
    try:
        with contextlib.suppress(TimeUp), time_limit(minutes + GRACE_SECONDS / 60):
            while (ended := worker.poll()) is None:
                packed = pack_news()
                time.sleep(POLL_SECONDS)
    finally:
        end(worker)
        packed = pack_news()
    if ended is not None and ended < 0:
        raise UserError(
            f"the worker was killed by signal {-ended}; is there enough memory? {path} has what it had done until then"
        )
    if ended and not packed:
        raise UserError("the worker failed before its first run; the reason stands above")
    return sum(file.parent == places.records for file in packed)


def end(worker: subprocess.Popen) -> None:
    """End a process and all that it started, if it has not ended by itself; it has some seconds to do so in order."""
    worker.terminate()
    try:
        worker.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def pack(files: set[Path]) -> bytes:
    """An archive of failures and of records, with their arrays and test users; the same files give the same bytes."""
    members: dict[str, Path] = {}
    for file in sorted(files):
        kind = "failures" if file.parent.name == "failures" else "records"
        record = load_record(file)
        shared = [] if record is None else [file.with_name(f"{users_name(record)}.npz")]
        members |= {f"{kind}/{one.name}": one for one in (*shared, file.with_suffix(".npz"), file) if one.exists()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, file in members.items():
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def collect(path: Path, results: Path, runs: Path) -> tuple[int, int]:
    """Merge a batch into the records; returns how many records and failures are new here.

    A record that is here already is kept. A failure does not count where there is a record.

    Raises
    ------
    UserError
        When the file is no batch, a record in it is not what its name says, the test users of a split are not those
        that are here, or a folder cannot be written to; no record is written then.
    """
    places = Places.of(results, runs)
    members = _members(path)
    records = {name for kind, name, suffix in members if (kind, suffix) == ("records", "json")}
    shared = {_check(path, name, members) for name in records}
    users = {name: _test_users(path, name, members) for name in sorted(shared)}
    check_folder(places.records, "--results")
    check_folder(places.failures, "--runs")
    for name, arrays in users.items():
        share_users(places.records / f"{name}.npz", arrays)
    fresh = sorted(name for name in records if load_record(places.records / f"{name}.json") is None)
    for name in fresh:
        for suffix in ("npz", "json"):  # the record comes last: it alone counts
            write_bytes(places.records / f"{name}.{suffix}", members["records", name, suffix])
        (places.failures / f"{name}.json").unlink(missing_ok=True)
    failed = sorted(name for kind, name, _ in members if kind == "failures")
    failed = [name for name in failed if load_record(places.records / f"{name}.json") is None]
    for name in failed:
        write_bytes(places.failures / f"{name}.json", members["failures", name, "json"])
    return len(fresh), len(failed)


def _members(path: Path) -> dict[tuple[str, str, str], bytes]:
    """The files of a batch by kind, name and ending."""
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # the last of what it cannot decode
        raise UserError(f"{path} cannot be read as a batch: {error}") from None
    members = {}
    for name, content in contents.items():
        match = MEMBER.fullmatch(name)
        if match is None:
            raise UserError(f"{path} is no batch: it holds '{name}'")
        kind, stem, suffix = match.groups()
        members[kind, stem, suffix] = content
    return members


def _check(path: Path, name: str, members: dict[tuple[str, str, str], bytes]) -> str:
    """Refuse a record that is not whole or not what its name says; returns the name of its test users' file."""
    try:
        record = parse_record(members["records", name, "json"])
        if record is None:
            raise ValueError("it is no whole record")
        names, identity, shared = record["names"], record_id(record["config"]), users_name(record)
        expected = record_name(names["dataset"], names["backbone"], names["method"], identity)
        arrays = {("records", name, "npz"), ("records", shared, "npz")}
        whole = name == expected and arrays <= members.keys()
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path}: the record '{name}' is damaged or of another version; make the batch again")
    return shared


def _test_users(path: Path, name: str, members: dict[tuple[str, str, str], bytes]) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(members["records", name, "npz"]), allow_pickle=False) as archive:
            return {key: archive[key] for key in TEST_USERS}
    except Exception as error:  # a damaged archive fails in many ways
        raise UserError(f"{path}: '{name}' cannot be read ({error}); make the batch again") from None
