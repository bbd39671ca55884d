"""For the scripts here: configurations and datasets as `baco run` sees them, and errors as it shows them."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hydra.errors import HydraException

from baco.data.interactions import Interactions
from baco.errors import UserError
from baco.runs.hydra_errors import reword
from baco.runs.settings import configuration


def run_script(main: Callable[[], None]) -> None:
    """Run a script; what its user can mend is one line, not a traceback."""
    try:
        main()
    except HydraException as error:
        sys.exit(f"error: {reword(error)}")
    except UserError as error:
        sys.exit(f"error: {error}")


def load(name: str) -> Interactions:
    """A dataset as `baco run dataset=name` sees it."""
    config = configuration([f"dataset={name}"])
    return config.load_dataset()
