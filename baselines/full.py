"""The uncompressed model."""

from __future__ import annotations

import numpy as np

from baco.budget import Budget
from baco.codes import Assignment, Codes, Identity
from baco.compressor import CodeCompressor
from baco.graph import Biadjacency
from baco.registry import register_method


@register_method("full")
class Full(CodeCompressor):
    """One row per user and per item. Parameters: dim * (num_users + num_items), whatever the budget."""

    label = "Full model"
    has_budget = False

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        return Assignment(
            Codes.from_rule(Identity(), train.num_users, train.num_users),
            Codes.from_rule(Identity(), train.num_items, train.num_items),
        )
