"""What every compression method offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from baco.compressors.budget import Budget
from baco.compressors.growth import Growth
from baco.compressors.runner import Runner
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError
from baco.graph import Biadjacency


@dataclass(frozen=True)
class NoSettings:
    """The settings of a method that has none."""


class Compressor:
    """A compression method: training interactions and a budget in, embedding tables out.

    A method is one subclass with `@register_method(name)` and one `conf/method/name.yaml`.

    Attributes
    ----------
    Config : frozen dataclass
        Its settings, each of which the YAML names; sizes are the budget's business.
    label : str
        What tables and figures print.
    has_budget : bool
        False for a method whose size is what it is; it is then measured, not limited.
    has_start : bool
        Whether its tables, or the full model that it trains first, can start near given embeddings
        (`baco.embedding.start`).
    """

    Config: ClassVar[type[Any]] = NoSettings
    config: Any  # a subclass with settings narrows the type

    label: ClassVar[str]
    has_budget: bool = True  # an instance may override it
    has_start: ClassVar[bool] = False
    name: ClassVar[str]  # set by register_method

    def __init__(self, config: Any = None):
        self.config = self.Config() if config is None else config

    def warm_up(self) -> None:
        """Compile what `fit` will call, so that its seconds are those of the method."""

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> EmbeddingTables:
        """Tables within the budget, of width `budget.dim`, before their first values are drawn.

        Parameters
        ----------
        train : Biadjacency
            Training interactions only.
        rng : numpy.random.Generator
            The only source of randomness.
        """
        raise NotImplementedError

    def search(self, tables: EmbeddingTables, runner: Runner) -> EmbeddingTables:
        """Choose other tables by short trainings before the final one (BET). The default keeps the given ones."""
        return tables

    def update(self, old: Assignment, growth: Growth, budget: Budget, threshold: float) -> Assignment:
        """Codes for interactions that have grown, in which a row keeps what it stands for, its name or else its number.

        Parameters
        ----------
        old : Assignment
            The codes of before, with their labels and names.
        budget : Budget
            Of all users and items.
        threshold : float
            What the objective must gain for an old id's codes to change, see `baco.coclustering.update.update_labels`.

        Raises
        ------
        UserError
            When the method cannot; the default.
        """
        raise UserError(f"codes of method '{self.name}' cannot be updated; train again with all interactions")


class CodeCompressor(Compressor):
    """A method that only assigns codes; `CodebookTables` does the rest.

    Attributes
    ----------
    scaled : bool
        See `CodebookTables`; for methods that sum rows.
    """

    has_start = True
    scaled: bool = False  # an instance may override it

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        """Codes whose ledger fits the budget; the parameters are those of `fit`."""
        raise NotImplementedError

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> CodebookTables:
        return CodebookTables(self.assign(train, budget, rng), budget.dim, self.scaled)
