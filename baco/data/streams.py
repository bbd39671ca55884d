"""Streams: interactions in the order of time, cut into segments, each of which is the test of what came before it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from baco.data.interactions import Interactions
from baco.data.splits import latest_of_users
from baco.errors import SettingError, UserError

FEWEST_SEGMENTS = 3  # one to begin with, one to learn from, and one that is only a test


@dataclass(frozen=True, eq=False)
class Events:
    """Interactions in the order of time; no pair comes twice.

    Attributes
    ----------
    name : str
        Of the dataset.
    users, items : (E,) integers
    user_ids, item_ids : arrays, or None
        The ids of the source, by number; None: the numbers are they.
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray | None = None
    item_ids: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Stream:
    """Events in segments (Qu et al., CIKM 2024, arXiv 2407.15411, Section 5.1).

    A segment ends where so many ids have come that were not there before. Ids are numbered as they arrive, so that
    those of a segment and of all before it are the numbers below `num_users[t]` and `num_items[t]`.

    Attributes
    ----------
    name : str
    users, items : (E,) int32
        In the order of time.
    segments : (E,) int32
        The segment of each, ascending.
    num_users, num_items : (S,) int64
        How many ids there are at the end of each segment.
    user_ids, item_ids : arrays
        The ids of the source in the order of their arrival.
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    segments: np.ndarray
    num_users: np.ndarray
    num_items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray

    @classmethod
    def cut(cls, events: Events, first: float, new_ids: float) -> Stream:
        """Cut a new segment before each interaction that would bring more ids than the present one may have.

        An interaction of a new user with a new item brings two ids at once: a segment may end one short, and the next
        one then has one more.

        Parameters
        ----------
        first, new_ids : float
            Ids, users and items together, of the first segment, and new ones of each that follows; the last may have
            fewer. Below 1: a part of all ids.

        Raises
        ------
        UserError
            When a size is no number of ids, or there are too few segments.
        """
        users, user_order, new_users = _by_arrival(events.users)
        items, item_order, new_items = _by_arrival(events.items)
        total = len(user_order) + len(item_order)
        begin, step = _number_of_ids("first", first, total), _number_of_ids("new_ids", new_ids, total)
        there = np.cumsum(new_users.astype(np.int64) + new_items)
        segments = np.where(there <= begin, 0, 1 + (there - begin - 1) // step).astype(np.int32)
        num_segments = int(segments[-1]) + 1
        if num_segments < FEWEST_SEGMENTS:
            raise UserError(
                f"dataset '{events.name}': its {total:,} ids make {num_segments} segments, and a stream needs "
                f"{FEWEST_SEGMENTS}; lower first={first} or new_ids={new_ids}"
            )
        ends = np.searchsorted(segments, np.arange(num_segments), side="right")
        return cls(
            events.name,
            users,
            items,
            segments,
            np.cumsum(new_users)[ends - 1],
            np.cumsum(new_items)[ends - 1],
            user_order if events.user_ids is None else events.user_ids[user_order],
            item_order if events.item_ids is None else events.item_ids[item_order],
        )

    @property
    def num_steps(self) -> int:
        """The segments that are followed by another one: all can be trained on, and the next one tested on."""
        return len(self.num_users) - 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the interactions and their segments."""
        digest = hashlib.sha256()
        for array in (self.users, self.items, self.segments):
            digest.update(array.astype("<i4", copy=False).tobytes())
        return digest.hexdigest()

    def step(self, segment: int, val_share: float) -> Interactions:
        """The dataset after a segment: the ids that are there by then, and what is known of them.

        The test is the next segment, less what is of ids that are not there yet: nobody can recommend to a user of
        whom nothing is known. Validation is a part of the newest segment, the latest interactions of each user there;
        it joins the training in the next step. Training is all the rest up to the segment.

        Parameters
        ----------
        val_share : float
            See `latest_of_users`.

        Raises
        ------
        UserError
            When no interaction is left for the validation or the test.
        """
        num_users, num_items = int(self.num_users[segment]), int(self.num_items[segment])
        known = np.flatnonzero(self.segments <= segment)
        newest = np.flatnonzero(self.segments == segment)
        held_out = newest[latest_of_users(self.users[newest], val_share)]
        coming = np.flatnonzero(self.segments == segment + 1)
        coming = coming[(self.users[coming] < num_users) & (self.items[coming] < num_items)]
        for places, what in ((held_out, "for a validation"), (coming, "to be tested on the next one")):
            if len(places) == 0:
                raise UserError(
                    f"dataset '{self.name}': segment {segment} of {len(self.num_users)} leaves nothing {what}: no user "
                    "and item that are there have enough interactions; raise first or new_ids, for longer segments"
                )
        splits = {"train": np.setdiff1d(known, held_out, assume_unique=True), "val": held_out, "test": coming}
        return Interactions.from_pairs(
            self.name,
            {split: np.stack([self.users[places], self.items[places]]) for split, places in splits.items()},
            num_users,
            num_items,
            self.user_ids[:num_users],
            self.item_ids[:num_items],
        )


def _by_arrival(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids numbered as they arrive, (E,) int32; which the old ones were; and where each arrives, (E,) bool."""
    distinct, first, place = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(distinct), np.int32)
    number[order] = np.arange(len(distinct))
    arrives = np.zeros(len(ids), bool)
    arrives[first] = True
    return number[place], distinct[order], arrives


def _number_of_ids(key: str, value: float, total: int) -> int:
    if 0 < value < 1:
        return math.ceil(value * total)
    if value < 2 or not float(value).is_integer():  # an interaction may bring two
        raise SettingError(key, value, "must be a part of all ids, below 1, or a whole number of them, 2 or more")
    return int(value)
