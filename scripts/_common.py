"""For the scripts beside this file: configurations and datasets as run.py sees them, and errors as it shows them."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from baco.data.interactions import Interactions
from baco.errors import UserError
from baco.runs.command_line import reworded
from baco.runs.experiments import CONF
from baco.runs.settings import RunConfig, parse


def run_script(main: Callable[[], None]) -> None:
    """Run a script; what its user can mend is one line, not a traceback."""
    try:
        main()
    except HydraException as error:
        sys.exit(f"error: {reworded(error)}")
    except UserError as error:
        sys.exit(f"error: {error}")


def configuration(overrides: list[str]) -> RunConfig:
    """The configuration of `run.py` with these overrides."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return parse(compose("config", overrides))


def load(name: str) -> Interactions:
    """A dataset as `run.py dataset=name` sees it."""
    config = configuration([f"dataset={name}"])
    return config.load_dataset()
