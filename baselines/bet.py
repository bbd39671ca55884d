"""BET: embedding sizes for all ids at once, searched by short trainings and a network that predicts their outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import erf, erfinv, ndtri
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm import tqdm

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner, TrainingReport
from baco.embedding.cost import Ledger
from baco.embedding.tables import EmbeddingTables
from baco.errors import SettingError
from baco.graph import Biadjacency
from baco.registry import register_method
from baco.rng import stream
from baco.validation import Validated, setting
from baselines.full import trained_full
from baselines.sizes import SizedTables, affordable_size, allocate, assign_by_rank

log = logging.getLogger(__name__)

FITNESS_CUTOFFS = (5, 10, 20)
PREDICTOR_RATE, PREDICTOR_DECAY, PREDICTOR_LEAST = 0.01, 0.9, 0.002  # Adam's learning rate, by update

# How the sizes of one side are drawn: the largest parameter, and from (n,) uniform numbers of (0, 1) and a parameter to
# shares, the inverse of a distribution function up to a factor.
FAMILIES: tuple[tuple[float, Callable[[np.ndarray, float], np.ndarray]], ...] = (
    (20.0, lambda u, beta: u ** (1 / beta)),  # power law, density x^(beta - 1) on (0, 1)
    (5.0, lambda u, beta: -np.log1p(u * np.expm1(-beta))),  # exponential, truncated to [0, beta]
    (20.0, lambda u, beta: erfinv(u * erf(beta / np.sqrt(2)))),  # normal, truncated to [0, beta]
    (0.5, lambda u, beta: np.exp(beta * ndtri(u))),  # log-normal of shape beta
)


class Action(NamedTuple):
    """The sizes of all embeddings of both sides: descending, the first are those of the most frequent ids."""

    user_sizes: np.ndarray  # (num_users,) int64
    item_sizes: np.ndarray  # (num_items,) int64


class Actions:
    """The actions that spend a budget exactly.

    Parameters
    ----------
    total : int
        Sum of all sizes.
    largest : int
        The largest size.
    """

    def __init__(self, train: Biadjacency, total: int, largest: int):
        self.train, self.total, self.largest = train, total, largest
        degrees = train.user_degrees, train.item_degrees
        classes = [np.unique(side, return_inverse=True) for side in degrees]
        shift = len(classes[0][0])
        self.frequencies = [distinct / max(1, distinct[-1]) for distinct, _ in classes]  # per side, ascending
        by_rank = [np.sort(inverse)[::-1] for _, inverse in classes]
        self._classes = np.concatenate([by_rank[0], by_rank[1] + shift])  # of frequency, for the sizes of an action
        self._num_classes = shift + len(classes[1][0])

    def draw(self, rng: np.random.Generator) -> Action:
        """A share of the users, uniform, and for each side one of four families with a uniform parameter.

        Sizes are allocated exactly, where the authors round down, clip, and try again when a size is too large.
        """
        num_users, num_items = self.train.num_users, self.train.num_items
        least = max(num_users, self.total - num_items * self.largest)
        most = min(num_users * self.largest, self.total - num_items)
        for_users = int(np.clip(round(rng.random() * self.total), least, most))
        sides = []
        for num_ids, total in ((num_users, for_users), (num_items, self.total - for_users)):
            most_beta, shares = FAMILIES[rng.integers(len(FAMILIES))]
            uniform = (rng.integers(2**52, size=1 + num_ids) + 0.5) / 2**52  # neither 0 nor 1
            sides.append(allocate(shares(uniform[1:], most_beta * uniform[0]), total, self.largest))
        return Action(*sides)

    def histogram(self, action: Action) -> Tensor:
        """(largest, classes of frequency) float32: how many ids of each frequency have each size.

        All that the predictor sees of an action: ids of one side and one frequency are the same to it.
        """
        cells = (np.concatenate(action) - 1) * self._num_classes + self._classes
        counts = np.bincount(cells, minlength=self.largest * self._num_classes)
        return torch.as_tensor(counts.reshape(self.largest, -1), dtype=torch.float32)

    def tables(self, action: Action) -> SearchedTables:
        """Tables of these sizes, before their first values are drawn."""
        users = assign_by_rank(action.user_sizes, self.train.user_degrees)
        items = assign_by_rank(action.item_sizes, self.train.item_degrees)
        return SearchedTables(users, items, self.largest)


class SearchedTables(SizedTables):
    """Tables whose sizes come from trainings at full size, which the memory has to hold."""

    def ledger(self) -> Ledger:
        return replace(super().ledger(), training_floats=sum(self.num_ids) * self.dim)


class FitnessPredictor(nn.Module):
    """Predicts the fitness of an action from the frequencies of the ids that it gives each size (a DeepSets network).

    The ids of one size are a set: its elements are encoded from their side and frequency, averaged, and encoded with
    the size; the mean over sizes is the action's embedding h.

    Parameters
    ----------
    frequencies : two (classes,) arrays in [0, 1], of users and items
    largest : int
        The largest size.
    """

    def __init__(self, frequencies: list[np.ndarray], largest: int):
        super().__init__()
        self.elements = nn.ModuleList(_layers(1, 16, 16) for _ in frequencies)
        self.sets = _layers(17, 64, 64)
        self.value = _layers(64, 64, 1)[:-1]  # the last layer is linear
        self.frequencies = [torch.as_tensor(side, dtype=torch.float32)[:, None] for side in frequencies]
        self.sizes = torch.arange(1, largest + 1, dtype=torch.float32)[:, None] / largest
        self._optimizer = torch.optim.Adam(self.parameters(), lr=PREDICTOR_RATE)

    def embed(self, histograms: Tensor) -> Tensor:
        """(m, 64): h of each action, from (m, largest, classes) histograms."""
        encoded = torch.cat([encode(side) for encode, side in zip(self.elements, self.frequencies, strict=True)])
        means = histograms @ encoded / histograms.sum(2, keepdim=True).clamp(min=1)
        return self.sets(torch.cat([means, self.sizes.expand(len(means), -1, 1)], 2)).mean(1)

    def forward(self, histograms: Tensor) -> Tensor:
        """(m,): predicted fitness."""
        return self.value(self.embed(histograms)).squeeze(1)

    def learn(self, histogram: Tensor, fitness: float) -> None:
        """One update on one probed action."""
        self._optimizer.zero_grad()
        mse_loss(self(histogram[None]), torch.tensor([fitness])).backward()
        self._optimizer.step()
        for group in self._optimizer.param_groups:
            group["lr"] = max(PREDICTOR_LEAST, group["lr"] * PREDICTOR_DECAY)


def _layers(*widths: int) -> nn.Sequential:
    """Linear layers, each followed by a LeakyReLU."""
    return nn.Sequential(*(layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.LeakyReLU())))


class Probed(NamedTuple):
    """An action that was tried, and the part of the full model's validation score that it kept."""

    action: Action
    histogram: Tensor
    fitness: float


@register_method("bet")
class Bet(Compressor):
    """Budgeted embedding table (Qu et al., WSDM 2024, arXiv 2310.14884).

    An action gives every id a size, the larger the more frequent it is. The full model is trained once; probed actions
    are fine-tuned from it for a few epochs under their sizes, and a network learns to predict how well that goes. Of
    many drawn actions it chooses the next one to probe. The best few are trained from scratch, and the best of these
    on validation is it. Parameters: the budget, to the float.

    Deviations: sizes are allocated exactly, where the published sampler leaves up to a sixth of the budget unused or
    exceeds it; the largest size is the width of the full model; fewer probes, whose length is counted in steps, as an
    epoch has 2 to 1,220 of them, by dataset and batch; the choice by distance takes the best action's embedding from
    the present network, where the authors' code keeps the one of the time of its choice.
    """

    label = "BET"
    has_start = True

    @dataclass(frozen=True)
    class Config(Validated):
        """Settings of the search.

        Attributes
        ----------
        probes : int
            T, actions that are tried by a short training.
        candidates : int
            m, actions drawn for each probe.
        probe_steps : int
            Optimiser steps of such a training, at least; it ends with an epoch, and with the protocol's last at most.
        updates : int
            Of the predictor after each probe.
        retrained : int
            k, actions trained in full.
        selection : str
            'predictor', or 'random': probes are chosen blindly, the control of the paper's ablation.
        """

        probes: int = setting(20, at_least=1)
        candidates: int = setting(100, at_least=1)
        probe_steps: int = setting(200, at_least=1)
        updates: int = setting(2, at_least=0)
        retrained: int = setting(3, at_least=1)
        selection: str = setting("predictor", one_of=("predictor", "random"))

        def __post_init__(self):
            super().__post_init__()
            if self.retrained > self.probes:
                raise SettingError("retrained", self.retrained, f"is more than probes={self.probes}")

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> SearchedTables:
        """The tables of one action drawn blindly, from which `search` takes what they cost."""
        actions = Actions(train, affordable_size(budget, train.num_nodes), budget.dim)
        return actions.tables(actions.draw(rng))

    def search(self, tables: EmbeddingTables, runner: Runner) -> SearchedTables:
        assert isinstance(tables, SearchedTables)  # those of `fit`
        actions = Actions(runner.train, len(tables.values), tables.dim)
        self._announce(runner)
        full, report = trained_full(runner, tables.dim)
        log.info("bet: the full model is trained; the rest may take about %.0f s", self._seconds_left(report, runner))

        probed = self._probe(actions, full, runner)
        best = sorted(probed, key=lambda probe: probe.fitness, reverse=True)[: self.config.retrained]
        values = []
        for number, probe in enumerate(best, 1):
            retrained = runner.initialize(actions.tables(probe.action))
            runner.fit(retrained)
            values.append(score(runner, retrained))
            log.info("bet: action %d of %d is worth %.2f %% on validation", number, len(best), 100 * values[-1])
        return runner.initialize(actions.tables(best[int(np.argmax(values))].action))

    def _announce(self, runner: Runner) -> None:
        config, epochs, of_probe = self.config, runner.max_epochs, self.probe_epochs(runner)
        log.info(
            "bet: trains the full model and %d others for at most %d epochs each, and %d for %d: %d epochs at most, "
            "after which the training proper repeats the best",
            config.retrained,
            epochs,
            config.probes,
            of_probe,
            (1 + config.retrained) * epochs + config.probes * of_probe,
        )

    def probe_epochs(self, runner: Runner) -> int:
        """The length of a probe in epochs."""
        return min(-(-self.config.probe_steps // runner.steps_per_epoch), runner.max_epochs)

    def _seconds_left(self, full: TrainingReport, runner: Runner) -> float:
        """An estimate from the training of the full model, the training proper included."""
        config = self.config
        training = full.training_seconds + full.validation_seconds
        validation = full.validation_seconds / len(full.history)
        probe = self.probe_epochs(runner) * training / full.epochs + validation
        return config.probes * probe + (config.retrained + 1) * training

    def _probe(self, actions: Actions, full: EmbeddingTables, runner: Runner) -> list[Probed]:
        """Actions that were fine-tuned from the full model, in the order in which they were tried."""
        config = self.config
        rng = stream(runner.seed, "search")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            predictor = FitnessPredictor(actions.frequencies, actions.largest)
        start, reference = torch.cat(full()).detach().flatten(), score(runner, full) or 1.0
        probed: list[Probed] = []
        disable = None if runner.progress else True
        for number in tqdm(range(config.probes), desc="probing", unit="probe", disable=disable, leave=False):
            action, histogram = self._choose(number, actions, probed, predictor, rng)
            tables = actions.tables(action).to(runner.device)
            with torch.no_grad():
                tables.values.copy_(start[tables.positions])
            runner.fit(tables, max_epochs=self.probe_epochs(runner))
            probed.append(Probed(action, histogram, score(runner, tables) / reference))
            log.debug("bet: probe %d: fitness %.4f", number + 1, probed[-1].fitness)
            for _ in range(config.updates):
                past = probed[rng.integers(len(probed))]
                predictor.learn(past.histogram, past.fitness)
        return probed

    @torch.no_grad()
    def _choose(
        self,
        number: int,
        actions: Actions,
        probed: list[Probed],
        predictor: FitnessPredictor,
        rng: np.random.Generator,
    ) -> tuple[Action, Tensor]:
        """The action to probe next, and its histogram: of five, three by prediction, one blindly, one near the best."""
        if self.config.selection == "random" or number % 5 == 3:
            action = actions.draw(rng)
            return action, actions.histogram(action)
        drawn = [actions.draw(rng) for _ in range(self.config.candidates)]
        histograms = torch.stack([actions.histogram(action) for action in drawn])
        if number % 5 == 4:
            best = max(probed, key=lambda probe: probe.fitness)
            distances = (predictor.embed(histograms) - predictor.embed(best.histogram[None])).norm(dim=1)
            chosen = int(distances.argmin())
        else:
            chosen = int(predictor(histograms).argmax())
        return drawn[chosen], histograms[chosen]


def score(runner: Runner, tables: EmbeddingTables) -> float:
    """The mean of recall and NDCG at 5, 10 and 20 on validation."""
    means = runner.validation_means(tables, FITNESS_CUTOFFS)
    return float(np.mean([means[f"{metric}@{k}"] for metric in ("recall", "ndcg") for k in FITNESS_CUTOFFS]))
