"""Recommendations from an exported model: what a server does with the file that `export_model` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from baco.data.interactions import SPLITS, Interactions
from baco.errors import UserError
from baco.evaluation.evaluator import tie_order
from baco.evaluation.ranking import NO_ITEM, rank_in_blocks
from baco.files import from_json_array
from baco.serving.export import load_backbone, load_data, load_tables, read_export
from baco.serving.users import FoldIn, Users, original_ids

PAIRS = 2**18  # whose scores are worked out at once
BLOCK = 2**14  # users of a block


class Recommender:
    """The final embeddings of a model, and what its users have already.

    Parameters
    ----------
    data : Interactions
    users, items : (num_users, dim) and (num_items, dim) float32
        Final embeddings, whose dot products are the scores.
    score : str
        As the backbone's: 'dot', or 'cosine' where all embeddings have length 1.
    """

    def __init__(self, data: Interactions, users: Tensor, items: Tensor, score: str = "dot"):
        self.data, self.users, self.items, self.score = data, users, items, score
        user_ids, self._item_ids = original_ids(data)
        self._trained = Users(user_ids, users, data.union(SPLITS).by_user, f"'{data.name}'")
        self._tie_order = tie_order(data.num_items)

    @classmethod
    def load(cls, path: str | Path, data_dir: str | Path) -> Recommender:
        """Read what `export_model` wrote, of any method, and propagate over the data that it was trained on.

        Parameters
        ----------
        path : file
        data_dir : folder
            Where the prepared datasets lie, as in training. A log of one's own is needed only if it is not there.

        Raises
        ------
        UserError
            When the file is no export, or the data are missing or have changed.
        """
        arrays = read_export(path)
        model = from_json_array(arrays["model"])
        data = load_data(arrays, path, Path(data_dir))
        tables = load_tables(arrays)
        del arrays  # they would stay beside the tables while these are propagated
        backbone = load_backbone(model["config"], data.train)
        with torch.no_grad():
            users, items = backbone.final_embeddings(tables)
        return cls(data, users, items, backbone.score)

    def recommend(
        self, users: Iterable | None = None, k: int = 20, interactions: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """The best items that users do not have yet.

        Parameters
        ----------
        users : iterable, optional
            Their ids, as the data have them or as text; None: all.
        k : int
            Items for each user; fewer where a user has nearly all.
        interactions : DataFrame, optional
            `user` and `item`, of users who were not in training: `users` are then some of these, None: all, in the
            order in which they come up. `baco.serving.users.FoldIn` has the rule.

        Returns
        -------
        DataFrame : `user`, `rank` from 1, `item`, `score`; ids are those of the source where it had its own.

        Raises
        ------
        UserError
            When the data, or the interactions, do not have a user, or the interactions are no new users'.
        """
        group, numbers = self._asked(users, k, interactions)
        (found,) = self._frames(group, numbers, k, max(len(numbers), 1))
        return found

    def recommend_in_blocks(
        self, users: Iterable | None = None, k: int = 20, interactions: pd.DataFrame | None = None
    ) -> Iterator[pd.DataFrame]:
        """What `recommend` returns, for `BLOCK` users at a time: only the present block is in memory.

        Wrong arguments raise `UserError` at the call.
        """
        group, numbers = self._asked(users, k, interactions)
        return self._frames(group, numbers, k, BLOCK)

    def _asked(self, users: Iterable | None, k: int, interactions: pd.DataFrame | None) -> tuple[Users, np.ndarray]:
        """Whom to rank for, and where they stand among those that are served."""
        if not isinstance(k, Integral) or k < 1:
            raise UserError(f"k={k} must be a whole number, 1 or more")
        group = self._trained if interactions is None else self._fold_in(interactions)
        return group, group.numbers(users)

    def _frames(self, group: Users, numbers: np.ndarray, k: int, size: int) -> Iterator[pd.DataFrame]:
        """The best items of users by their numbers, `size` of them at a time; at least one frame."""
        blocks = rank_in_blocks(group.rows, self.items, numbers, group.known, self._tie_order, k, size)
        for place, ranked in enumerate(blocks):
            row, rank = np.nonzero(ranked != NO_ITEM)
            user, item = numbers[place * size + row], ranked[row, rank]
            yield pd.DataFrame(
                {
                    "user": group.ids[user],
                    "rank": rank + 1,
                    "item": self._item_ids[item],
                    "score": self._scores(group.rows, user, item),
                }
            )

    def _scores(self, rows: Tensor, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(pairs,) float32, by blocks: the embeddings of all pairs would fill the memory."""
        scores = np.empty(len(users), np.float32)
        for start in range(0, len(users), PAIRS):
            block = slice(start, start + PAIRS)
            scores[block] = (rows[users[block]] * self.items[items[block]]).sum(1)
        return scores

    @cached_property
    def _fold_in(self) -> FoldIn:
        return FoldIn(self.data, self._trained, self.score)
