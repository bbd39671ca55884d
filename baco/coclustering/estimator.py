"""The co-clustering as an estimator, for one's own matrices and models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baco.budget import Budget
from baco.coclustering.cocluster import cocluster
from baco.coclustering.method import Baco
from baco.graph import Biadjacency
from baco.tables import code_ledger


@dataclass
class BalancedCoClustering:
    """Co-cluster the rows (users) and columns (items) of an interaction matrix under a budget.

    Parameters
    ----------
    budget : float or int
        What both embedding tables may cost: a ratio of the uncompressed ones in (0, 1], or a number of rows.
    dim : int
        Width of the embeddings that the codes are for; a second code costs one parameter, a row `dim`.
    solver, num_rounds, user_weight, item_weight, secondary, resolution
        See `baco.coclustering.cocluster.Settings` and `baco.coclustering.method.Baco`.
    random_state : int
        Seed; equal seeds give equal codes.

    Attributes
    ----------
    row_labels_, column_labels_ : (n_rows,) and (n_columns,) int32
        The co-cluster of each row and column; equal numbers are one co-cluster.
    assignment_ : Assignment
        The codes of both sides, for `baco.tables.CodebookTables`.
    resolution_ : float
        The resolution that was found or given.

    Examples
    --------
    >>> import numpy as np
    >>> blocks = np.kron(np.eye(2), np.ones((3, 3)))
    >>> model = BalancedCoClustering(budget=4, resolution=1.0).fit(blocks)
    >>> len(set(model.row_labels_)), len(set(model.column_labels_))
    (2, 2)
    """

    budget: float = 0.25
    dim: int = 64
    solver: str = "asynchronous"
    num_rounds: int | None = None
    user_weight: str = "degree"
    item_weight: str = "published"
    secondary: bool = True
    resolution: float | None = None
    random_state: int = 0

    def fit(self, matrix, y=None) -> BalancedCoClustering:
        """Co-cluster a SciPy sparse matrix or a dense array; nonzero entries are interactions.

        Raises
        ------
        UserError
            When the matrix has no interactions or NaN entries, or the budget cannot be met.
        """
        graph = Biadjacency.from_matrix(matrix)
        budget = Budget.parse(self.budget, "parameters", graph.num_users, graph.num_items, self.dim)
        method = Baco(
            Baco.Config(
                solver=self.solver,
                num_rounds=self.num_rounds,
                user_weight=self.user_weight,
                item_weight=self.item_weight,
                secondary=self.secondary,
                resolution=self.resolution,
                seed=self.random_state,
            )
        )
        assignment = method.assign(graph, budget, np.random.default_rng(self.random_state))
        budget.check(code_ledger(assignment, self.dim), method.name)
        clusters = cocluster(graph, assignment.details["resolution"], self.random_state, method.settings)
        self.assignment_ = assignment
        self.resolution_ = assignment.details["resolution"]
        self.row_labels_ = clusters.labels[: graph.num_users]
        self.column_labels_ = clusters.labels[graph.num_users :]
        return self
