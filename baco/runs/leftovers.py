"""Files that killed processes leave behind, and which of them nobody needs any more."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from baco.errors import UserError
from baco.files import TEMPORARY
from baco.runs.lock import LockedError, hold_lock, is_held
from baco.runs.record import load_record
from baco.training.checkpoint import is_damaged

UNTOUCHED_SECONDS = 3600  # after which nobody writes to a temporary file any more


@dataclass(frozen=True)
class Leftover:
    """A file that nobody needs.

    Attributes
    ----------
    path : Path
    found : os.stat_result
        What it was like when it was judged.
    reason : str
        Why nobody needs it.
    lock : Path or None
        Whoever needs the file after all holds this.
    """

    path: Path
    found: os.stat_result
    reason: str
    lock: Path | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.found.st_size

    def remove(self) -> bool:
        """Remove the file, unless somebody has begun to use it; returns whether it is gone.

        Raises
        ------
        UserError
            When the file cannot be removed.
        """
        try:
            if self.lock is None:
                return self._remove_unchanged()
            with hold_lock(self.lock):
                removed = self.path == self.lock or self._remove_unchanged()
                self.lock.unlink()  # as the file that is to go, or as one that was made just now
                return removed
        except LockedError:
            return False
        except OSError as error:
            raise UserError(f"{self.path} cannot be removed ({error.strerror}); make its folder writable") from None

    def _remove_unchanged(self) -> bool:
        try:
            if self.path.stat().st_mtime_ns != self.found.st_mtime_ns:
                return False
            self.path.unlink()
        except FileNotFoundError:
            pass
        return True


def find_leftovers(results: Path, runs: Path, data: Path) -> list[Leftover]:
    """What nobody needs any more in the folders of results, of runs and of datasets.

    These are temporary files that are no longer written to; checkpoints that are damaged or whose run has its record;
    and empty lock files. What a process uses now is none. A checkpoint that was made with other code or on another
    kind of device is none either: a training may go on from it there. The lock of a holder that died tells a grid so.

    Parameters
    ----------
    results : Path
        Holds records/.
    runs : Path
        Holds checkpoints, and locks/.
    """
    found = chain(
        *(_temporary_files(folder) for folder in (results, runs, data)),
        _checkpoints(results / "records", runs),
        _locks(runs / "locks"),
    )
    return list({leftover.path.resolve(): leftover for leftover in found}.values())  # folders may lie in one another


def _temporary_files(folder: Path) -> Iterator[Leftover]:
    for path in sorted(folder.rglob(".*.tmp")):
        with contextlib.suppress(FileNotFoundError):  # it has just become what it was written for
            found = path.stat()
            if TEMPORARY.fullmatch(path.name) and found.st_mtime < time.time() - UNTOUCHED_SECONDS:
                yield Leftover(path, found, "half written, and untouched for an hour")


def _checkpoints(records: Path, runs: Path) -> Iterator[Leftover]:
    """Those of `Plan.checkpoint_paths`."""
    for path in sorted(runs.glob("*.checkpoint")):
        name = path.name.removesuffix(".checkpoint").removesuffix(".full")
        lock = runs / "locks" / name
        if is_held(lock):
            continue
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            if load_record(records / f"{name}.json") is not None:
                yield Leftover(path, found, "the record of its run is there", lock)
            elif is_damaged(path):
                yield Leftover(path, found, "damaged: no training can go on from it", lock)


def _locks(folder: Path) -> Iterator[Leftover]:
    for path in sorted(folder.glob("*")):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            if found.st_size == 0 and not is_held(path):
                yield Leftover(path, found, "a lock that nobody holds", path)
