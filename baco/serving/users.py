"""Whom a recommender serves: the users that it was trained on, or new ones, from their interactions alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import normalize

from baco.data.interactions import Interactions
from baco.errors import UserError, unknown
from baco.graph import Biadjacency, Neighbors

log = logging.getLogger(__name__)

COLUMNS = ("user", "item")


@dataclass(frozen=True, eq=False)
class Users:
    """Users by position: who they are, what they have, and the embeddings that rank for them.

    Attributes
    ----------
    ids : (n,) array
        Integers or text.
    rows : (n, dim) float32
        Final embeddings.
    known : Neighbors
        Their items, which are left out.
    source : str
        Where their interactions come from, in messages.
    """

    ids: np.ndarray
    rows: Tensor
    known: Neighbors
    source: str

    @cached_property
    def position(self) -> dict[str, int]:
        """Of each user, by its id as text."""
        return positions(self.ids)

    def numbers(self, users: Iterable | None) -> np.ndarray:
        """(m,) int64: the positions of some users by their ids, as they are or as text; None: of all."""
        if users is None:
            return np.arange(len(self.ids))
        texts = [str(user) for user in users]
        stranger = next((text for text in texts if text not in self.position), None)
        if stranger is not None:
            raise UserError(f"user '{stranger}' has no interaction in {self.source}; such as '{self.ids[0]}' have")
        return np.array([self.position[text] for text in texts], np.int64)


class FoldIn:
    """Embeddings of new users without training.

    A new user stands at the mean, over its items, of the mean final embedding of the users of an item: where people who
    chose the same are. Those users have been through training and propagation, so that one rule serves every backbone
    and method. The mean of its items' own embeddings, a simpler rule, most often ranks worse; docs/use.md has numbers.
    Under cosines the result has length 1, as all others. With dot products it is shorter than a trained user's; no
    ranking depends on that.

    An item's users are those of the training split. Items that have none tell nothing.

    Parameters
    ----------
    data : Interactions
    trained : Users
        Those of the data.
    score : str
        As the backbone's.
    """

    def __init__(self, data: Interactions, trained: Users, score: str):
        self._data, self._trained, self._score = data, trained, score
        _, self._item_ids = original_ids(data)
        self._item_position = positions(self._item_ids)
        of_items = csr_array(data.train.to_matrix().T)
        self._audience, self._has_users = means_over(of_items, trained.rows.detach().cpu().numpy())

    def __call__(self, interactions: pd.DataFrame) -> Users:
        """The new users of some interactions, in the order in which they come up.

        Interactions with items that the training did not have are left out with a warning, and so are users who have no
        others: in a log of today there are always some, and the rest of a user's items still says what it likes.

        Parameters
        ----------
        interactions : DataFrame
            `user` and `item`, ids as in the source of the data.

        Raises
        ------
        UserError
            When a column or an id is missing, a user is in the data already, or nobody has an item of the training.
        """
        data = self._data
        user_ids, item_ids = (texts_of(interactions, column) for column in COLUMNS)
        users, texts = pd.factorize(np.array(user_ids, object))
        old = next((text for text in texts if text in self._trained.position), None)
        if old is not None:
            raise UserError(
                f"user '{old}' of the interactions is in '{data.name}' already; leave its rows out, or give it another "
                "id if it is somebody else"
            )
        items = np.array([self._item_position.get(text, -1) for text in item_ids], np.int64)
        useful = (items >= 0) & self._has_users[items]
        self._warn(item_ids, users, useful)
        served = np.zeros(len(texts), bool)
        served[users[useful]] = True
        if not served.any():
            raise UserError(
                f"no item of the interactions is in the training of '{data.name}', which has such as "
                f"'{self._item_ids[np.argmax(self._has_users)]}'"
            )
        place = np.cumsum(served) - 1
        listed = served[users] & (items >= 0)
        graph = Biadjacency.from_pairs(place[users[listed]], items[listed], int(served.sum()), data.num_items)
        means, _ = means_over(graph.to_matrix(), self._audience, self._has_users)
        rows = torch.as_tensor(means, device=self._trained.rows.device)
        first = np.unique(users, return_index=True)[1]
        ids = np.asarray(interactions["user"])[first[served]]
        return Users(ids, normalize(rows) if self._score == "cosine" else rows, graph.by_user, "the interactions given")

    def _warn(self, item_ids: list[str], users: np.ndarray, useful: np.ndarray) -> None:
        if useful.all():
            return
        left_out = len(np.unique(users)) - len(np.unique(users[useful]))
        log.warning(
            "%d of %d interactions are with items that are not in the training of '%s', such as '%s', and count for "
            "nothing; %d users have no others and get no recommendations",
            np.count_nonzero(~useful),
            len(useful),
            self._data.name,
            item_ids[int(np.argmin(useful))],
            left_out,
        )


def means_over(matrix: csr_array, rows: np.ndarray, there: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The mean of rows over the ones of each line of a matrix, zeros without any, and whether it has some.

    Parameters
    ----------
    matrix : (n, m) of ones
    rows : (m, dim) float32
        Zeros where they are not there.
    there : (m,) bool, optional
        Which rows there are; None: all.

    Returns
    -------
    (n, dim) float32 and (n,) bool
    """
    counts = matrix.sum(axis=1) if there is None else matrix @ there.astype(np.float32)
    means = (matrix @ rows) / np.maximum(counts, 1).astype(np.float32)[:, None]
    return means.astype(np.float32), counts > 0


def original_ids(data: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """The ids of users and items in the source; positions, where it had none."""
    if data.user_ids is None or data.item_ids is None:
        return np.arange(data.num_users), np.arange(data.num_items)
    return data.user_ids, data.item_ids


def positions(ids: np.ndarray) -> dict[str, int]:
    """The position of each id, as text."""
    return {str(one): number for number, one in enumerate(ids)}


def texts_of(interactions: pd.DataFrame, column: str) -> list[str]:
    """The ids of a column as text."""
    if column not in interactions:
        raise unknown("interactions: column", column, [str(name) for name in interactions])
    missing = interactions[column].isna().to_numpy()
    if missing.any():
        raise UserError(f"the interactions have no {column} in row {int(np.argmax(missing))}")
    return [str(one) for one in interactions[column]]
