"""SCALL: embedding sizes by three numbers, a curve per side and the users' part of the budget."""

from __future__ import annotations

import logging

import numpy as np
from scipy.special import gammaln

from baco.graph import Biadjacency
from baco.registry import register_method
from baselines.support.size_search import Action, Probed, Proposer, SearchSettings, SizeSearch, SizeSpace

log = logging.getLogger(__name__)

LEAST_ALPHA, MOST_ALPHA = 0.1, 30.0  # as in the authors' program
STEP = 0.1  # deviation of a step from the best point, of the unit cube


def expected_descending(num_ids: int, alpha: float) -> np.ndarray:
    """(n,) the expected values of n draws from the density alpha x^(alpha - 1) on [0, 1] in descending order, by the
    largest.

    The r-th largest of n uniform numbers has a Beta(n - r + 1, r) distribution; a draw is its power 1 / alpha, whose
    mean is proportional to Gamma(n - r + 1 + 1 / alpha) / Gamma(n - r + 1).
    """
    place = np.arange(num_ids, 0, -1)  # n - r + 1
    logs = gammaln(place + 1 / alpha) - gammaln(place)
    return np.exp(logs - logs[0])


class Curves(SizeSpace):
    """The actions of the points of the unit cube: the users' part, and the logarithms of both alphas."""

    def at(self, point: np.ndarray) -> Action:
        part, *logs = point
        alphas = [LEAST_ALPHA * (MOST_ALPHA / LEAST_ALPHA) ** log for log in logs]
        sizes = self.train.num_users, self.train.num_items
        return self.action(part, *(expected_descending(*side) for side in zip(sizes, alphas, strict=True)))

    def draw(self, rng: np.random.Generator) -> Action:
        return self.at(rng.random(3))


class NearTheBest(Proposer):
    """The first half of the probes at random, each of the others a small step from the best one so far."""

    def __init__(self, curves: Curves, blind: int, rng: np.random.Generator):
        self.curves, self.blind, self.rng = curves, blind, rng
        self.points: list[np.ndarray] = []

    def propose(self, probed: list[Probed]) -> Action:
        if len(probed) < self.blind:
            point = self.rng.random(3)
        else:
            best = int(np.argmax([probe.fitness for probe in probed]))
            point = np.clip(self.points[best] + STEP * self.rng.standard_normal(3), 0, 1)
        self.points.append(point)
        return self.curves.at(point)

    def learn(self, probed: list[Probed]) -> None:
        log.debug("scall: point %s", self.points[-1].round(3).tolist())


@register_method("scall")
class Scall(SizeSearch):
    """The static part of SCALL (Qu et al., CIKM 2024, arXiv 2407.15411): sizes that three numbers decide.

    The users get the part rho of the budget. On a side with n ids, the r-th most frequent has a size in proportion to
    the mean r-th largest of n draws from the power law with density alpha x^(alpha - 1): equal for a large alpha,
    steep for a small one. rho and both alphas are searched as `bet` searches its actions, with as many trainings.
    Parameters: the budget, to the float.

    Deviations: means in closed form, where the authors average a hundred draws; the power law only, of three families;
    sizes are allocated exactly; points are drawn, the later half near the best, where the authors train a soft
    actor-critic across the segments of a stream; alphas are searched on a logarithmic scale; the largest size is `dim`.
    """

    label = "SCALL"
    Config = SearchSettings
    config: SearchSettings

    def space(self, train: Biadjacency, total: int, largest: int) -> Curves:
        return Curves(train, total, largest)

    def proposer(self, space: SizeSpace, rng: np.random.Generator) -> NearTheBest:
        assert isinstance(space, Curves)
        return NearTheBest(space, -(-self.config.probes // 2), rng)
