"""The uncompressed model."""

from __future__ import annotations

import numpy as np

from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor
from baco.compressors.growth import Growth
from baco.compressors.runner import Runner, TrainingReport
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment
from baco.graph import Biadjacency
from baco.registry import register_method


@register_method("full")
class Full(CodeCompressor):
    """One row per user and per item. Parameters: dim * (num_users + num_items), whatever the budget."""

    label = "Full model"
    has_budget = False

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        return Assignment.of_own_rows(train.num_users, train.num_items)

    def update(self, old: Assignment, growth: Growth, budget: Budget, threshold: float) -> Assignment:
        return Assignment.of_own_rows(growth.train.num_users, growth.train.num_items)


def full_tables(train: Biadjacency, dim: int) -> CodebookTables:
    """The uncompressed tables, before their first values are drawn."""
    return CodebookTables(Assignment.of_own_rows(train.num_users, train.num_items), dim)


def trained_full(runner: Runner, dim: int) -> tuple[CodebookTables, TrainingReport]:
    """The full model and how it was trained, for methods that compress what it learns."""
    full = runner.initialize(full_tables(runner.train, dim))
    return full, runner.fit_full(full)
