"""Training interactions that have grown since codes were made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from baco.graph import Biadjacency


@dataclass(frozen=True, eq=False)
class Growth:
    """What there was, and what there is now. New users and items are numbered after the old ones of their side.

    Attributes
    ----------
    before : Biadjacency
        Of the old users and items.
    train : Biadjacency
        Of all.
    """

    before: Biadjacency
    train: Biadjacency

    @cached_property
    def old(self) -> np.ndarray:
        """(num_nodes,) bool: the users and items that there were, users first."""
        users, items = np.arange(self.train.num_users), np.arange(self.train.num_items)
        return np.concatenate([users < self.before.num_users, items < self.before.num_items])

    @cached_property
    def widened(self) -> Biadjacency:
        """The old interactions among all users and items."""
        return Biadjacency.from_sorted(self.before.users, self.before.items, self.train.num_users, self.train.num_items)

    def spread(self, values: np.ndarray, new: int) -> np.ndarray:
        """(num_nodes,): the values of the old nodes, (old num_nodes,), and one for each new node."""
        found = np.full(self.train.num_nodes, new, values.dtype)
        found[self.old] = values
        return found
