"""Configurations and datasets as run.py sees them, for the scripts beside this file."""

from __future__ import annotations

from hydra import compose, initialize_config_dir

from baco.config import RunConfig, parse
from baco.data.interactions import Interactions
from baco.experiments import CONF


def configuration(overrides: list[str]) -> RunConfig:
    """The configuration of `run.py` with these overrides."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return parse(compose("config", overrides))


def load(name: str) -> Interactions:
    """A dataset as `run.py dataset=name` sees it."""
    config = configuration([f"dataset={name}"])
    return config.dataset.load(config.data_dir)
