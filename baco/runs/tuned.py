"""Settings that were tuned for a method on a dataset: the files of conf/tuned, which protocol=best puts over its own.

Hydra composes them (conf/protocol/best.yaml says how), so that what the user gives still counts more. Where there is no
file the settings of the protocol and of the loss stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from baco.runs.experiments import CONF

FOLDER = CONF / "tuned"
TUNED_PROTOCOL = "best"
TUNED_FOR = ("dataset", "backbone", "loss", "method")  # the groups whose choices name a file


def tuned_file(choices: Iterable[str], folder: Path = FOLDER) -> Path:
    """Where the settings lie that were tuned for such choices of the groups `TUNED_FOR`; there need be no file."""
    *outer, method = choices
    return folder.joinpath(*outer, f"{method}.yaml")
