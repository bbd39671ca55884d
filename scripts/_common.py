"""The datasets of conf/dataset, for the scripts beside this file."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir

from baco.config import RunConfig, parse
from baco.data.interactions import Interactions

CONF = Path(__file__).parent.parent / "conf"


def configuration(dataset: str) -> RunConfig:
    """The configuration of `run.py dataset=...`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return parse(compose("config", [f"dataset={dataset}"]))


def load(name: str) -> Interactions:
    """A dataset as `run.py dataset=name` sees it."""
    config = configuration(name)
    return config.dataset.load(config.data_dir)
