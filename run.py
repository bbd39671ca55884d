"""Run one experiment or a sweep of them: `python run.py method=baco dataset=gowalla`; `--help` lists the choices."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from baco.errors import UserError
from baco.runs.command_line import log_to_console, reworded
from baco.runs.experiments import CONF, load_experiment
from baco.runs.time_limit import AskedToEnd, TimeUp, time_limit

FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's switch for tracebacks; ours too

log = logging.getLogger(__name__)
records: list[dict] = []  # of this process, for the table at the end
failures: list[str] = []  # not the errors: their frames would keep tables and optimizers alive
user_process: int | None = None  # the one that the user started; launchers hand copies of these to their workers


def listing(group: str) -> str:
    """The choices of a configuration group, each with the comment that its file begins with."""
    files = sorted((CONF / group).glob("*.yaml"))
    comments = (file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for file in files)
    width = 2 + max(len(file.stem) for file in files)
    return "\n".join(f"  {file.stem:<{width}}{comment}" for file, comment in zip(files, comments, strict=True))


OmegaConf.register_new_resolver("listing", listing)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """One run, or a grid of them. A failed one says why where it happens, and a sweep goes on with the next."""
    from baco.runs.run import Plan, assign, run
    from baco.runs.settings import parse  # here, so that --help need not wait for torch

    if in_worker():
        log_to_console()
    try:
        with time_limit(cfg.minutes) as seconds_left:
            if "grid" in cfg:
                run_experiment(seconds_left)
            elif cfg.assign_only:
                assign(Plan.of(parse(cfg)))
            else:
                records.append(run(Plan.of(parse(cfg))))
    except (Exception, TimeUp) as error:
        if in_worker():  # its parent must hear of it
            raise UserError(str(error)) if isinstance(error, TimeUp) else error from None
        say(error)
        failures.append(str(error))
        if isinstance(error, AskedToEnd):
            raise  # the rest of a sweep has to end, too


def in_worker() -> bool:
    """Whether a launcher started this process."""
    return os.getpid() != user_process


def run_experiment(seconds_left: Callable[[], float]) -> None:
    """The runs of the chosen experiment, under the other overrides of the command line."""
    from baco.runs.grid import Grid, with_overrides

    hydra_config = HydraConfig.get()
    given = [text for text in hydra_config.overrides.task if not text.startswith("+grid=")]
    experiment = load_experiment(hydra_config.runtime.choices.grid)
    grid = Grid(with_overrides(experiment.runs, given), seconds_left)
    stopped = None
    try:
        grid.work()
    except TimeUp as reason:
        stopped = reason
        log.info("stopped: %s", reason)
    finally:  # also when it is interrupted
        records.extend(grid.records)
        log.info("%s", grid.summary())
    if isinstance(stopped, AskedToEnd) and hydra_config.mode is RunMode.MULTIRUN and not in_worker():
        raise stopped  # a sweep over grids: the next must not begin
    if "failed" in grid.states:
        raise UserError("runs of the grid failed; the reasons stand above, of started ones in <runs_dir>/failures")


def say(error: BaseException) -> None:
    """What went wrong: one line if the user can mend it, a traceback if it is a defect of ours."""
    if tracebacks or not isinstance(error, (UserError, TimeUp)):
        traceback.print_exception(error)
    else:
        print(f"error: {error}", file=sys.stderr)


if __name__ == "__main__":
    user_process = os.getpid()
    tracebacks = os.environ.get(FULL_ERROR) == "1"
    os.environ[FULL_ERROR] = "1"  # Hydra then hands errors on instead of printing them its own way
    log_to_console()
    try:
        main()
    except HydraException as error:
        failures.append(str(error))
        say(reworded(error))
    except UserError as error:  # of a launcher's worker
        failures.append(str(error))
        say(error)
    except RuntimeError as error:
        if "srun" not in str(error):
            raise
        failures.append(str(error))
        say(UserError("hydra/launcher=slurm is for the machines of a SLURM cluster; this one has no srun"))
    except AskedToEnd:
        pass  # it was said where it happened
    except KeyboardInterrupt:
        failures.append("interrupted")
        print("interrupted", file=sys.stderr)
    if records:
        from baco.results.runs import comparison, to_text

        print(to_text(comparison(records)))
    sys.exit(1 if failures else 0)
