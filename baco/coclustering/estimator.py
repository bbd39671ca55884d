"""The co-clustering as an estimator, for one's own matrices and models."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from baco.coclustering.baco import Baco
from baco.coclustering.baco_plus import BacoPlus
from baco.coclustering.fold_in import FoldIn
from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor
from baco.compressors.popularity import popularity_scale, remaining_budget, scale_items
from baco.embedding.codebook import CodebookTables
from baco.embedding.cost import code_ledger
from baco.embedding.start import first_values
from baco.errors import SettingError, UserError, keys_under
from baco.graph import Biadjacency
from baco.validation import build_settings, check_settings, setting

METHODS: dict[str, type[CodeCompressor]] = {method.name: method for method in (BacoPlus, Baco)}


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

    budget: float = setting(0.25, above=0)
    dim: int = setting(64, at_least=1)
    method: str = setting("baco_plus", one_of=METHODS)
    settings: dict = field(default_factory=dict)
    popularity: float = setting(0.0, at_least=0, at_most=1)
    random_state: int = setting(0, at_least=0)

    def fit(self, matrix, y=None) -> BalancedCoClustering:
        """Co-cluster a SciPy sparse matrix or a dense array; nonzero entries are interactions.

        Raises
        ------
        UserError
            When the matrix has no interactions or NaN entries, the method, a setting or a value is wrong, or the budget
            cannot be met.
        """
        check_settings(self)
        if not isinstance(self.settings, dict):
            raise SettingError("settings", repr(self.settings), "must be a dictionary of settings of the method")
        cls = METHODS[self.method]
        with keys_under("settings."):
            method = cls(build_settings(cls.Config, self.settings))
        graph = Biadjacency.from_matrix(matrix)
        budget = Budget.parse(self.budget, "parameters", graph.num_users, graph.num_items, self.dim)
        rng = np.random.default_rng(self.random_state)
        scale = popularity_scale(graph.item_degrees, self.popularity)
        with keys_under("settings."):
            assignment = method.assign(graph, remaining_budget(scale, budget), rng)
        assignment = scale_items(assignment, scale)
        budget.check(code_ledger(assignment, self.dim), method.name)
        assert isinstance(method, BacoPlus | Baco) and assignment.labels is not None  # users and items together
        self._graph = graph
        details = assignment.details
        self._fold_in = FoldIn.of(
            graph, assignment.labels, details["resolution"], details["solver_seed"], method.settings
        )
        self.assignment_ = assignment
        self.resolution_ = details["resolution"]
        self.row_labels_, self.column_labels_ = np.split(assignment.labels, [graph.num_users])
        return self

    def transform(self, matrix) -> np.ndarray:
        """The co-clusters of rows (users) that need not have been there in `fit`; see `baco.coclustering.fold_in`.

        Parameters
        ----------
        matrix : SciPy sparse matrix or dense array of the columns of `fit`
            Nonzero entries are interactions.

        Returns
        -------
        (n,) int32 : as `row_labels_`; -1 for a row without an interaction in any co-cluster that has rows of `fit`.

        Raises
        ------
        UserError
            Before `fit`, or when the matrix has other columns or NaN entries.
        """
        self._check_fitted()
        rows = Biadjacency.from_matrix(matrix)
        if rows.num_items != self._graph.num_items:
            raise UserError(f"the matrix has {rows.num_items} columns, but that of fit had {self._graph.num_items}")
        return self._fold_in.labels(rows)

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
        self._check_fitted()
        tables = CodebookTables(self.assignment_, self.dim)
        first_values(tables, self._graph, std, start, self.random_state)
        return tables

    def _check_fitted(self) -> None:
        if not hasattr(self, "assignment_"):
            raise UserError("there are no codes yet; call fit first")
