"""The grid runner does the runs of an experiment that have no valid record yet, one after the other, until time is up.

Any number of workers can share a grid: a run is claimed before it starts. The reason of a failure is written to
<runs_dir>/failures, and a run that failed is tried again after all others.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from hydra import compose
from hydra.errors import HydraException, MissingConfigException

from baco.data.interactions import Interactions
from baco.device import resolve_device
from baco.errors import UserError
from baco.files import write_text
from baco.runs.estimate import expected_seconds
from baco.runs.experiments import GROUPS, Settings, overrides, without_duplicates
from baco.runs.hydra_errors import reword
from baco.runs.lock import LockedError, find_dead_holder
from baco.runs.record import load_records
from baco.runs.run import Plan, assign, run
from baco.runs.settings import parse
from baco.runs.time_limit import TimeUp

log = logging.getLogger(__name__)


class State(Enum):
    """What became of a task, in the words of the summary."""

    DONE = "done now"
    RECORDED = "recorded before"
    PENDING = "still to do"
    WAITING = "waiting for the export of a full model"
    TOO_LONG = "too long for the time that was left"
    CLAIMED = "being run by others"
    MISSING = "missing"
    FAILED = "failed"


@dataclass
class Task:
    """One run of a grid.

    Parameters
    ----------
    number : int
        Its place in the order of priority, from 1.
    overrides : list of str
        Its settings, as Hydra overrides.
    state : State
    record : dict, optional
        Its result, if this worker did the run.
    """

    number: int
    overrides: list[str]
    state: State = State.PENDING
    record: dict | None = None


class MissingError(Exception):
    """A run needs a method that does not exist yet, or data that cannot be found; the message says which."""


def apply_overrides(runs: tuple[Settings, ...], given: list[str]) -> list[list[str]]:
    """Apply the overrides of the command line to the runs of an experiment.

    A dataset, method, backbone, protocol or format of rows on the command line selects runs: those that name the same
    one, and those that name none. If there is no such run, it replaces the one that each run names, together with the
    settings that belong to it. Any other key replaces the value of that key in every run.

    Parameters
    ----------
    runs : tuple of dict
    given : list of str
        Hydra overrides.

    Returns
    -------
    list of list of str
        The overrides of each run, without duplicates.
    """
    replaced = dict(text.lstrip("+~").partition("=")[::2] for text in given)
    for group in GROUPS:
        if group in replaced:
            chosen = [run for run in runs if run.get(group, replaced[group]) == replaced[group]]
            without_it = [{key: run[key] for key in run if not key.startswith(f"{group}.")} for run in runs]
            runs = tuple(chosen or without_it)
    kept = without_duplicates([{key: run[key] for key in run if key not in replaced} for run in runs])
    return [[*overrides(settings), *given] for settings in kept]


class Grid:
    """One worker's view of a grid. Hydra must be initialised.

    Parameters
    ----------
    runs : list of list of str
        The overrides of each run, in the order of priority.
    seconds_left : callable
        Returns the seconds that are left. A run that is expected to take longer is not started. The exception is a run
        that is expected to take longer than all the time at the start: it continues from its last checkpoint each time.

    Attributes
    ----------
    tasks : list of Task
    """

    def __init__(self, runs: list[list[str]], seconds_left: Callable[[], float]):
        self.tasks = [Task(number, run) for number, run in enumerate(runs, start=1)]
        self.seconds_left = seconds_left
        self.seconds_in_all = seconds_left()
        self.started = time.time()
        self.datasets: dict[str, Interactions | UserError] = {}
        self.earlier: list[dict] | None = None  # records of the folder, read when a run is first estimated

    @property
    def states(self) -> list[State]:
        """The state of each task."""
        return [task.state for task in self.tasks]

    @property
    def records(self) -> list[dict]:
        """The records of the runs that this worker did."""
        return [task.record for task in self.tasks if task.record is not None]

    def work(self) -> None:
        """Do every task once, then try again those that failed or waited.

        Raises
        ------
        TimeUp
            At any moment, when the time is over.
        """
        for again in (False, True):
            for task in self.tasks:
                if self.seconds_left() <= 0:
                    raise TimeUp("the time is over")
                if not again or task.state in (State.FAILED, State.WAITING):
                    self.advance(task, again)

    def advance(self, task: Task, again: bool) -> None:
        """Attempt a task, unless something keeps it from being started now; its state then says what."""
        try:
            plan = self.plan(task)
        except (MissingError, UserError) as error:
            task.state = State.MISSING if isinstance(error, MissingError) else State.FAILED
            if not again:
                self.say(task, f"{task.state.value}: {error}")
            return
        if plan.done() is not None:
            task.state = State.RECORDED
            return
        full = None if plan.config.assign_only else plan.config.full_export
        if full is not None and not full.exists():
            task.state = State.WAITING
            self.say(task, f"waits for {full}, which another run of the grid writes")
            return
        holder = find_dead_holder(plan.lock_path)
        if holder is not None:
            reason = f"{holder} died while it ran this"
            save_failure(plan, task, reason)
            self.say(task, f"failed: {reason}")
        failed_at = find_failure_time(plan)
        if failed_at is not None and (not again or failed_at >= self.started):
            task.state = State.FAILED
        elif self.seconds_left() < (expected := self.estimate(plan)) <= self.seconds_in_all:
            task.state = State.TOO_LONG
            self.say(task, f"not started: such a run takes {expected:.0f} s, and {self.seconds_left():.0f} s are left")
        else:
            self.say(task)
            self.attempt(task, plan)

    def attempt(self, task: Task, plan: Plan) -> None:
        """Do the run of a task unless another worker has claimed it; an error fails the task, and the grid goes on."""
        only_assign = plan.config.assign_only
        time_before, saved_before = self.seconds_left(), find_checkpoint_time(plan)
        try:
            if only_assign:
                assign(plan)
            else:
                task.record = run(plan)
        except TimeUp:
            took = time_before - self.seconds_left()
            stuck = find_checkpoint_time(plan) == saved_before  # the next attempt would get no further
            if took > self.seconds_in_all / 2 and stuck:
                save_failure(plan, task, f"stopped after {took:.0f} s, with no checkpoint to go on from")
            raise
        except LockedError as error:
            task.state = State.CLAIMED
            log.info("  %s", error)
        except Exception as error:
            task.state = State.FAILED
            detail = str(error) if isinstance(error, UserError) else traceback.format_exc()
            save_failure(plan, task, detail)
            log.info("  failed: %s", detail)
        else:
            task.state = State.DONE
            if not only_assign:
                locate_failure(plan).unlink(missing_ok=True)

    def plan(self, task: Task) -> Plan:
        """Plan the run of a task; each dataset is loaded once.

        Raises
        ------
        MissingError
            If the method does not exist yet or the dataset cannot be loaded.
        UserError
            If a setting is wrong.
        """
        try:
            config = parse(compose("config", task.overrides))
        except HydraException as error:
            missing = str(error.missing_cfg_file) if isinstance(error, MissingConfigException) else ""
            if missing.startswith("method/"):
                raise MissingError(f"there is no {missing.replace('/', ' ')} yet") from None
            raise reword(error) from None
        key = repr(config.dataset)
        if key not in self.datasets:
            try:
                self.datasets[key] = config.load_dataset()
            except UserError as error:
                self.datasets[key] = error
        data = self.datasets[key]
        if isinstance(data, UserError):
            raise MissingError(data)
        return Plan.of(config, data)

    def estimate(self, plan: Plan) -> float:
        """Estimate the seconds of a run from the records of the folder and of this worker."""
        if self.earlier is None:
            self.earlier = load_records(plan.config.results_dir)
        device, assign_only = resolve_device(plan.config.device).type, plan.config.assign_only
        return expected_seconds(self.earlier + self.records, plan.identity, device, assign_only)

    def say(self, task: Task, what: str = "") -> None:
        """Log a task and what happens to it."""
        separator = "\n  " if what else ""
        log.info("[%d/%d] %s%s%s", task.number, len(self.tasks), " ".join(task.overrides), separator, what)

    def summarize(self) -> str:
        """Count the tasks in each state, in one line."""
        counts = Counter(self.states)
        parts = [f"{counts[state]} {state.value}" for state in State if counts[state]]
        return f"{len(self.tasks)} runs: {', '.join(parts)}"


def locate_failure(plan: Plan) -> Path:
    """Return the path of the file that has the reason of a run's failure."""
    return plan.config.runs_dir / "failures" / f"{plan.name}.json"


def save_failure(plan: Plan, task: Task, reason: str) -> None:
    """Write down why a run failed; its log has the details."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    failure = {"name": plan.name, "run": task.overrides, "reason": reason, "created": now}
    write_text(locate_failure(plan), json.dumps(failure, indent=1) + "\n")


def find_failure_time(plan: Plan) -> float | None:
    """Find when a run failed last, in seconds since the epoch; None if it did not fail."""
    modified = _read_modified_ns(locate_failure(plan))
    return None if modified is None else modified / 1e9


def find_checkpoint_time(plan: Plan) -> int | None:
    """Find when the last checkpoint of a run was written, in nanoseconds since the epoch; None if there is none."""
    return max(filter(None, map(_read_modified_ns, plan.checkpoint_paths)), default=None)


def _read_modified_ns(path: Path) -> int | None:
    """Read when a file was written; None if there is no such file: another worker may have removed it just now."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
