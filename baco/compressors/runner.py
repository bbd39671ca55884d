"""What a method may ask of the trainer when it trains models of its own before the training proper."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from baco.embedding.tables import EmbeddingTables
from baco.graph import Biadjacency

Tables = TypeVar("Tables", bound=EmbeddingTables)


class TrainingReport(Protocol):
    """How much a training did, and how long it took."""

    epochs: int
    training_seconds: float
    validation_seconds: float
    history: list[tuple[int, float, float]]  # an entry per validation


class Ranking(Protocol):
    """What a ranking was worth, user by user."""

    @property
    def users(self) -> np.ndarray:
        """(m,) int64: the users with relevant items."""

    def per_user(self, k: int) -> dict[str, np.ndarray]:
        """Metrics at cut-off k by name, such as 'recall', each (m,) float64."""


class Runner(Protocol):
    """Trains and validates tables on the run's data and backbone.

    Attributes
    ----------
    seed : int
        Of the run.
    device : torch.device
        Where tables lie while they train.
    progress : bool
        Whether to show progress bars.
    memory : dict
        What methods keep from one segment of a stream for the next, by their names; empty for a single run.
    """

    seed: int
    device: torch.device
    progress: bool
    memory: dict[str, Any]

    @property
    def train(self) -> Biadjacency:
        """The training interactions."""

    @property
    def max_epochs(self) -> int:
        """Most epochs of a training, as the protocol says."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""

    def initialize(self, tables: Tables) -> Tables:
        """The tables with their first values, on the device."""

    def fit(self, tables: EmbeddingTables, max_epochs: int | None = None) -> TrainingReport:
        """Train tables, which lie on the device, for so many epochs or the protocol's, and restore their best state."""

    def fit_full(self, tables: EmbeddingTables) -> TrainingReport:
        """The same for the full model; if the run is interrupted, this training continues from its own checkpoint."""

    def evaluate(self, tables: EmbeddingTables, split: str, k: int) -> Ranking:
        """The ranking of a split, which for a method is 'val', down to rank k."""

    def validation_means(self, tables: EmbeddingTables, cutoffs: tuple[int, ...]) -> dict[str, float]:
        """Means over the users of the validation split, by name such as 'recall@20', at some cutoffs."""
