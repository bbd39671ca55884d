"""Locks: no two processes do the same run, and the lock of a dead one is free again."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from baco.errors import UserError


class LockedError(UserError):
    """Another process holds the lock; the message says which."""


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` during the block.

    The lock is the kernel's (flock): it ends with its process, however that ends, and works between machines on file
    systems that share locks. The file says who holds it; it stays behind empty, or with the name of a holder that died.
    Only who holds it may remove the file.

    Raises
    ------
    LockedError
        When another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path) as file:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {now}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock now, or may."""
    try:
        with open(path, "r+", encoding="utf-8") as file:
            return not _lock(file)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's: that cannot be told, and is to be left alone
        return True


def find_dead_holder(path: Path) -> str | None:
    """Who held the lock and died without giving it back; None for a lock that is held, free or was never taken.

    The name is wiped, so that one caller only learns it.
    """
    try:
        with open(path, "r+", encoding="utf-8") as file:
            if not _read(file) or not _lock(file):
                return None
            holder = _read(file)
            file.truncate(0)
            return holder or None
    except FileNotFoundError:
        return None


@contextmanager
def _locked(path: Path) -> Iterator[TextIO]:
    """The file at `path`, made where there is none, with its lock taken."""
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            if not (_lock(file) or _lock_soon(file)):
                raise LockedError(f"it is being run by {_read(file) or 'another process'}; wait for that, or end it")
            if _is_at(path, file):
                yield file
                return


def _is_at(path: Path, file: TextIO) -> bool:
    """Whether an open file is still there: a lock on one that its last holder has removed would exclude nobody."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_soon(file) -> bool:
    """Once more in a moment: `is_held` or `find_dead_holder` may have had the lock, which they give back at once."""
    time.sleep(0.02)
    return _lock(file)


def _read(file) -> str:
    file.seek(0)
    return file.read()
