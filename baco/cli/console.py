"""What a program shows while it runs."""

from __future__ import annotations

import errno
import logging
import os

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def log_to_console() -> None:
    """Show what happens; details go to the log file of the run. Of several processes the first shows it."""
    console = logging.StreamHandler() if is_first_process() else logging.NullHandler()
    console.setLevel(logging.INFO)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console])


def has_company() -> bool:
    """Whether torchrun started other processes together with this one."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return not has_company() or os.environ.get("RANK", "0") == "0"


def explain(error: OSError | UnicodeEncodeError) -> str | None:
    """What stands in the way of output, and the mend; None for an error of another kind."""
    if isinstance(error, UnicodeEncodeError):
        return f"this terminal's encoding, {error.encoding}, lacks a letter of the output; set PYTHONIOENCODING=utf-8"
    if error.errno in DISK_FULL:
        return f"{error.filename or 'the output'} cannot be written ({error.strerror}); make room"
    return None
