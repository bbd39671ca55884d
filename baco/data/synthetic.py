"""A generator with planted co-clusters and power-law degrees, so that everything can be tried without a download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from baco.data.interactions import SPLITS, Interactions
from baco.data.splits import random_split
from baco.data.streams import Events
from baco.errors import SettingError
from baco.rng import stream
from baco.validation import Validated, setting

PERIODS = 20  # of a stream, within which nothing changes


class _World(NamedTuple):
    """What interactions are drawn from."""

    activity: np.ndarray  # (num_users,) float64
    popularity: np.ndarray  # (num_items,) float64, of the items in the order of their co-clusters
    clusters: np.ndarray  # (num_users, 2) int64: the main co-cluster and the second one
    first_item: np.ndarray  # (num_clusters + 1,) int64: where those of each co-cluster begin
    shuffled: np.ndarray  # (num_items,) int64: the ids of items


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
    from_start, drift : float
        Of a stream, see `load_events`: the part of users and items that is there when it begins, and of the users whose
        interests change from one period to the next.
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
    from_start: float = setting(0.4, at_least=0, at_most=1)
    drift: float = setting(0.05, at_least=0, at_most=1)

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

    def load_events(self) -> Events:
        """Draw the data as a stream: users and items come one after the other, and users' interests drift.

        Time has `PERIODS` parts of as many interactions each. In the k-th, counted from 0, those are there who were
        from the start and k of as many equal parts of the others; who is there has interactions in proportion to its
        activity or popularity, as in `load`. After each part, the share `drift` of the users turns to another main
        co-cluster, and the former one becomes the second.
        """
        rng = stream(self.data_seed, "synthetic")
        world, keys = self._plant(rng), np.empty(0, np.int64)
        for period in range(PERIODS):
            there = self.from_start + (1 - self.from_start) * period / (PERIODS - 1)
            present = _World(
                np.where(np.arange(self.num_users) < max(1, there * self.num_users), world.activity, 0.0),
                np.where(world.shuffled < max(1, there * self.num_items), world.popularity, 0.0),
                *world[2:],
            )
            keys = self._draw(present, keys, self.num_interactions * (period + 1) // PERIODS, rng)
            drifting = rng.random(self.num_users) < self.drift
            world.clusters[drifting, 1] = world.clusters[drifting, 0]
            world.clusters[drifting, 0] = rng.integers(self.num_clusters, size=np.count_nonzero(drifting))
        return Events(self.name, keys // self.num_items, keys % self.num_items)

    def draw_pairs(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`num_interactions` distinct pairs, as two int64 arrays in random order."""
        keys = self._draw(self._plant(rng), np.empty(0, np.int64), self.num_interactions, rng)
        return keys // self.num_items, keys % self.num_items

    def _plant(self, rng: np.random.Generator) -> _World:
        activity = self._power_law(self.num_users, rng)
        popularity = self._power_law(self.num_items, rng)
        clusters = rng.integers(self.num_clusters, size=(self.num_users, 2))
        others = rng.integers(self.num_clusters, size=self.num_items - self.num_clusters)
        item_cluster = np.sort(np.concatenate([np.arange(self.num_clusters), others]))  # every co-cluster has an item
        first_item = np.searchsorted(item_cluster, np.arange(self.num_clusters + 1))
        shuffled = rng.permutation(self.num_items)  # item ids tell nothing about co-clusters
        return _World(activity, popularity, clusters, first_item, shuffled)

    def _draw(self, world: _World, keys: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
        """(total,) int64 distinct pairs, user * num_items + item: those of `keys`, and new ones after them."""
        activity, popularity, clusters, first_item, shuffled = world
        cumulative = np.concatenate([[0], np.cumsum(popularity)])
        while len(keys) < total:
            count = 2 * (total - len(keys)) + 100
            users = np.searchsorted(np.cumsum(activity), rng.random(count) * activity.sum(), side="right")
            users = np.minimum(users, np.flatnonzero(activity)[-1])
            kind = rng.random(count)
            cluster = np.where(kind < self.main_share, clusters[users, 0], clusters[users, 1])
            empty = cumulative[first_item[cluster + 1]] == cumulative[first_item[cluster]]  # none of its items is there
            everywhere = empty | (kind >= self.main_share + self.second_share)
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
        return keys[:total]

    def _power_law(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """(size,) float64 weights with P(weight > x) = x^(1 - exponent), at most 100 times the least."""
        return np.minimum((1 - rng.random(size)) ** (1 / (1 - self.exponent)), 100.0)
