"""Hashing: codes that are functions of the id alone."""

from __future__ import annotations

import numpy as np

from baco.budget import Budget, split_rows
from baco.codes import AffineHash, Assignment, Codes
from baco.compressor import CodeCompressor
from baco.graph import Biadjacency
from baco.registry import register_method


@register_method("random")
class RandomHash(CodeCompressor):
    """One hash per id (feature hashing: Weinberger et al., ICML 2009).

    Rows are shared between the sides in proportion to their numbers of ids. Parameters: dim * rows.

    Deviation from the published comparison, whose 'random' is id modulo rows: ids are permuted first, by a seeded
    affine map, so that the spread over seeds is that of the method. Both fill all rows evenly.
    """

    label = "Random"

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        users, items = AffineHash.draw(1, train.num_users, rng), AffineHash.draw(1, train.num_items, rng)
        stored = sum(array.nbytes for rule in (users, items) for array in rule.arrays().values())
        user_rows, item_rows = split_rows(budget.rows(extra_bytes=stored), train.num_users, train.num_items)
        return Assignment(
            Codes.from_rule(users, train.num_users, user_rows), Codes.from_rule(items, train.num_items, item_rows)
        )
