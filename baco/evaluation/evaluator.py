"""The evaluator: final embeddings or scores in, a report with one value per user out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from baco.data.interactions import Interactions
from baco.evaluation.metrics import CUTOFFS, relevant_hits, user_metrics
from baco.evaluation.ranking import rank_in_blocks, rank_scores
from baco.graph import Neighbors
from baco.processes import ALONE, Processes
from baco.rng import stream

BLOCK = 2**16  # users whose rankings are in memory at once


@dataclass(frozen=True, eq=False)
class RankingReport:
    """What a ranking was worth, user by user.

    Attributes
    ----------
    users : (m,) int64
        The users with relevant items in the split, all or a draw; nobody else counts.
    num_relevant : (m,) int64
    hits : (m, k) bool
        Whether the item at each rank is relevant.
    """

    users: np.ndarray
    num_relevant: np.ndarray
    hits: np.ndarray

    def per_user(self, k: int) -> dict[str, np.ndarray]:
        """All metrics at cut-off k, each (m,) float64."""
        return user_metrics(self.hits, self.num_relevant, k)

    def means(self, cutoffs: tuple[int, ...] = CUTOFFS) -> dict[str, float]:
        """Means over users, named `metric@k`."""
        return {f"{name}@{k}": float(values.mean()) for k in cutoffs for name, values in self.per_user(k).items()}


def tie_order(num_items: int) -> np.ndarray:
    """(num_items,) int64: the order of items with equal scores, a permutation that belongs to the dataset: it is drawn
    from the `ties` stream of seed 0.
    """
    return stream(0, "ties").permutation(num_items)


class Evaluator:
    """Ranks the held-out interactions of a dataset.

    Validation hides what a user has in the training split; the test hides training and validation. Of several
    processes each ranks for a part of the users, and all get the whole report.

    Parameters
    ----------
    most_users : int, optional
        Who are ranked of each split, where it has more: a draw that belongs to the dataset, whatever the run's seed.
    """

    def __init__(self, data: Interactions, processes: Processes = ALONE, most_users: int | None = None):
        self.data = data
        self.processes = processes
        self.most_users = most_users
        self.tie_order = tie_order(data.num_items)

    @cached_property
    def _seen_at_test(self) -> Neighbors:
        return self.data.union(("train", "val")).by_user

    def evaluate(self, user_rows: Tensor, item_rows: Tensor, split: str, k: int = max(CUTOFFS)) -> RankingReport:
        """Rank all items for each user of a split, 'val' or 'test', by the dot product of final embeddings."""

        def rank(users: np.ndarray, seen: Neighbors) -> Iterator[np.ndarray]:
            return rank_in_blocks(user_rows, item_rows, users, seen, self.tie_order, k, BLOCK)

        return self._report(rank, split, k)

    def evaluate_scores(
        self, scores: Callable[[np.ndarray], np.ndarray], split: str, k: int = max(CUTOFFS)
    ) -> RankingReport:
        """The same by the scores that a function gives for a block of users, see `rank_scores`."""

        def rank(users: np.ndarray, seen: Neighbors) -> Iterator[np.ndarray]:
            blocks = (users[start : start + BLOCK] for start in range(0, len(users), BLOCK))
            return (rank_scores(scores, block, seen, self.tie_order, k) for block in blocks)

        return self._report(rank, split, k)

    def _report(
        self, rank: Callable[[np.ndarray, Neighbors], Iterator[np.ndarray]], split: str, k: int
    ) -> RankingReport:
        """The report of rankings, `BLOCK` users at a time."""
        relevant = getattr(self.data, split)
        seen = self._seen_at_test if split == "test" else self.data.train.by_user
        users = np.flatnonzero(relevant.user_degrees)
        if self.most_users is not None and self.most_users < len(users):
            users = np.sort(stream(0, "ranked").choice(users, self.most_users, replace=False))
        mine = users[self.processes.part(len(users))]
        hits, done = np.empty((len(mine), k), bool), 0
        for ranked in rank(mine, seen):
            block = slice(done, done + len(ranked))
            hits[block] = relevant_hits(ranked, mine[block], relevant.by_user, self.data.num_items)
            done += len(ranked)
        return RankingReport(users, relevant.user_degrees[users], np.concatenate(self.processes.gather(hits)))
