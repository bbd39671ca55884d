"""The evaluator: final embeddings or scores in, a report with one value per user out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from torch import Tensor

from baco.data.interactions import Interactions
from baco.evaluation.metrics import CUTOFFS, relevant_hits, user_metrics
from baco.evaluation.ranking import rank_items, rank_scores
from baco.graph import Neighbors
from baco.processes import ALONE, Processes
from baco.rng import stream


@dataclass(frozen=True, eq=False)
class RankingReport:
    """What a ranking was worth, user by user.

    Attributes
    ----------
    users : (m,) int64
        The users with relevant items in the split; nobody else counts.
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
    """

    def __init__(self, data: Interactions, processes: Processes = ALONE):
        self.data = data
        self.processes = processes
        self.tie_order = tie_order(data.num_items)

    @cached_property
    def _seen_at_test(self) -> Neighbors:
        return self.data.union(("train", "val")).by_user

    def evaluate(self, user_rows: Tensor, item_rows: Tensor, split: str, k: int = max(CUTOFFS)) -> RankingReport:
        """Rank all items for each user of a split, 'val' or 'test', by the dot product of final embeddings."""
        return self._report(partial(rank_items, user_rows, item_rows), split, k)

    def evaluate_scores(
        self, scores: Callable[[np.ndarray], np.ndarray], split: str, k: int = max(CUTOFFS)
    ) -> RankingReport:
        """The same by the scores that a function gives for a block of users, see `rank_scores`."""
        return self._report(partial(rank_scores, scores), split, k)

    def _report(self, rank: Callable[..., np.ndarray], split: str, k: int) -> RankingReport:
        relevant = getattr(self.data, split)
        seen = self._seen_at_test if split == "test" else self.data.train.by_user
        users = np.flatnonzero(relevant.user_degrees)
        mine = users[self.processes.part(len(users))]
        ranked = rank(mine, seen, self.tie_order, k)
        hits = self.processes.gather(relevant_hits(ranked, mine, relevant.by_user, self.data.num_items))
        return RankingReport(users, relevant.user_degrees[users], np.concatenate(hits))
