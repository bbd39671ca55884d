"""The search for embedding sizes by short trainings, whatever proposes them (BET, SCALL, CIESS)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner, TrainingReport
from baco.embedding.cost import Ledger
from baco.embedding.tables import EmbeddingTables
from baco.errors import SettingError
from baco.graph import Biadjacency
from baco.rng import stream
from baco.validation import Validated, setting
from baselines.full import trained_full
from baselines.sizes import SizedTables, affordable_size, allocate, assign_by_rank

log = logging.getLogger(__name__)

FITNESS_CUTOFFS = (5, 10, 20)


class Action(NamedTuple):
    """The sizes of all embeddings of both sides: descending, the first are those of the most frequent ids."""

    user_sizes: np.ndarray  # (num_users,) int64
    item_sizes: np.ndarray  # (num_items,) int64


class SearchedTables(SizedTables):
    """Tables whose sizes come from trainings at full size, which the memory has to hold."""

    def ledger(self) -> Ledger:
        return replace(super().ledger(), training_floats=sum(self.num_ids) * self.dim)


class SizeSpace:
    """The actions that spend a budget exactly. A subclass draws them.

    Parameters
    ----------
    total : int
        Sum of all sizes.
    largest : int
        The largest size.
    """

    def __init__(self, train: Biadjacency, total: int, largest: int):
        self.train, self.total, self.largest = train, total, largest

    def draw(self, rng: np.random.Generator) -> Action:
        """Any action."""
        raise NotImplementedError

    def action(self, part: float, user_shares: np.ndarray, item_shares: np.ndarray) -> Action:
        """The users get about that part of the budget, in proportion to their shares, and the items the rest."""
        num_users, num_items = self.train.num_users, self.train.num_items
        least = max(num_users, self.total - num_items * self.largest)
        most = min(num_users * self.largest, self.total - num_items)
        for_users = int(np.clip(round(part * self.total), least, most))
        return Action(
            allocate(user_shares, for_users, self.largest), allocate(item_shares, self.total - for_users, self.largest)
        )

    def tables(self, action: Action) -> SearchedTables:
        """Tables of these sizes, before their first values are drawn."""
        users = assign_by_rank(action.user_sizes, self.train.user_degrees)
        items = assign_by_rank(action.item_sizes, self.train.item_degrees)
        return SearchedTables(users, items, self.largest)


class Probed(NamedTuple):
    """An action that was tried, and the part of the full model's validation score that it kept."""

    action: Action
    fitness: float


class Proposer:
    """Says which action to probe next."""

    def propose(self, probed: list[Probed]) -> Action:
        """An action, from all that were probed so far, in their order."""
        raise NotImplementedError

    def observe(self, runner: Runner, tables: EmbeddingTables) -> None:
        """The trained full model, and then the tables of each probe, before `learn`."""

    def learn(self, probed: list[Probed]) -> None:
        """After each probe, which is the last of the list."""


@dataclass(frozen=True)
class SearchSettings(Validated):
    """Settings of every search.

    Attributes
    ----------
    probes : int
        Actions that are tried by a short training.
    probe_epochs, probe_steps : int
        The least epochs and the least optimiser steps of such a training; it is no longer than a full one.
    retrained : int
        Actions trained in full.
    """

    probes: int = setting(20, at_least=1)
    probe_epochs: int = setting(3, at_least=1)
    probe_steps: int = setting(200, at_least=0)
    retrained: int = setting(3, at_least=1)

    def __post_init__(self):
        super().__post_init__()
        if self.retrained > self.probes:
            raise SettingError("retrained", self.retrained, f"is more than probes={self.probes}")


class SizeSearch(Compressor):
    """A method that searches sizes: it says which there are (`space`), and in which order to try them (`proposer`).

    The full model is trained once; probed actions are fine-tuned from it for some hundred steps under their sizes. The
    best few are trained from scratch, and the best of these on validation is it.
    """

    has_start = True
    config: SearchSettings

    def space(self, train: Biadjacency, total: int, largest: int) -> SizeSpace:
        """The actions of this method; the parameters are those of `SizeSpace`."""
        raise NotImplementedError

    def proposer(self, space: SizeSpace, rng: np.random.Generator) -> Proposer:
        """A new proposer, of actions of what `space` gave."""
        raise NotImplementedError

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> SearchedTables:
        """The tables of one action drawn blindly, from which `search` takes what they cost."""
        space = self.space(train, affordable_size(budget, train.num_nodes), budget.dim)
        return space.tables(space.draw(rng))

    def search(self, tables: EmbeddingTables, runner: Runner) -> SearchedTables:
        assert isinstance(tables, SearchedTables)  # those of `fit`
        space = self.space(runner.train, len(tables.values), tables.dim)
        self._announce(runner)
        full, report = trained_full(runner, tables.dim)
        seconds = self._seconds_left(report, runner)
        log.info("%s: the full model is trained; the rest may take about %.0f s", self.name, seconds)

        probed = self._probe(space, full, runner)
        best = sorted(probed, key=lambda probe: probe.fitness, reverse=True)[: self.config.retrained]
        values = []
        for number, probe in enumerate(best, 1):
            retrained = runner.initialize(space.tables(probe.action))
            runner.fit(retrained)
            values.append(score(runner, retrained))
            worth = 100 * values[-1]
            log.info("%s: action %d of %d is worth %.2f %% on validation", self.name, number, len(best), worth)
        return runner.initialize(space.tables(best[int(np.argmax(values))].action))

    def _announce(self, runner: Runner) -> None:
        config, epochs, of_probe = self.config, runner.max_epochs, self.epochs_of_probe(runner)
        log.info(
            "%s: trains the full model and %d others for at most %d epochs each, and %d for %d: %d epochs at most, "
            "after which the training proper repeats the best",
            self.name,
            config.retrained,
            epochs,
            config.probes,
            of_probe,
            (1 + config.retrained) * epochs + config.probes * of_probe,
        )

    def epochs_of_probe(self, runner: Runner) -> int:
        """The length of a probe."""
        epochs = -(-self.config.probe_steps // runner.steps_per_epoch)
        return min(max(epochs, self.config.probe_epochs), runner.max_epochs)

    def _seconds_left(self, full: TrainingReport, runner: Runner) -> float:
        """An estimate from the training of the full model, the training proper included."""
        config = self.config
        training = full.training_seconds + full.validation_seconds
        validation = full.validation_seconds / len(full.history)
        probe = self.epochs_of_probe(runner) * training / full.epochs + validation
        return config.probes * probe + (config.retrained + 1) * training

    def _probe(self, space: SizeSpace, full: EmbeddingTables, runner: Runner) -> list[Probed]:
        """Actions that were fine-tuned from the full model, in the order in which they were tried."""
        config = self.config
        proposer = self.proposer(space, stream(runner.seed, "search"))
        start, reference = torch.cat(full()).detach().flatten(), score(runner, full) or 1.0
        proposer.observe(runner, full)
        probed: list[Probed] = []
        disable = None if runner.progress else True
        for number in tqdm(range(config.probes), desc="probing", unit="probe", disable=disable, leave=False):
            action = proposer.propose(probed)
            tables = space.tables(action).to(runner.device)
            with torch.no_grad():
                tables.values.copy_(start[tables.positions])
            runner.fit(tables, max_epochs=self.epochs_of_probe(runner))
            probed.append(Probed(action, score(runner, tables) / reference))
            log.debug("%s: probe %d: fitness %.4f", self.name, number + 1, probed[-1].fitness)
            proposer.observe(runner, tables)
            proposer.learn(probed)
        return probed


def score(runner: Runner, tables: EmbeddingTables) -> float:
    """The mean of recall and NDCG at 5, 10 and 20 on validation."""
    means = runner.validation_means(tables, FITNESS_CUTOFFS)
    return float(np.mean([means[f"{metric}@{k}"] for metric in ("recall", "ndcg") for k in FITNESS_CUTOFFS]))
