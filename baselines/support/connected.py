"""Nodes without training interactions: a clustering can say nothing about them, so they share one row per side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from baco.compressors.budget import Budget, split_rows
from baco.embedding.bits import packed_code_bytes
from baco.errors import UserError
from baco.graph import Biadjacency

ISOLATED = -1  # the label of every node without interactions


@dataclass(frozen=True, eq=False)
class Connected:
    """A graph and the part of it whose nodes all have interactions.

    Raises
    ------
    UserError
        When there are no interactions.
    """

    whole: Biadjacency

    def __post_init__(self):
        self.whole.check_interactions()

    @cached_property
    def users(self) -> np.ndarray:
        """Ids of the users with interactions, ascending."""
        return np.flatnonzero(self.whole.user_degrees)

    @cached_property
    def items(self) -> np.ndarray:
        """Ids of the items with interactions, ascending."""
        return np.flatnonzero(self.whole.item_degrees)

    @cached_property
    def graph(self) -> Biadjacency:
        """Their graph, in which they are numbered in this order."""
        return Biadjacency.from_pairs(
            np.searchsorted(self.users, self.whole.users),
            np.searchsorted(self.items, self.whole.items),
            len(self.users),
            len(self.items),
        )

    def restore(self, labels: np.ndarray) -> np.ndarray:
        """(whole.num_nodes,) int32: the labels of the connected nodes (users first), and `ISOLATED` for the others."""
        restored = np.full(self.whole.num_nodes, ISOLATED, np.int32)
        restored[np.concatenate([self.users, self.whole.num_users + self.items])] = labels
        return restored

    def clusters_within(self, budget: Budget) -> tuple[int, int]:
        """How many clusters of connected users and items fill a budget, in proportion to the numbers of both.

        Raises
        ------
        UserError
            When the budget does not buy a row for each of them and for the isolated nodes.
        """
        sides = np.array([self.whole.num_users, self.whole.num_items])
        connected = np.array([len(self.users), len(self.items)])
        pooled = connected < sides
        for_isolated = int(pooled.sum())

        def split(rows: int) -> tuple[int, int]:
            if rows < 2 + for_isolated:
                raise UserError(
                    f"the budget buys {rows} codebook rows, but {2 + for_isolated} are needed: one for the connected "
                    "nodes of each side, one for the nodes without interactions where a side has some; raise the budget"
                )
            return split_rows(rows - for_isolated, *connected)

        rows = budget.rows()
        for _ in range(2):  # what the codes take of a budget in bytes depends on the number of rows, but weakly
            rows = min(rows, int(connected.sum()) + for_isolated)
            clusters = np.array(split(rows))
            codes = sum(packed_code_bytes(*of) for of in zip(sides.tolist(), (clusters + pooled).tolist(), strict=True))
            rows = min(rows, budget.rows(extra_bytes=codes))
        return split(rows)
