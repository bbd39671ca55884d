"""Hydra's errors in the words of this project.

Imports neither torch nor numba: the help of a program need not wait for them.
"""

from __future__ import annotations

import re

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf

from baco.errors import UserError, unknown
from baco.runs.experiments import CONF, GROUPS

QUOTING = "a value with blanks, commas or special signs needs two pairs of quotes, as in \"key='a value, b=1'\""


def reword(error: HydraException, multirun: bool = False) -> UserError:
    """Say what Hydra found wrong with overrides in one line that names the nearest known choice or key.

    Parameters
    ----------
    multirun : bool
        Whether the overrides are of a sweep. Hydra checks the keys of a sweep against the default choices, too.
    """
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).partition("/")
        return unknown(group, choice, error.options)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if launcher := re.search(r"hydra/launcher/(\w+)': Could not load", lines[0]):
        return UserError(f"hydra/launcher={launcher.group(1)} needs more packages: pip install -e '.[launchers]'")
    if several := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'", lines[0]):
        return UserError(f"{several.group(1)} has several values: a sweep over them is baco run -m; {QUOTING}")
    key = re.search(r"Could not override '([^']+)'", lines[0])
    if key is None:
        return UserError(f"the command line cannot be read: {lines[0]}; {QUOTING}")
    if key.group(1) == "grid":
        return UserError("a grid is added to the configuration: write +grid=NAME, or baco grid NAME")
    keys = {str(key) for key in OmegaConf.load(CONF / "config.yaml") if key not in ("defaults", "hydra")}
    for group in GROUPS:
        keys |= {group, *(f"{group}.{key!s}" for file in (CONF / group).glob("*.yaml") for key in OmegaConf.load(file))}
    if key.group(1) in keys:
        name, group = key.group(1), key.group(1).partition(".")[0]
        if multirun:
            return UserError(f"'{name}' is no setting of the default {group}; in a sweep give it as ++{name}=VALUE")
        return UserError(f"'{name}' is no setting of the chosen {group}; leave it out")
    return unknown("setting", key.group(1), keys)
