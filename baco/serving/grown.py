"""Data that grow: new interactions, users and items, after those that were there."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from baco.data.interactions import SPLITS, Interactions
from baco.errors import UserError
from baco.serving.users import COLUMNS, original_ids, positions, texts_of

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,19}")  # as they are written when they are made text


@dataclass(frozen=True)
class Added:
    """What a log brought.

    Attributes
    ----------
    interactions : int
        Pairs that were not there.
    repeated : int
        Rows whose pair was there, or stands in an earlier row.
    users, items : int
        Ids that were not there.
    """

    interactions: int
    repeated: int
    users: int
    items: int


def grown(data: Interactions, interactions: pd.DataFrame) -> tuple[Interactions, Added]:
    """The data with more training interactions, and what was added. Validation and test stay as they are.

    New ids are numbered after those that were there, in the order in which they come up.

    Parameters
    ----------
    interactions : DataFrame
        `user` and `item`, ids as in the source of the data. Pairs that the data have already, in any split, change
        nothing.

    Raises
    ------
    UserError
        When a column or an id is missing, an id is not of the kind of the others, or nothing is new.
    """
    if len(interactions) == 0:
        raise UserError("the log has no interactions; there is nothing to update with")
    sides, all_ids = [], []
    for column, ids in zip(COLUMNS, original_ids(data), strict=True):
        numbers, new = _numbered(texts_of(interactions, column), ids)
        sides.append(numbers)
        all_ids.append(_joined(column, ids, new))
    users, items = sides
    if users.min() >= data.num_users and items.min() >= data.num_items:
        raise UserError(
            f"the log has no user and no item of '{data.name}', whose users are such as '{original_ids(data)[0][0]}'; "
            "is it a log of other data?"
        )
    user_ids, item_ids = all_ids
    num_users, num_items = len(user_ids), len(item_ids)
    there = data.union(SPLITS)
    keys = np.unique(users.astype(np.int64) * num_items + items)
    fresh = np.setdiff1d(keys, there.users.astype(np.int64) * num_items + there.items, assume_unique=True)
    if len(fresh) == 0:
        raise UserError(f"the log has no interaction that '{data.name}' does not have; there is nothing to update with")
    pairs = {split: np.stack([getattr(data, split).users, getattr(data, split).items]) for split in SPLITS}
    pairs["train"] = np.concatenate([pairs["train"], np.stack([fresh // num_items, fresh % num_items])], axis=1)
    found = Interactions.from_pairs(data.name, pairs, num_users, num_items, user_ids, item_ids)
    added = Added(len(fresh), len(interactions) - len(fresh), num_users - data.num_users, num_items - data.num_items)
    return found, added


def _numbered(texts: list[str], ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(rows,) int64: the position of each id among `ids`, or after them, in the order in which new ones come up."""
    place = positions(ids)
    codes, distinct = pd.factorize(np.array(texts, object))
    new = [text for text in distinct if text not in place]
    place |= {text: len(ids) + number for number, text in enumerate(new)}
    return np.array([place[text] for text in distinct], np.int64)[codes], new


def _joined(side: str, ids: np.ndarray, new: list[str]) -> np.ndarray:
    """Old ids and new ones, which must be of the old ones' kind."""
    if ids.dtype.kind not in "iu":
        text = np.dtypes.StringDType()
        return np.concatenate([ids.astype(text), np.array(new, text)])
    kind = np.dtype(np.uint64 if ids.dtype == np.uint64 else np.int64)
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    for one in new:
        if not INTEGER.fullmatch(one) or not least <= int(one) <= most:
            raise UserError(f"the {side} id '{one}' of the log is no integer, as those of the export are")
    return np.concatenate([ids.astype(kind), np.array([int(one) for one in new], kind)])
