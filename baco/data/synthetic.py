"""A generator with planted co-clusters and power-law degrees, so that everything can be tried without a download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baco.data.interactions import SPLITS, Interactions
from baco.data.splits import random_split
from baco.errors import SettingError
from baco.rng import stream
from baco.validation import Validated, setting


@dataclass(frozen=True)
class Synthetic(Validated):
    """A degree-corrected bipartite block model (Larremore, Clauset, Jacobs, Phys. Rev. E 90, 012805, 2014).

    Every user has a main and a second co-cluster, every item one. An interaction belongs to a user drawn in proportion
    to its activity; its item is drawn in proportion to popularity, from the user's main co-cluster, from the second
    one, or from all items. Activity and popularity follow a power law.

    Attributes
    ----------
    name, budget : the name in records, and the default budget (a ratio, or rows)
    num_users, num_items, num_interactions, num_clusters : int
    main_share, second_share : float
        Shares of interactions inside the user's main and second co-cluster; the rest is noise.
    exponent : float
        Of the power law of activity and popularity.
    data_seed : int
        Seed of the data and of its split; apart from `seed`, so that runs with several seeds share their data.
    """

    name: str = "synthetic"
    budget: float | None = None
    num_users: int = setting(6000, at_least=1)
    num_items: int = setting(4000, at_least=1)
    num_interactions: int = setting(150_000, at_least=10)
    num_clusters: int = setting(60, at_least=1)
    main_share: float = setting(0.6, at_least=0)
    second_share: float = setting(0.25, at_least=0)
    exponent: float = setting(2.5, above=2)  # below, the mean degree is infinite
    data_seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.num_clusters > min(self.num_users, self.num_items):
            raise SettingError("num_clusters", self.num_clusters, "is more than there are users or items")
        most = self.num_users * self.num_items // 4
        if self.num_interactions > most:
            raise SettingError(
                "num_interactions", self.num_interactions, f"is more than a quarter of all pairs, {most}"
            )
        if self.main_share + self.second_share > 1:
            raise SettingError(
                "main_share", self.main_share, f"and second_share={self.second_share} must be 1 at most together"
            )

    def load(self, data_dir: Path) -> Interactions:
        """Draw the data and split it 80/10/10 at random; nothing is read or written."""
        users, items = self.draw_pairs(stream(self.data_seed, "synthetic"))
        parts = random_split(len(users), 0.1, 0.1, stream(self.data_seed, "split"))
        pairs = np.stack([users, items])
        return Interactions.from_pairs(
            self.name, {split: pairs[:, parts[split]] for split in SPLITS}, self.num_users, self.num_items
        )

    def draw_pairs(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`num_interactions` distinct pairs, as two int64 arrays in random order."""
        activity = self._power_law(self.num_users, rng)
        popularity = self._power_law(self.num_items, rng)
        clusters = rng.integers(self.num_clusters, size=(self.num_users, 2))
        others = rng.integers(self.num_clusters, size=self.num_items - self.num_clusters)
        item_cluster = np.sort(np.concatenate([np.arange(self.num_clusters), others]))  # every co-cluster has an item
        first_item = np.searchsorted(item_cluster, np.arange(self.num_clusters + 1))
        cumulative = np.concatenate([[0], np.cumsum(popularity)])
        shuffled = rng.permutation(self.num_items)  # item ids tell nothing about co-clusters
        keys = np.empty(0, np.int64)
        while len(keys) < self.num_interactions:
            count = 2 * (self.num_interactions - len(keys)) + 100
            users = np.searchsorted(np.cumsum(activity), rng.random(count) * activity.sum(), side="right")
            users = np.minimum(users, self.num_users - 1)
            kind = rng.random(count)
            cluster = np.where(kind < self.main_share, clusters[users, 0], clusters[users, 1])
            everywhere = kind >= self.main_share + self.second_share
            low = np.where(everywhere, 0, first_item[cluster])
            high = np.where(everywhere, self.num_items, first_item[cluster + 1])
            point = cumulative[low] + rng.random(count) * (cumulative[high] - cumulative[low])
            items = np.clip(np.searchsorted(cumulative, point, side="right") - 1, low, high - 1)
            drawn = np.concatenate([keys, users * self.num_items + shuffled[items]])
            _, first = np.unique(drawn, return_index=True)
            if len(first) - len(keys) < count / 1000:
                raise SettingError(
                    "num_interactions",
                    self.num_interactions,
                    "is more than co-clusters of this size hold; lower it, or num_clusters",
                )
            keys = drawn[np.sort(first)]
        keys = keys[: self.num_interactions]
        return keys // self.num_items, keys % self.num_items

    def _power_law(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """(size,) float64 weights with P(weight > x) = x^(1 - exponent), at most 100 times the least."""
        return np.minimum((1 - rng.random(size)) ** (1 / (1 - self.exponent)), 100.0)
