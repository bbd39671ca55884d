"""Checkpoints: what a training needs to go on after an interruption as if there had been none."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch

from baco.files import atomic_path

log = logging.getLogger(__name__)


class Checkpoint:
    """One file that always holds the last state saved, complete.

    Parameters
    ----------
    path : Path
    every : float
        Seconds between two savings; 0 saves after each epoch.
    made_by : dict
        Plain values that decide the course of a training beside its configuration: code, libraries, device. A
        checkpoint made by anything else is not continued.
    """

    def __init__(self, path: Path, every: float, made_by: dict):
        self.path = path
        self.every = every
        self.made_by = made_by
        self._saved_at = time.monotonic()

    def load(self, device: torch.device) -> dict | None:
        """The state saved last, its tensors on `device`; None where there is none to continue from."""
        if not self.path.exists():
            return None
        try:
            made_by, state = _read(self.path, map_location=device)
        except Exception as error:  # a damaged file fails in many ways; the training can start anew
            log.warning("the checkpoint %s cannot be read (%s); the training starts anew", self.path, error)
            return None
        if made_by != self.made_by:
            changed = sorted(key for key in self.made_by if made_by.get(key) != self.made_by[key])
            log.warning("the checkpoint %s was made with another %s; the training starts anew", self.path, changed)
            return None
        return state

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved_at >= self.every

    def save(self, state: dict) -> None:
        """Replace the file, all of it or nothing. `state` holds tensors and plain values.

        What cannot be written, as on a full disk, is a warning: the file stays as it was and the training goes on.
        """
        try:
            with atomic_path(self.path) as temporary:
                torch.save({"made_by": self.made_by, "state": state}, temporary)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter
            log.warning("the checkpoint %s cannot be written (%s); the training goes on without it", self.path, error)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """The run is recorded: nothing is left to continue."""
        self.path.unlink(missing_ok=True)


def is_damaged(path: Path) -> bool:
    """Whether no training can go on from a file, whatever made it; not where it is gone or cannot be opened."""
    try:
        _read(path, map_location="cpu", mmap=True)  # looked at, not loaded
    except OSError:
        return False
    except Exception:  # see `Checkpoint.load`
        return True
    return False


def _read(path: Path, **options: Any) -> tuple[dict, dict]:
    """What made a checkpoint, and the state in it."""
    content = torch.load(path, weights_only=True, **options)
    return content["made_by"], content["state"]
