"""Experiments: named lists of runs in conf/grid, each run a few settings in the order of their priority.

An experiment's `runs` is a list of sweeps. A sweep gives settings one value or several; it stands for all combinations,
the last setting varying fastest. The setting `grid` stands for the runs of other grids, in which the sweep's other
settings replace theirs. `settings` are those of all runs that do not say otherwise. A run that comes up twice counts
where it comes up first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from baco.errors import UserError, unknown
from baco.resources import resource_folder

CONF = resource_folder("conf", "conf")
GROUPS = ("dataset", "backbone", "method", "protocol", "loss", "quantize")  # of it: a run takes one file of each

Settings = dict[str, Any]  # of one run: what differs from conf/config.yaml; text, numbers, true, false or null


@dataclass(frozen=True)
class Experiment:
    """A file of conf/grid.

    Attributes
    ----------
    name : str
    title : str
        What its table is called.
    about : str
        What a reader of the table has to know.
    runs : tuple of Settings
        The most important first.
    """

    name: str
    title: str
    about: str
    runs: tuple[Settings, ...]


def experiment_names(conf: Path = CONF) -> list[str]:
    """The experiments there are, in alphabetical order."""
    return sorted(path.stem for path in (conf / "grid").glob("*.yaml"))


def load_experiment(name: str, conf: Path = CONF) -> Experiment:
    """Read conf/grid/<name>.yaml and work out its runs.

    Raises
    ------
    UserError
        When there is no such file, or it is not what an experiment has to be.
    """
    return _load(name, conf, ())


def _load(name: str, conf: Path, within: tuple[str, ...]) -> Experiment:
    path = conf / "grid" / f"{name}.yaml"
    if not path.exists():
        raise unknown("grid", name, experiment_names(conf))
    if name in within:
        raise UserError(f"{path}: grid '{name}' contains itself")
    content = OmegaConf.to_container(OmegaConf.load(path))
    known = {"title", "about", "settings", "runs"}
    if not isinstance(content, dict) or set(content) - known or not content.get("runs"):
        raise UserError(f"{path} must hold the keys title, about, settings and runs, a list of sweeps")
    common, runs = content.get("settings", {}), []
    for number, sweep in enumerate(content["runs"], 1):
        if not isinstance(sweep, dict):
            raise UserError(f"{path}: sweep {number} must be a mapping from settings to values")
        sweep = dict(sweep)
        included = sweep.pop("grid", None)
        if included is None:
            runs += _combinations(sweep)
        else:
            for other in included if isinstance(included, list) else [included]:
                inner = _load(other, conf, (*within, name)).runs
                runs += [run | replaced for run in inner for replaced in _combinations(sweep)]
    runs = [run | {key: value for key, value in common.items() if key not in run} for run in runs]
    return Experiment(name, content.get("title", name), content.get("about", ""), without_duplicates(runs))


def _combinations(sweep: dict) -> list[Settings]:
    choices = [values if isinstance(values, list) else [values] for values in sweep.values()]
    return [dict(zip(sweep, values, strict=True)) for values in product(*choices)]


def without_duplicates(runs: list[Settings]) -> tuple[Settings, ...]:
    """The same runs, each at its first place only."""
    distinct: dict[tuple, Settings] = {}
    for run in runs:
        distinct.setdefault(tuple(sorted(run.items())), run)
    return tuple(distinct.values())


def overrides(settings: Settings) -> list[str]:
    """The settings as `baco run` takes them."""
    special = {None: "null", True: "true", False: "false"}
    return [
        f"{key}={special[value] if value is None or isinstance(value, bool) else value}"
        for key, value in settings.items()
    ]


def command(settings: Settings) -> str:
    """The command that runs it."""
    return " ".join(["python run.py", *overrides(settings)])
