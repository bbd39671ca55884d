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

from baco.errors import UserError


class LockedError(UserError):
    """Another process holds the lock; the message says which."""


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` during the block.

    The lock is the kernel's (flock): it ends with its process, however that ends, and works between machines on file
    systems that share locks. The file says who holds it; it stays behind empty, or with the name of a holder that died.

    Raises
    ------
    LockedError
        When another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        if not (_lock(file) or _lock_soon(file)):
            raise LockedError(f"it is being run by {_read(file) or 'another process'}; wait for that, or end it")
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {now}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


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


def _lock(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_soon(file) -> bool:
    """Once more in a moment: `find_dead_holder` may have had the lock, which it gives back at once."""
    time.sleep(0.02)
    return _lock(file)


def _read(file) -> str:
    file.seek(0)
    return file.read()
