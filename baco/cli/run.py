"""`baco run`: one run, a sweep of them or a grid, as Hydra composes it from the command line."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from baco.cli.choices import list_choices
from baco.cli.console import explain, has_company, is_first_process, log_to_console
from baco.errors import UnrecordedError, UserError
from baco.runs.experiments import CONF, load_experiment
from baco.runs.hydra_errors import reword
from baco.runs.time_limit import AskedToEnd, TimeUp, time_limit

if TYPE_CHECKING:
    from baco.processes import Processes

FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's switch for tracebacks; ours too

log = logging.getLogger(__name__)

OmegaConf.register_new_resolver("listing", list_choices)


def main() -> None:
    """Run what the command line asks for, and exit."""
    sys.exit(run_command(sys.argv[1:], sys.argv[0]))


def run_command(arguments: list[str], program: str = "baco run", config_name: str = "config") -> int:
    """Run what the arguments ask for, and print a table of the records.

    Parameters
    ----------
    arguments : list of str
        Hydra's flags and overrides.
    program : str
        What messages call the program.
    config_name : str
        The file of conf/ on which overrides are: 'config', or 'stream'.

    Returns
    -------
    int
        The exit status: 1 where something failed.
    """
    sys.argv = [program, *arguments]  # Hydra reads them from there
    session = Session(tracebacks=os.environ.get(FULL_ERROR) == "1")
    os.environ[FULL_ERROR] = "1"  # Hydra then hands errors on instead of printing them its own way
    log_to_console()
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(session.work)()
    except HydraException as error:
        session.fail(reword(error, multirun=not {"-m", "--multirun"}.isdisjoint(arguments)))
    except UserError as error:  # of a launcher's worker
        session.fail(error)
    except ValueError as error:
        if not str(error).startswith(HYDRA_REFUSALS):
            raise
        session.fail(UserError(f"the command line cannot be read: {error}"))
    except RuntimeError as error:
        if "srun" not in str(error):
            raise
        session.fail(UserError("hydra/launcher=slurm is for the machines of a SLURM cluster; this one has no srun"))
    except AskedToEnd:
        pass  # it was said where it happened
    except KeyboardInterrupt:
        session.failed = True
        print("interrupted", file=sys.stderr)
    if session.records and is_first_process():
        from baco.results.runs import comparison, to_text

        print(to_text(comparison(session.records)))
    if session.streams:
        from baco.results.streams import to_terminal

        print(to_terminal(session.streams))
    if session.processes is not None:
        session.processes.leave(session.failed)
    return int(session.failed)


HYDRA_REFUSALS = ("Config group override must be", "The --resolve flag")  # in bare ValueErrors


class Session:
    """The runs of one command. Launchers hand copies of it to their workers.

    Parameters
    ----------
    tracebacks : bool
        Whether errors that the user can mend are shown with a traceback, too.

    Attributes
    ----------
    process : int
        The process that the user started.
    records : list of dict
        Of the runs in this process, for the table at the end.
    streams : list of dict
        Likewise, of streams.
    failed : bool
        Whether anything failed. The errors are not kept: their frames would keep tables and optimizers alive.
    processes : Processes, optional
        That do the runs together, where torchrun started several, from the first run on.
    """

    def __init__(self, tracebacks: bool):
        self.tracebacks = tracebacks
        self.process = os.getpid()
        self.records: list[dict] = []
        self.streams: list[dict] = []
        self.failed = False
        self.processes: Processes | None = None

    @property
    def in_worker(self) -> bool:
        """Whether a launcher started this process."""
        return os.getpid() != self.process

    def work(self, cfg: DictConfig) -> None:
        """Do one run, only its assignment, or a grid. A failure says why at once, and a sweep goes on with the next."""
        from baco.runs.run import Plan, assign, run
        from baco.runs.settings import parse  # here, so that --help need not wait for torch

        if self.in_worker:
            log_to_console()
        try:
            with time_limit(cfg.minutes) as seconds_left:
                if has_company():
                    self.work_together(cfg)
                elif "grid" in cfg:
                    self.work_on_grid(seconds_left)
                elif "new_ids" in cfg:
                    from baco.runs.streams import StreamPlan, follow

                    self.streams.append(follow(StreamPlan.of(cfg)))
                elif cfg.assign_only:
                    assign(Plan.of(parse(cfg)))
                else:
                    self.records.append(run(Plan.of(parse(cfg))))
        except (Exception, TimeUp) as error:
            if self.in_worker:  # its parent must hear of it
                raise UserError(str(error)) if isinstance(error, TimeUp) else error from None
            self.fail(error)
            if isinstance(error, UnrecordedError):
                self.records.append(error.record)  # it was measured, and is shown
            if self.processes is not None or isinstance(error, AskedToEnd):
                raise AskedToEnd(str(error)) from None  # the rest of a sweep has to end, and others wait for this one

    def work_together(self, cfg: DictConfig) -> None:
        """Do one run with the other processes that torchrun started."""
        from baco.processes import Processes
        from baco.runs.run import Plan, run
        from baco.runs.settings import parse

        if self.in_worker or "grid" in cfg or "new_ids" in cfg or cfg.assign_only:
            raise UserError(
                "several processes share runs of `baco run`; grids, streams, assign_only and launchers are for one "
                "process: start them without torchrun"
            )
        self.processes = self.processes or Processes.join()
        plan = self.processes.after_leader(lambda: Plan.of(parse(cfg)))
        self.records.append(run(plan, self.processes))

    def work_on_grid(self, seconds_left: Callable[[], float]) -> None:
        """Do the runs of the chosen grid, under the other overrides of the command line."""
        from baco.runs.grid import Grid, State, apply_overrides

        hydra_config = HydraConfig.get()
        given = [text for text in hydra_config.overrides.task if not text.startswith("+grid=")]
        experiment = load_experiment(hydra_config.runtime.choices["grid"])
        grid = Grid(apply_overrides(experiment.runs, given), seconds_left)
        stopped = None
        try:
            grid.work()
        except TimeUp as reason:
            stopped = reason
            log.info("stopped: %s", reason)
        finally:  # also when it is interrupted
            self.records.extend(grid.records)
            log.info("%s", grid.summarize())
        if isinstance(stopped, AskedToEnd) and hydra_config.mode is RunMode.MULTIRUN and not self.in_worker:
            raise stopped  # a sweep over grids: the next must not begin
        if State.FAILED in grid.states:
            raise UserError("runs of the grid failed; the reasons stand above, of started ones in <runs_dir>/failures")

    def fail(self, error: BaseException) -> None:
        """Say what went wrong: one line if the user can mend it, a traceback if it is a defect of ours."""
        self.failed = True
        speaks = is_first_process() if self.processes is None else self.processes.is_first_to_fail()
        if not speaks:
            return
        explained = explain(error) if isinstance(error, (OSError, UnicodeEncodeError)) else None
        if explained is not None:
            print(f"error: {explained}", file=sys.stderr)
        elif self.tracebacks or not isinstance(error, (UserError, TimeUp)):
            traceback.print_exception(error)
        else:
            print(f"error: {error}", file=sys.stderr)
