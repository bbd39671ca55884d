"""Search settings by their validation recall: `python scripts/tune.py method=baco 'method.num_rounds=range(1,21)'`.

Takes the overrides of `baco run`. Those with several values are searched, in Hydra's own words: `a,b`, `range(1,21)`,
`interval(0.01,1)`, `int(interval(1,64))`, or `tag(log,interval(0.01,1))` for a logarithmic scale. Every trial is a run
with a record; one that is recorded already costs nothing. The study lies in a file, and the same command goes on.

With --best it chooses what protocol=best takes, into conf/tuned: for each method, dataset and backbone the same number
of trials over the same space, by successive halving (docs/training.md). Here, too, the same command goes on:

    python scripts/tune.py --best dataset=beauty backbone=lightgcn,mf method=full,baco,baco_plus minutes=60
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from pathlib import Path

from _common import configuration, run_script
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from baco.cli.console import log_to_console
from baco.errors import UserError
from baco.files import check_writable
from baco.runs.run import Plan, run
from baco.runs.time_limit import TimeUp, time_limit
from baco.runs.tuned import FOLDER

try:
    import optuna
    from _halving import METRIC, tune_best
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState
except ModuleNotFoundError:
    sys.exit("error: scripts/tune.py needs the package optuna: pip install -e '.[tune]'")


def distribution(override: Override) -> BaseDistribution:
    """What a sweep ranges over."""
    sweep = override.value()
    if isinstance(sweep, RangeSweep):
        values = list(sweep.range())
        if not values:
            raise UserError(f"{override.input_line} has no values")
        if isinstance(values[0], int):
            return IntDistribution(min(values), max(values), step=abs(int(sweep.step)))
        return CategoricalDistribution(values)
    if isinstance(sweep, IntervalSweep):
        if not sweep.start < sweep.end:
            raise UserError(f"{override.input_line} must go from the lower end to the upper")
        kind = IntDistribution if isinstance(sweep.start, int) else FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def tune(overrides: list[str], trials: int, name: str | None) -> optuna.Study:
    """Go on with a study until it has so many finished trials, or `minutes=` are over.

    Without a name, searches of the same settings over the same values, with the same others, are one study.

    A trial that cannot be, such as one whose budget is too small, has failed, and the next one follows.

    Raises
    ------
    UserError
        When nothing is searched, the settings are wrong, or as many trials as are wanted have failed.
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    fixed = [override.input_line for override in parsed if not override.is_sweep_override()]
    space = {override.get_key_element(): distribution(override) for override in parsed if override.is_sweep_override()}
    if not space:
        raise UserError("no setting has several values; give one such as 'method.num_rounds=range(1,21)'")
    config = configuration(fixed)
    path = config.runs_dir / "tune.db"
    check_writable(path, "runs_dir")
    if name is None:
        about = (config.describe(), config.dataset, config.budget, config.budget_unit, sorted(space.items()))
        name = f"{config.method.name}-{hashlib.sha256(repr(about).encode()).hexdigest()[:12]}"
    study = optuna.create_study(study_name=name, storage=f"sqlite:///{path}", direction="maximize", load_if_exists=True)
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))  # not the first draws again
    failed = 0
    with time_limit(config.minutes):
        while len(study.get_trials(states=[TrialState.COMPLETE])) < trials:
            trial = study.ask(space)
            try:
                chosen = [f"{key}={value}" for key, value in trial.params.items()]
                study.tell(trial, run(Plan.of(configuration([*fixed, *chosen])))["metrics"]["val"][METRIC])
            except (Exception, TimeUp) as error:
                study.tell(trial, state=TrialState.FAIL)
                failed += 1
                if not isinstance(error, UserError) or failed >= trials:
                    raise
                logging.info("a trial failed: %s", error)
    return study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="as for `baco run`")
    parser.add_argument(
        "--trials", type=int, default=20, help="finished trials that the study is to have (default: 20)"
    )
    parser.add_argument("--best", action="store_true", help="choose the settings of protocol=best")
    parser.add_argument("--into", type=Path, default=FOLDER, help="with --best: where they go (default: conf/tuned)")
    parser.add_argument("--name", help="of the study, in <runs_dir>/tune.db (default: made of what is searched)")
    arguments = parser.parse_intermixed_args()  # options may stand between overrides
    log_to_console()
    if arguments.trials < 1:
        raise UserError(f"--trials={arguments.trials} must be 1 or more")
    try:
        if arguments.best:
            for line in tune_best(arguments.overrides, arguments.trials, arguments.into):
                print(line)
        else:
            print(found(tune(arguments.overrides, arguments.trials, arguments.name)))
    except TimeUp as reason:
        sys.exit(f"stopped: {reason}; the same command goes on")


def found(study: optuna.Study) -> str:
    """The best trial of a study, in a line."""
    chosen = " ".join(f"{key}={value}" for key, value in study.best_params.items())
    trials = len(study.get_trials(states=[TrialState.COMPLETE]))
    return f"best of {trials}: validation {METRIC} {100 * study.best_value:.2f} with {chosen}"


if __name__ == "__main__":
    run_script(main)
