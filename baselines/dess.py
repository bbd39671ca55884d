"""DESS: embedding sizes of groups of ids, chosen by a linear bandit that forgets."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from baco.compressors.runner import Runner
from baco.embedding.tables import EmbeddingTables
from baco.graph import Biadjacency
from baco.registry import register_method
from baco.validation import setting
from baselines.ciess import GroupSizes, mean_of
from baselines.sizes import allocate, assign_by_rank
from baselines.support.size_search import (
    Action,
    Probed,
    Proposer,
    SearchedTables,
    SearchSettings,
    SizeSearch,
    SizeSpace,
)

log = logging.getLogger(__name__)

RIDGE = 1.0  # lambda
METRIC, CUTOFF = "recall", 20  # of the quality of a user
MOST_REWARD = 2.0


class Bandit:
    """LinUCB with weights that forget (the abstract of DESS; discounted LinUCB: Russac et al., NeurIPS 2019).

    Each arm a has A_a and b_a. After each step all of them forget, A_a <- g A_a + (1 - g) lambda I + sum x x^T and
    b_a <- g b_a + sum r x, with sums over the contexts x that chose it and their rewards r. The next choice is the arm
    with the largest theta_a^T x + c sqrt(x^T A_a^-1 x), theta_a = A_a^-1 b_a.

    Parameters
    ----------
    forgetting : float
        g; 1 forgets nothing.
    exploration : float
        c.
    """

    def __init__(self, num_arms: int, num_features: int, forgetting: float, exploration: float):
        self.forgetting, self.exploration = forgetting, exploration
        self.ridge = RIDGE * np.eye(num_features)
        self.gram = np.tile(self.ridge, (num_arms, 1, 1))  # A
        self.moments = np.zeros((num_arms, num_features))  # b

    def scores(self, contexts: np.ndarray) -> np.ndarray:
        """(num_arms, n): the upper bounds of the rewards of (n, num_features) contexts."""
        inverse = np.linalg.inv(self.gram)
        theta = np.einsum("aij,aj->ai", inverse, self.moments)
        spread = np.einsum("ni,aij,nj->an", contexts, inverse, contexts)
        return theta @ contexts.T + self.exploration * np.sqrt(spread)

    def choose(self, contexts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) arms, equals at random."""
        scores = self.scores(contexts)
        best = np.isclose(scores, scores.max(axis=0))
        return np.argmax(best * (1 + rng.random(scores.shape)), axis=0)

    def learn(self, contexts: np.ndarray, arms: np.ndarray, rewards: np.ndarray) -> None:
        """One step: all arms forget, those that were chosen learn."""
        chosen = (arms == np.arange(len(self.gram))[:, None]).astype(np.float64)  # (num_arms, n)
        self.gram *= self.forgetting
        self.gram += (1 - self.forgetting) * self.ridge + np.einsum("an,ni,nj->aij", chosen, contexts, contexts)
        self.moments *= self.forgetting
        self.moments += (chosen * rewards) @ contexts


class Groups(GroupSizes):
    """The actions of arms that groups choose: an id has the size of its group's arm, up to one factor for all ids.

    Attributes
    ----------
    arms : (num_arms,) float64
        The sizes: powers of two, and the largest.
    contexts : (num_groups, 4) float64, users first
        1; the frequency of the group's ids and that of the ids they interact with, logarithms as parts of the largest;
        whether they are users.
    """

    def __init__(self, train: Biadjacency, total: int, largest: int, groups: int):
        super().__init__(train, total, largest, groups)
        self.arms = np.unique(np.append(2.0 ** np.arange(int(np.log2(largest)) + 1), largest))
        frequencies = self.frequencies()
        users, items = self.by_id
        logs = [np.log1p(degrees) for degrees in self.degrees]
        near = [
            mean_of(logs[1][train.items], users[train.users], len(frequencies[0])),
            mean_of(logs[0][train.users], items[train.items], len(frequencies[1])),
        ]
        columns = np.log1p(np.concatenate(frequencies)), np.concatenate(near)
        parts = [column / max(column.max(), 1e-12) for column in columns]
        of_users = np.arange(len(parts[0])) < len(frequencies[0])
        self.contexts = np.stack([np.ones(len(of_users)), *parts, of_users], axis=1)
        self.group = np.concatenate([users, items + len(frequencies[0])])  # of each id

    def of_arms(self, arms: np.ndarray) -> Action:
        """The sizes of all ids in their own order; `tables` leaves them there, as frequent ids may have small ones."""
        shares = self.arms[arms][self.group]
        sizes = assign_by_rank(allocate(shares, self.total, self.largest), shares)
        return Action(*np.split(sizes, [self.train.num_users]))

    def draw(self, rng: np.random.Generator) -> Action:
        return self.of_arms(rng.integers(len(self.arms), size=len(self.contexts)))

    def tables(self, action: Action) -> SearchedTables:
        return SearchedTables(*action, self.largest)


class Choosing(Proposer):
    """Each group takes the size that the bandit likes best, and is rewarded by its quality as a part of that which it
    has in the full model. The bandit is that of the last segment, where there was one.
    """

    def __init__(self, groups: Groups, config: Dess.Config, rng: np.random.Generator):
        self.groups, self.config, self.rng = groups, config, rng
        self.bandit: Bandit | None = None

    def observe(self, runner: Runner, tables: EmbeddingTables) -> None:
        ranking = runner.evaluate(tables, "val", CUTOFF)
        quality = np.concatenate(self.groups.qualities(ranking.users, ranking.per_user(CUTOFF)[METRIC]))
        if self.bandit is not None:
            self.kept = quality
            return
        sizes = len(self.groups.arms), self.groups.contexts.shape[1]
        own = Bandit(*sizes, self.config.forgetting, self.config.exploration)
        self.bandit, self.reference = runner.memory.setdefault(Dess.name, own), quality

    def propose(self, probed: list[Probed]) -> Action:
        assert self.bandit is not None  # the full model came first
        self.arms = self.bandit.choose(self.groups.contexts, self.rng)
        return self.groups.of_arms(self.arms)

    def learn(self, probed: list[Probed]) -> None:
        assert self.bandit is not None
        known = self.reference > 0
        rewards = np.minimum(self.kept[known] / self.reference[known], MOST_REWARD)
        self.bandit.learn(self.groups.contexts[known], self.arms[known], rewards)
        log.debug("dess: sizes %s", self.groups.arms[self.arms].astype(int).tolist())


@register_method("dess")
class Dess(SizeSearch):
    """Sizes by a linear bandit that forgets (He et al., CIKM 2023, arXiv 2308.07760), of which we read the abstract.

    The arms are embedding sizes; each group of ids of about one frequency chooses one in its context. Sizes are then
    scaled together until they spend the budget. Choices are tried as `bet` tries its actions; in a stream
    (docs/streaming.md) the bandit goes on from segment to segment. Parameters: the budget, to the float.

    Deviations: groups choose, not each id; contexts are frequencies, as the authors' two indicators could not be read;
    the reward is the part of the full model's recall that a group keeps, and counts for the size that was chosen,
    whatever it was scaled to; a step is a short training; there is a budget; an embedding is a prefix of the longest
    one, where the authors map widths by matrices.
    """

    label = "DESS"

    @dataclass(frozen=True)
    class Config(SearchSettings):
        """The settings of every search, and three more.

        Attributes
        ----------
        groups : int
            Of ids of a side.
        forgetting, exploration : float
            g and c, see `Bandit`.
        """

        groups: int = setting(10, at_least=1)
        forgetting: float = setting(0.95, above=0, at_most=1)
        exploration: float = setting(0.5, at_least=0)

    config: Config

    def space(self, train: Biadjacency, total: int, largest: int) -> Groups:
        return Groups(train, total, largest, self.config.groups)

    def proposer(self, space: SizeSpace, rng: np.random.Generator) -> Choosing:
        assert isinstance(space, Groups)
        return Choosing(space, self.config, rng)
