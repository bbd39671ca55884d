"""What the methods that cluster users and items together share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from baco.coclustering.secondary import secondary_user_clusters
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget, split_rows
from baco.compressors.budget_search import Splitting, fill_budget
from baco.compressors.compressor import CodeCompressor
from baco.embedding.bits import packed_code_bytes
from baco.embedding.codes import Assignment, Codes
from baco.graph import Biadjacency
from baco.validation import Validated


class Clustering(CodeCompressor):
    """A method that labels users and items alike; those of one side with one label share a row.

    Parameters: dim * (user labels + item labels), plus the users with a second code where `secondary` is set.
    """

    @dataclass(frozen=True)
    class Config(Validated):
        """secondary : whether users get BACO's second codes (SCU) on top of this method's clusters."""

        secondary: bool = False

    config: Config

    def encode(self, train: Biadjacency, labels: np.ndarray, resolution: float | None = None, **details) -> Assignment:
        """Codes of a clustering.

        Parameters
        ----------
        labels : (num_nodes,) integers, users first
        resolution : float or None
            gamma of the second codes' score k(x, c) - gamma d_x D_V(c) / E, a link count less its expectation under
            degrees (Barber, 2007); that of the method, which the record then tells, or None where it has none: 1.
        details : plain values for the record
        """
        _, labels = np.unique(labels, return_inverse=True)
        labels = labels.astype(np.int32)
        users, items = labels[: train.num_users], labels[train.num_users :]
        second: tuple[np.ndarray, ...] = ()
        if self.config.secondary:
            weights = node_weights(train, "degree", "degree")
            second = (secondary_user_clusters(train, labels, weights, 1.0 if resolution is None else resolution),)
        if resolution is not None:
            details["resolution"] = resolution
        joint = labels if np.isin(users, items).any() else None  # methods may cluster the sides apart
        return Assignment(Codes.from_labels(users, *second), Codes.from_labels(items), details, joint)

    def splitting(self, train: Biadjacency) -> Splitting:
        """How clusters are split where the sizes jump over the budget: with the details of the whole ones."""
        return Splitting(train, lambda labels, details: self.encode(train, labels, **details))

    def stop_at_budget(
        self, train: Biadjacency, budget: Budget, run: Callable[[int], tuple[np.ndarray, dict]]
    ) -> Assignment:
        """Codes of a method that gives up rows one by one, stopped where they fit the budget.

        Parameters
        ----------
        run : callable
            From the most rows that are wanted to labels, and details for the record. It ends with more rows only where
            it has no way to fewer.
        """
        end: Assignment | None = None  # what it comes to when nothing stops it

        def at(rows: float) -> Assignment:
            nonlocal end
            if end is not None and rows < end.users.num_rows + end.items.num_rows:
                return end
            labels, details = run(int(rows))
            assignment = self.encode(train, labels, **details)
            if assignment.users.num_rows + assignment.items.num_rows > int(rows):
                end = assignment
            return assignment

        second = train.num_users if self.config.secondary else 0  # at most
        rows = max(2, budget.rows(extra_parameters=second))
        sides = zip(
            (train.num_users + second, train.num_items), split_rows(rows, train.num_users, train.num_items), strict=True
        )
        stored = sum(packed_code_bytes(codes, side_rows) for codes, side_rows in sides)
        start = max(2, budget.rows(extra_parameters=second, extra_bytes=stored))
        return fill_budget(at, budget, start, splitting=self.splitting(train))


class MatchedClustering(Clustering):
    """A clustering that finds its own size unless it is made to fill the budget."""

    @dataclass(frozen=True)
    class Config(Clustering.Config):
        """matched : fill the budget; else the size is what it is."""

        matched: bool = True

    config: Config

    def __init__(self, config: Config | None = None):
        super().__init__(config)
        self.has_budget = self.config.matched
