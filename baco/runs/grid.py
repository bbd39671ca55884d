"""The grid runner: the runs of an experiment that have no valid record yet, one after the other, until time is up.

Any number of workers can share a grid: a run is claimed before it starts. What fails is written down with its reason in
<runs_dir>/failures and tried again after everything that has not failed.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from hydra import compose
from hydra.errors import HydraException, MissingConfigException

from baco.data.interactions import Interactions
from baco.device import resolve_device
from baco.errors import UserError
from baco.files import write_text
from baco.runs.experiments import GROUPS, Settings, overrides, without_duplicates
from baco.runs.hydra_errors import reword
from baco.runs.lock import ClaimedError, dead_holder
from baco.runs.record import load_records
from baco.runs.run import Plan, assign, run
from baco.runs.settings import parse
from baco.runs.time_limit import TimeUp

log = logging.getLogger(__name__)

STATES = {
    "done": "done now",
    "recorded": "recorded before",
    "pending": "still to do",
    "waiting": "waiting for the export of a full model",
    "too long": "too long for the time that was left",
    "claimed": "being run by others",
    "missing": "missing",
    "failed": "failed",
}


class MissingError(Exception):
    """A run needs a method that does not exist yet, or data that cannot be found; the message says which."""


def with_overrides(runs: tuple[Settings, ...], given: list[str]) -> list[list[str]]:
    """The overrides of each run under those of the command line.

    A dataset, method, backbone, protocol or format of rows on the command line leaves the runs that have it, or none of
    their own. Where that is no run it takes the place of theirs, and of the settings of theirs; so does any other key.
    """
    replaced = dict(text.lstrip("+~").partition("=")[::2] for text in given)
    for group in GROUPS:
        if group in replaced:
            chosen = [run for run in runs if run.get(group, replaced[group]) == replaced[group]]
            runs = chosen or [{key: run[key] for key in run if not key.startswith(f"{group}.")} for run in runs]
    kept = without_duplicates([{key: run[key] for key in run if key not in replaced} for run in runs])
    return [[*overrides(settings), *given] for settings in kept]


class Grid:
    """One worker's view of a grid. Hydra must be initialised.

    Parameters
    ----------
    runs : list of overrides, in the order of priority
    seconds_left : callable
        How long there is. A run that is known to take longer is not started, unless it is longer than all the time that
        there was at first: such a one goes on from its last checkpoint each time.

    Attributes
    ----------
    states : list of str
        What became of each run, one of STATES.
    records : list of dict
        Of the runs that this worker did.
    """

    def __init__(self, runs: list[list[str]], seconds_left: Callable[[], float]):
        self.runs = runs
        self.seconds_left = seconds_left
        self.seconds_in_all = seconds_left()
        self.states = ["pending"] * len(runs)
        self.records: list[dict] = []
        self.started = time.time()
        self.datasets: dict[str, Interactions | UserError] = {}
        self.earlier: list[dict] | None = None  # records of the folder, read when they are asked for

    def work(self) -> None:
        """Go through the grid once, and once more through what failed before; `TimeUp` ends it at any moment."""
        for again in (False, True):
            for place in range(len(self.runs)):
                if self.seconds_left() <= 0:
                    raise TimeUp("the time is over")
                if not again or self.states[place] in ("failed", "waiting"):
                    self.step(place, again)

    def step(self, place: int, again: bool) -> None:
        """Bring one run forward, if it is this worker's turn."""
        try:
            plan = self.plan(self.runs[place])
        except (MissingError, UserError) as error:
            self.states[place] = "missing" if isinstance(error, MissingError) else "failed"
            if not again:
                self.say(place, f"{self.states[place]}: {error}")
            return
        if plan.done() is not None:
            self.states[place] = "recorded"
            return
        full = None if plan.config.assign_only else plan.config.full_export
        if full is not None and not full.exists():
            self.states[place] = "waiting"
            self.say(place, f"waits for {full}, which another run of the grid writes")
            return
        holder = dead_holder(plan.lock_path)
        if holder is not None:
            reason = f"{holder} died while it ran this"
            save_failure(plan, self.runs[place], reason)
            self.say(place, f"failed: {reason}")
        failed_at = when_failed(plan)
        if failed_at is not None and (not again or failed_at >= self.started):
            self.states[place] = "failed"
        elif self.seconds_left() < (expected := self.expected_seconds(plan)) <= self.seconds_in_all:
            self.states[place] = "too long"
            self.say(place, f"not started: such a run takes {expected:.0f} s, and {self.seconds_left():.0f} s are left")
        else:
            self.say(place)
            self.attempt(place, plan)

    def attempt(self, place: int, plan: Plan) -> None:
        """Do a run unless somebody else is at it; whatever goes wrong is its failure, not the grid's."""
        only_assign = plan.config.assign_only
        time_before, saved_before = self.seconds_left(), saved_at(plan)
        try:
            record = assign(plan) if only_assign else run(plan)
        except TimeUp:
            took = time_before - self.seconds_left()
            if took > self.seconds_in_all / 2 and saved_at(plan) == saved_before:  # next time it would get no further
                save_failure(plan, self.runs[place], f"stopped after {took:.0f} s, with no checkpoint to go on from")
            raise
        except ClaimedError as error:
            self.states[place] = "claimed"
            log.info("  %s", error)
        except Exception as error:
            self.states[place] = "failed"
            detail = str(error) if isinstance(error, UserError) else traceback.format_exc()
            save_failure(plan, self.runs[place], detail)
            log.info("  failed: %s", detail)
        else:
            self.states[place] = "done"
            if not only_assign:
                self.records.append(record)
                failure_path(plan).unlink(missing_ok=True)

    def plan(self, run: list[str]) -> Plan:
        """The plan of a run; datasets are loaded once.

        Raises
        ------
        MissingError
        UserError
            For settings that are wrong.
        """
        try:
            config = parse(compose("config", run))
        except HydraException as error:
            if isinstance(error, MissingConfigException) and str(error.missing_cfg_file).startswith("method/"):
                raise MissingError(f"there is no {error.missing_cfg_file.replace('/', ' ')} yet") from None
            raise reword(error) from None
        key = repr(config.dataset)
        if key not in self.datasets:
            try:
                self.datasets[key] = config.load_dataset()
            except UserError as error:
                self.datasets[key] = error
        if isinstance(self.datasets[key], UserError):
            raise MissingError(self.datasets[key])
        return Plan.of(config, self.datasets[key])

    def expected_seconds(self, plan: Plan) -> float:
        """The longest that the like of it took on such a device, or, of a method that has no such run, the median of
        the others, and the longest of its clustering; 0 where nothing is known.
        """
        if self.earlier is None:
            self.earlier = load_records(plan.config.results_dir)
        device = resolve_device(plan.config.device).type
        own, others, clustering = [], [], [0.0]
        for record in self.earlier + self.records:
            config, seconds = record["config"], record["seconds"]
            if config["dataset"] != plan.identity["dataset"]:
                continue
            same_method = config["method"]["name"] == plan.config.method.name
            if same_method:
                clustering.append(seconds["clustering"] + (0.0 if plan.config.assign_only else seconds["search"]))
            if record["environment"]["device"] == device and all(
                config[key] == plan.identity[key] for key in ("backbone", "protocol", "dim")
            ):
                alike = own if same_method else others
                alike.append(sum(seconds[phase] for phase in ("training", "validation", "test")))
        trained = max(own) if own else median(others or [0.0])
        return max(clustering) + (0.0 if plan.config.assign_only else trained)

    def say(self, place: int, what: str = "") -> None:
        separator = "\n  " if what else ""
        log.info("[%d/%d] %s%s%s", place + 1, len(self.runs), " ".join(self.runs[place]), separator, what)

    def summary(self) -> str:
        counts = Counter(self.states)
        parts = [f"{counts[state]} {words}" for state, words in STATES.items() if counts[state]]
        return f"{len(self.runs)} runs: {', '.join(parts)}"


def failure_path(plan: Plan) -> Path:
    return plan.config.runs_dir / "failures" / f"{plan.name}.json"


def saved_at(plan: Plan) -> int | None:
    """When a checkpoint of the run was written, in nanoseconds; None where there is none."""
    return max(filter(None, map(_modified_ns, plan.checkpoint_paths)), default=None)


def save_failure(plan: Plan, run: list[str], reason: str) -> None:
    """Write down why a run failed; its log has the details."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    failure = {"name": plan.name, "run": run, "reason": reason, "created": now}
    write_text(failure_path(plan), json.dumps(failure, indent=1) + "\n")


def when_failed(plan: Plan) -> float | None:
    """When a run failed last, in seconds of the epoch; None if it did not."""
    modified = _modified_ns(failure_path(plan))
    return None if modified is None else modified / 1e9


def _modified_ns(path: Path) -> int | None:
    """When a file was written; None where there is none, or no longer: another worker may have removed it just now."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
