"""Methods without training and without embeddings: what they score is a line that compressed models are held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from baco.compressors.compressor import NoSettings
from baco.embedding.cost import Ledger
from baco.graph import Biadjacency


@dataclass(frozen=True, eq=False)
class Scorer:
    """A fitted method.

    Attributes
    ----------
    scores : callable
        From (b,) users to their (b, num_items) float32 scores; the highest are recommended.
    ledger : Ledger
        What a server holds of it beside the interactions.
    """

    scores: Callable[[np.ndarray], np.ndarray]
    ledger: Ledger


def scorer_ledger(floats: int, bytes_held: int, codes: int = 0) -> Ledger:
    """The cost of so many floats, and item ids stored beside them, each of which counts as one parameter."""
    return Ledger(parameters=floats + codes, bytes=bytes_held, training_floats=floats, extra_codes=codes)


class ScoringMethod:
    """A method that scores items from the interactions as they are: it has no rows to train, backbone or budget.

    A method is one subclass with `@register_method(name)` and one `conf/method/name.yaml`, which says `trained: false`.
    The interactions and its settings alone decide the result, so it draws nothing from the seed of the run.

    Attributes
    ----------
    Config, label, name : as of a `Compressor`
    """

    Config: ClassVar[type[Any]] = NoSettings
    config: Any  # a subclass with settings narrows the type

    label: ClassVar[str]
    name: ClassVar[str]  # set by register_method
    has_budget: ClassVar[bool] = False
    has_start: ClassVar[bool] = False

    def __init__(self, config: Any = None):
        self.config = self.Config() if config is None else config

    def fit(self, train: Biadjacency) -> Scorer:
        """What the training interactions say of every pair of a user and an item."""
        raise NotImplementedError
