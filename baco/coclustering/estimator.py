"""The co-clustering as an estimator, for one's own matrices and models."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np

from baco.coclustering.baco import Baco
from baco.coclustering.baco_plus import BacoPlus
from baco.compressors.budget import Budget
from baco.compressors.popularity import budget_beside, check_popularity, popularity_scale, scaled
from baco.embedding.codebook import CodebookTables
from baco.embedding.cost import code_ledger
from baco.embedding.start import first_values
from baco.errors import UserError, unknown
from baco.graph import Biadjacency
from baco.runs.settings import typed

METHODS = {method.name: method for method in (BacoPlus, Baco)}


@dataclass
class BalancedCoClustering:
    """Co-cluster the rows (users) and columns (items) of an interaction matrix under a budget.

    Parameters
    ----------
    budget : float or int
        What both embedding tables may cost: a ratio of the uncompressed ones in (0, 1], or a number of rows.
    dim : int
        Width of the embeddings that the codes are for; a further code costs one parameter, a row `dim`.
    method : str
        'baco_plus', or 'baco' as published.
    settings : dict
        Of the method: see its `Config`.
    popularity : float
        Exponent of a scale of the columns' embeddings (`baco.compressors.popularity`), one parameter each. 0.25 serves
        models that score by a dot product of these embeddings; 0, no scale, those that propagate them.
    random_state : int
        Seed; equal seeds give equal codes.

    Attributes
    ----------
    row_labels_, column_labels_ : (n_rows,) and (n_columns,) int32
        The co-cluster of each row and column; equal numbers are one co-cluster.
    assignment_ : Assignment
        The codes of both sides.
    resolution_ : float
        The resolution that was found or given.

    Examples
    --------
    >>> import numpy as np
    >>> blocks = np.kron(np.eye(2), np.ones((3, 3)))
    >>> model = BalancedCoClustering(budget=4, settings={"resolution": 1.0}).fit(blocks)
    >>> len(set(model.row_labels_)), len(set(model.column_labels_))
    (2, 2)
    """

    budget: float = 0.25
    dim: int = 64
    method: str = "baco_plus"
    settings: dict = field(default_factory=dict)
    popularity: float = 0.0
    random_state: int = 0

    def fit(self, matrix, y=None) -> BalancedCoClustering:
        """Co-cluster a SciPy sparse matrix or a dense array; nonzero entries are interactions.

        Raises
        ------
        UserError
            When the matrix has no interactions or NaN entries, the method, a setting or a value is wrong, or the budget
            cannot be met.
        """
        self._check()
        try:
            return self._fit(matrix)
        except UserError as error:  # which may name a key of the command line
            raise UserError(str(error).replace("method.", "settings.")) from None

    def _check(self) -> None:
        for key, kind, least in (("dim", Integral, 1), ("random_state", Integral, 0), ("budget", Real, 0)):
            value = getattr(self, key)
            if not isinstance(value, kind) or value < least:
                what = "a whole number" if kind is Integral else "a number"
                raise UserError(f"{key}={value!r} must be {what} of {least} or more")
        if not isinstance(self.popularity, Real):
            raise UserError(f"popularity={self.popularity!r} must be a number")
        check_popularity(self.popularity)
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        if not isinstance(self.settings, dict):
            raise UserError(f"settings={self.settings!r} must be a dictionary of settings of the method")

    def _fit(self, matrix) -> BalancedCoClustering:
        method = METHODS[self.method]
        config = typed(method.Config, self.settings, "settings.")
        graph = Biadjacency.from_matrix(matrix)
        budget = Budget.parse(self.budget, "parameters", graph.num_users, graph.num_items, self.dim)
        rng = np.random.default_rng(self.random_state)
        scale = popularity_scale(graph.item_degrees, self.popularity)
        assignment = method(config).assign(graph, budget_beside(scale, budget), rng)
        assignment = scaled(assignment, scale)
        budget.check(code_ledger(assignment, self.dim), method.name)
        self._graph = graph
        self.assignment_ = assignment
        self.resolution_ = assignment.details["resolution"]
        self.row_labels_, self.column_labels_ = np.split(assignment.labels, [graph.num_users])
        return self

    def tables(self, std: float = 0.1, start: str = "spectral") -> CodebookTables:
        """Embedding tables with these codes and their first values, for training in a model of one's own.

        Parameters
        ----------
        std, start : see `baco.embedding.start.first_values`

        Raises
        ------
        UserError
            Before `fit`.
        """
        if not hasattr(self, "assignment_"):
            raise UserError("there are no codes yet; call fit first")
        tables = CodebookTables(self.assignment_, self.dim)
        first_values(tables, self._graph, std, start, self.random_state)
        return tables
