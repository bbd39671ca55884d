"""What programs that take Hydra's overrides have in common: what they show, and what they say of a wrong command line.

Imports neither torch nor numba: the help of a program need not wait for them.
"""

from __future__ import annotations

import logging
import re
import sys

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf

from baco.errors import UserError, unknown
from baco.runs.experiments import CONF, GROUPS


def log_to_console() -> None:
    """Show what happens; details go to the log file of the run."""
    console = logging.StreamHandler()
    console.setLevel(logging.INFO)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console])


def reworded(error: HydraException) -> UserError:
    """What Hydra found wrong with the command line, as one line that names the nearest known choice or key."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = error.missing_cfg_file.partition("/")
        return unknown(group, choice, error.options)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if launcher := re.search(r"hydra/launcher/(\w+)': Could not load", lines[0]):
        return UserError(f"hydra/launcher={launcher.group(1)} needs more packages: pip install -e '.[launchers]'")
    if several := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'", lines[0]):
        return UserError(f"{several.group(1)} has several values: a sweep over them is run.py -m")
    key = re.search(r"Could not override '([^']+)'", lines[0])
    if key is None:
        return UserError(f"the command line cannot be read: {' '.join(lines[:2])}")
    if key.group(1) == "grid":
        return UserError("a grid is added to the configuration: write +grid=NAME")
    keys = {str(key) for key in OmegaConf.load(CONF / "config.yaml") if key not in ("defaults", "hydra")}
    for group in GROUPS:
        keys |= {group, *(f"{group}.{key}" for file in (CONF / group).glob("*.yaml") for key in OmegaConf.load(file))}
    if key.group(1) in keys:
        name, group = key.group(1), key.group(1).partition(".")[0]
        if {"-m", "--multirun"} & set(sys.argv):  # Hydra checks it against the default choice, too
            return UserError(f"'{name}' is no setting of the default {group}; in a sweep give it as ++{name}=VALUE")
        return UserError(f"'{name}' is no setting of the chosen {group}; leave it out")
    return unknown("setting", key.group(1), keys)
