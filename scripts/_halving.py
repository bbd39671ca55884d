"""The studies behind protocol=best: one budget of trials for every method, by successive halving.

A trial is a training with values from `SPACE` and `OF_LOSS`. In the first rung it lasts a quarter of the epochs, as a
complete short training whose learning rate falls to zero. The best quarter of the trials are trained for all epochs,
and the best of these by validation recall@20 is the choice. The first trials have the protocol's values, those chosen
for the full model, and those chosen for the method on the dataset before; Optuna proposes the others.

Trials are runs in `<runs_dir>/tuning`, and a study draws on nothing else but its seed: repeated, it asks for the same
trials and finds them there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import optuna
import pandas as pd
from _common import configuration
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution

from baco.compressors.scoring import ScoringMethod
from baco.data.interactions import Interactions
from baco.errors import UserError, known_names
from baco.files import check_folder, write_text
from baco.runs.description import Description
from baco.runs.experiments import CONF, overrides
from baco.runs.lock import LockedError
from baco.runs.run import Plan, run
from baco.runs.settings import RunConfig
from baco.runs.time_limit import time_limit
from baco.runs.tuned import TUNED_FOR, TUNED_PROTOCOL, tuned_file

log = logging.getLogger(__name__)

SEED = 100  # of the search and of its trainings: no seed that results are reported for
PART = 4  # of the epochs in the first rung, and of the trials in the second
DATASETS = ("beauty", "gowalla", "yelp2018", "amazonbook")  # each starts from what was chosen on the one before
METRIC = "recall@20"  # on the validation split; the test split has no say

SPACE = {
    "protocol.learning_rate": FloatDistribution(0.01, 0.2, log=True),
    "protocol.decay_per_epoch": FloatDistribution(0.01, 1, log=True),  # the least is as good as none
}
OF_LOSS = {
    "bpr": {},
    "ssm": {"loss.temperature": FloatDistribution(0.06, 0.3, log=True)},
    "ccl": {"loss.margin": FloatDistribution(0.2, 0.95), "loss.weight": FloatDistribution(10, 1000, log=True)},
    "directau": {"loss.gamma": FloatDistribution(0.2, 10, log=True)},
    "ials": {"loss.weight": FloatDistribution(0.003, 0.5, log=True)},
}
DECIDED = {"protocol", "protocol.name", "seed", *SPACE, *(key for space in OF_LOSS.values() for key in space)}


@dataclass(frozen=True)
class Trial:
    """A training of a study.

    Attributes
    ----------
    number : int
        From 1; a trial of the second rung has the number that it had in the first.
    settings : dict
        From keys of the configuration to values.
    max_epochs, epochs : int
        The most that its rung allows, and how many it took until it stopped; 0 where it failed.
    recall : float
        Validation recall@20, a fraction; 0 where it failed, as by a learning rate that is too high.
    seconds : float
        Of search, training and validation.
    revision : str
        Of the code.
    """

    number: int
    settings: dict[str, float]
    max_epochs: int
    epochs: int = 0
    recall: float = 0.0
    seconds: float = 0.0
    revision: str = ""


@dataclass
class Progress:
    """What is done of a command and what is left, in epochs, from which follows how long the rest takes."""

    left: int
    done: int = 0
    seconds: float = 0.0

    def begin(self, what: str) -> None:
        """Say what begins, and what is to come with it, judged by the seconds of all trainings so far."""
        cost = f"; {self.left * self.seconds / self.done / 60:.1f} minutes are left of all" if self.done else ""
        log.info("%s%s", what, cost)

    def end(self, trial: Trial) -> None:
        """Count a trial; one that stopped early has taken its time for all of its epochs."""
        self.left -= trial.max_epochs
        self.done += trial.max_epochs
        self.seconds += trial.seconds


class Study:
    """The search for one dataset, backbone, loss and method.

    Parameters
    ----------
    choices : tuple of str
        Of the groups in `TUNED_FOR`.
    given : list of str
        Overrides of all trials.
    trials : int
    folder : Path
        Where the choice goes to, and where earlier ones lie.

    Raises
    ------
    UserError
        For settings that no run can have, a loss without a space, a dataset that its file does not name, and a
        method that trains nothing.
    """

    def __init__(self, choices: tuple[str, ...], given: list[str], trials: int, folder: Path):
        self.dataset, self.backbone, self.loss, self.method = self.choices = choices
        self.given, self.trials, self.folder = given, trials, folder
        if self.loss not in OF_LOSS:
            raise UserError(f"--best has no space of settings for loss={self.loss}{known_names(self.loss, OF_LOSS)}")
        self.space = SPACE | OF_LOSS[self.loss]
        config = self.configuration({})
        if (name := config.dataset.name) != self.dataset:
            mend = f"write conf/dataset/{name}.yaml with its settings, and take dataset={name}"
            raise UserError(f"--best tunes for what has a file in conf/dataset, and {name} has none; {mend}")
        if isinstance(config.method, ScoringMethod):
            raise UserError(f"method={self.method} trains nothing, so there is nothing to tune; leave it out")
        self.max_epochs = config.protocol.max_epochs
        self.first_epochs = max(1, self.max_epochs // PART)
        self.finalists = math.ceil(trials / PART)

    @property
    def epochs(self) -> int:
        """The most epochs that all trials together take: the same for every method."""
        return self.trials * self.first_epochs + self.finalists * self.max_epochs

    @property
    def place(self) -> tuple[int, bool]:
        """In the order of studies: those that others start from come first."""
        known = self.dataset in DATASETS
        return DATASETS.index(self.dataset) if known else len(DATASETS), self.method != "full"

    def __str__(self) -> str:
        return " ".join(self.choices)

    @cached_property
    def data(self) -> Interactions:
        """The dataset."""
        return self.configuration({}).load_dataset()

    def configuration(self, settings: dict[str, float], *more: str) -> RunConfig:
        """A trial's; its protocol has another name, so that it is never taken for a run with what was chosen."""
        groups = [f"{group}={choice}" for group, choice in zip(TUNED_FOR, self.choices, strict=True)]
        fixed = [f"protocol={TUNED_PROTOCOL}", "protocol.name=tuning", f"seed={SEED}", "results_dir=${runs_dir}/tuning"]
        return configuration([*self.given, *groups, *fixed, *overrides(settings), *more])

    def starts(self) -> list[dict[str, float]]:
        """The settings of the first trials."""
        before = DATASETS[: DATASETS.index(self.dataset)][-1:] if self.dataset in DATASETS else ()
        files = [(self.dataset, self.backbone, self.loss, "full")] if self.method != "full" else []
        files += [(dataset, self.backbone, self.loss, self.method) for dataset in before]
        groups = {"protocol": TUNED_PROTOCOL, "loss": self.loss}
        usual = OmegaConf.create(
            {group: OmegaConf.load(CONF / group / f"{name}.yaml") for group, name in groups.items()}
        )
        found = [OmegaConf.load(path) for path in (tuned_file(file, self.folder) for file in files) if path.exists()]
        starts = [{key: OmegaConf.select(chosen, key) for key in self.space} for chosen in (usual, *found)]
        return [start for place, start in enumerate(starts) if start not in starts[:place]]

    def tune(self, progress: Progress) -> Trial:
        """Do both rungs and write what came of them; returns the trial that was chosen.

        Raises
        ------
        UserError
            When every trial fails.
        TimeUp, LockedError
            As they come up; what is done by then is found when this is done again.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the trials are told here
        starts = self.starts()
        # Few trials: half of them spread out, the others where a Gaussian process expects the most. Each start more is
        # another seed, since a start may be what the full model's study has drawn from this one.
        sampler = optuna.samplers.GPSampler(seed=SEED + len(starts), n_startup_trials=self.trials // 2)
        search = optuna.create_study(direction="maximize", sampler=sampler)
        for start in starts:
            search.enqueue_trial(start)
        first = []
        for number in range(1, self.trials + 1):
            asked = search.ask(self.space)
            settings = {key: float(f"{value:.3g}") for key, value in asked.params.items()}
            first.append(self.run(Trial(number, settings, self.first_epochs), progress))
            search.tell(asked, first[-1].recall)
        best = sorted(first, key=lambda trial: -trial.recall)[: self.finalists]
        second = [self.run(Trial(trial.number, trial.settings, self.max_epochs), progress) for trial in best]
        chosen = max(second, key=lambda trial: trial.recall)
        if chosen.recall == 0:
            raise UserError(f"no trial of {self} could be trained; the reasons stand above")
        self.write(chosen, first + second)
        return chosen

    def run(self, trial: Trial, progress: Progress) -> Trial:
        """Do a trial, or find its record."""
        words = " ".join(overrides(trial.settings))
        progress.begin(f"{self}: trial {trial.number} of {self.trials}, {trial.max_epochs} epochs, {words}")
        plan = Plan.of(self.configuration(trial.settings, f"protocol.max_epochs={trial.max_epochs}"), self.data)
        try:
            record = run(plan)
        except LockedError:
            raise
        except UserError as error:
            log.info("the trial failed: %s", error)
        else:
            trial = replace(
                trial,
                epochs=record["training"]["epochs"],
                recall=record["metrics"]["val"][METRIC],
                seconds=sum(record["seconds"][phase] for phase in ("search", "training", "validation")),
                revision=record["code"]["revision"] or "",
            )
        progress.end(trial)
        return trial

    def write(self, chosen: Trial, trials: list[Trial]) -> None:
        """Write the choice as a file of the configuration, and beside it a table of all trials."""
        path = tuned_file(self.choices, self.folder)
        content = OmegaConf.create()
        for key, value in chosen.settings.items():
            OmegaConf.update(content, key, value)
        about = (
            f"best of {self.trials} trials: validation {METRIC} {100 * chosen.recall:.2f}; {path.stem}.csv has them all"
        )
        budget = Plan.of(self.configuration({}), self.data).budget
        lines = [
            dict(zip(TUNED_FOR, self.choices, strict=True))
            | {"budget": budget.limit, "unit": budget.unit, "seed": SEED, "trial": trial.number}
            | {"max_epochs": trial.max_epochs, **trial.settings, "epochs": trial.epochs}
            | {f"validation {METRIC}": round(100 * trial.recall, 3), "seconds": round(trial.seconds, 1)}
            | {"revision": trial.revision}
            for trial in trials
        ]
        write_text(path.with_suffix(".csv"), pd.DataFrame(lines).to_csv(index=False))
        write_text(path, f"# {about}\n{OmegaConf.to_yaml(content)}")


def tune_best(texts: list[str], trials: int, folder: Path) -> Iterator[str]:
    """Do the studies of all combinations of the datasets, backbones, losses and methods that are given.

    Parameters
    ----------
    texts : list of str
        Hydra overrides; those of `TUNED_FOR` may have several values. Other settings are those of all trials.
    trials : int
        Of each study, in its first rung.
    folder : Path
        As conf/tuned.

    Yields
    ------
    str
        What was chosen, a line for each study.

    Raises
    ------
    UserError
        For settings that cannot be or are not to be given; before anything is trained.
    TimeUp
        When `minutes=` are over.
    """
    parsed = {one.get_key_element(): one for one in OverridesParser.create().parse_overrides(texts)}
    values: dict[str, list[str]] = {"loss": [Description.of({"protocol": TUNED_PROTOCOL}).config["loss"]["name"]]}
    for group in TUNED_FOR:
        if group in parsed:
            one = parsed.pop(group)
            values[group] = list(one.sweep_string_iterator()) if one.is_sweep_override() else [str(one.value())]
        elif group not in values:
            raise UserError(f"--best needs {group}=NAME, or several as in {group}=A,B")
    for key, one in parsed.items():
        if one.is_sweep_override() or key in DECIDED:
            raise UserError(f"{one.input_line} cannot be given: --best itself decides what it searches, and how")
    given = [one.input_line for one in parsed.values()]
    combinations = product(*(values[group] for group in TUNED_FOR))
    studies = [Study(choices, given, trials, folder) for choices in combinations]
    studies.sort(key=lambda study: study.place)
    check_folder(folder, "--into")
    progress = Progress(sum(study.epochs for study in studies))
    with time_limit(configuration(given).minutes):
        for study in studies:
            chosen = study.tune(progress)
            words = " ".join(overrides(chosen.settings))
            yield f"{study}: best of {trials}: validation {METRIC} {100 * chosen.recall:.2f} with {words}"
