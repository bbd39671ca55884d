"""BET: embedding sizes for all ids at once, searched by short trainings and a network that predicts their outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.special import erf, erfinv, ndtri
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from baco.graph import Biadjacency
from baco.registry import register_method
from baco.validation import setting
from baselines.support.size_search import Action, Probed, Proposer, SearchSettings, SizeSearch, SizeSpace

PREDICTOR_RATE, PREDICTOR_DECAY, PREDICTOR_LEAST = 0.01, 0.9, 0.002  # Adam's learning rate, by update

# How the sizes of one side are drawn: the largest parameter, and from (n,) uniform numbers of (0, 1) and a parameter to
# shares, the inverse of a distribution function up to a factor.
FAMILIES: tuple[tuple[float, Callable[[np.ndarray, float], np.ndarray]], ...] = (
    (20.0, lambda u, beta: u ** (1 / beta)),  # power law, density x^(beta - 1) on (0, 1)
    (5.0, lambda u, beta: -np.log1p(u * np.expm1(-beta))),  # exponential, truncated to [0, beta]
    (20.0, lambda u, beta: erfinv(u * erf(beta / np.sqrt(2)))),  # normal, truncated to [0, beta]
    (0.5, lambda u, beta: np.exp(beta * ndtri(u))),  # log-normal of shape beta
)


class Actions(SizeSpace):
    """Actions whose sizes come from four families of distributions."""

    def __init__(self, train: Biadjacency, total: int, largest: int):
        super().__init__(train, total, largest)
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
        part, sides = rng.random(), []
        for num_ids in (self.train.num_users, self.train.num_items):
            most_beta, shares = FAMILIES[rng.integers(len(FAMILIES))]
            uniform = (rng.integers(2**52, size=1 + num_ids) + 0.5) / 2**52  # neither 0 nor 1
            sides.append(shares(uniform[1:], most_beta * uniform[0]))
        return self.action(part, *sides)

    def histogram(self, action: Action) -> Tensor:
        """(largest, classes of frequency) float32: how many ids of each frequency have each size.

        All that the predictor sees of an action: ids of one side and one frequency are the same to it.
        """
        cells = (np.concatenate(action) - 1) * self._num_classes + self._classes
        counts = np.bincount(cells, minlength=self.largest * self._num_classes)
        return torch.as_tensor(counts.reshape(self.largest, -1), dtype=torch.float32)


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


class Predicting(Proposer):
    """Of five actions, three by prediction, one blindly, one near the best."""

    def __init__(self, actions: Actions, config: Bet.Config, rng: np.random.Generator):
        self.actions, self.config, self.rng = actions, config, rng
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            self.predictor = FitnessPredictor(actions.frequencies, actions.largest)

    @torch.no_grad()
    def propose(self, probed: list[Probed]) -> Action:
        turn = len(probed) % 5
        if self.config.selection == "random" or turn == 3:
            return self.actions.draw(self.rng)
        drawn = [self.actions.draw(self.rng) for _ in range(self.config.candidates)]
        histograms = torch.stack([self.actions.histogram(action) for action in drawn])
        if turn < 3:
            return drawn[int(self.predictor(histograms).argmax())]
        best = self.actions.histogram(max(probed, key=lambda probe: probe.fitness).action)
        distances = (self.predictor.embed(histograms) - self.predictor.embed(best[None])).norm(dim=1)
        return drawn[int(distances.argmin())]

    def learn(self, probed: list[Probed]) -> None:
        for _ in range(self.config.updates):
            action, fitness = probed[self.rng.integers(len(probed))]
            self.predictor.learn(self.actions.histogram(action), fitness)


@register_method("bet")
class Bet(SizeSearch):
    """Budgeted embedding table (Qu et al., WSDM 2024, arXiv 2310.14884).

    An action gives every id a size, the larger the more frequent it is. The full model is trained once; probed actions
    are fine-tuned from it for a few epochs under their sizes, and a network learns to predict how well that goes. Of
    many drawn actions it chooses the next one to probe. The best few are trained from scratch, and the best of these
    on validation is it. Parameters: the budget, to the float.

    Deviations: sizes are allocated exactly, where the published sampler leaves up to a sixth of the budget unused or
    exceeds it; the largest size is the width of the full model; fewer, shorter probes; the choice by distance takes the
    best action's embedding from the present network, where the authors' code keeps the one of the time of its choice.
    """

    label = "BET"

    @dataclass(frozen=True)
    class Config(SearchSettings):
        """The settings of every search (probes are the paper's T, those retrained its k), and three more.

        Attributes
        ----------
        candidates : int
            m, actions drawn for each probe.
        updates : int
            Of the predictor after each probe.
        selection : str
            'predictor', or 'random': probes are chosen blindly, the control of the paper's ablation.
        """

        candidates: int = setting(100, at_least=1)
        updates: int = setting(2, at_least=0)
        selection: str = setting("predictor", one_of=("predictor", "random"))

    config: Config

    def space(self, train: Biadjacency, total: int, largest: int) -> Actions:
        return Actions(train, total, largest)

    def proposer(self, space: SizeSpace, rng: np.random.Generator) -> Predicting:
        assert isinstance(space, Actions)
        return Predicting(space, self.config, rng)
