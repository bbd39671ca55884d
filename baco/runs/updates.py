"""What becomes of a model when a segment of a stream has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from baco.coclustering.update import THRESHOLD
from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor, Compressor
from baco.compressors.growth import Growth
from baco.compressors.popularity import popularity_scale, remaining_budget, scale_items
from baco.data.interactions import Interactions
from baco.embedding.codebook import CodebookTables
from baco.embedding.continuation import continue_rows
from baco.embedding.tables import EmbeddingTables
from baco.errors import SettingError
from baco.graph import Biadjacency
from baco.runs.run import check_budget, prepare, trainer_of
from baco.runs.settings import RunConfig
from baco.serving.users import means_over
from baco.training.trainer import Trainer


@dataclass(frozen=True, eq=False)
class Step:
    """What there is after a segment.

    Attributes
    ----------
    config : RunConfig
    data : Interactions
        What `Stream.step` gives.
    budget : Budget
        Of the ids that are there.
    device : torch.device
    epochs : int
        Of a training that goes on from the last model.
    memory : dict
        What the method keeps from one segment for the next.
    """

    config: RunConfig
    data: Interactions
    budget: Budget
    device: torch.device
    epochs: int
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> Compressor:
        assert isinstance(self.config.method, Compressor)  # others have no embeddings to go on from
        return self.config.method

    @cached_property
    def trainer(self) -> Trainer:
        return trainer_of(self.config, self.data, self.device)


@dataclass(frozen=True, eq=False)
class Model:
    """A model after a segment.

    Attributes
    ----------
    tables : EmbeddingTables
        What is stored, and what the next update goes on from.
    train : Biadjacency
        What it was trained on.
    seconds : dict
        By phase: clustering, search, training, validation.
    epochs : int
        How many were trained.
    folded : FixedTables or None
        What ranks where it is not what is stored.
    """

    tables: EmbeddingTables
    train: Biadjacency
    seconds: dict[str, float]
    epochs: int = 0
    folded: FixedTables | None = None


class FixedTables(EmbeddingTables):
    """Embeddings of users and items as they are; nothing of them is stored or trained."""

    users: Tensor
    items: Tensor

    def __init__(self, users: np.ndarray, items: np.ndarray):
        super().__init__()
        self.register_buffer("users", torch.as_tensor(users))
        self.register_buffer("items", torch.as_tensor(items))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items


def begin(step: Step, update: str) -> Model:
    """Train from the start, for an update to go on from.

    Raises
    ------
    SettingError
        When the update does not work with the method: before the training.
    """
    method = step.method
    if update == "extend" and not (isinstance(method, CodeCompressor) and type(method).update is not Compressor.update):
        raise SettingError("update", update, f"does not work with method={method.name}; take warm or retrain")
    return _retrained(step, inherits=update == "warm")


def retrain(step: Step, before: Model) -> Model:
    """Train from the start on all that has come."""
    return _retrained(step)


def warm(step: Step, before: Model) -> Model:
    """Codes or sizes made anew, embeddings from the last model, and some epochs: SCALL's way, for any method.

    New ids begin where `folded_in` puts them; rows that ids share begin as near to their embeddings as may be.
    Deviation from SCALL: the training is on all interactions, where the authors mix a fifth of the old ones with those
    of the newest segment.
    """
    prepared = prepare(step.config, step.method, step.data, step.budget, step.device, memory=step.memory)
    tables = prepared.tables
    start = time.perf_counter()
    tables.inherit(*folded_in(step.data.train, *embeddings(before.tables)))
    clustering = prepared.clustering_seconds + time.perf_counter() - start
    return _go_on(step, prepared.trainer, tables, clustering, prepared.search_seconds)


def extend(step: Step, before: Model) -> Model:
    """Old ids keep their codes, as far as nothing speaks against it, new ones find theirs, and some epochs.

    What `baco update` does to an export (`baco.serving.update`), and with the same rows to begin with.
    """
    old = before.tables
    assert isinstance(old, CodebookTables)
    start = time.perf_counter()
    train = step.data.train
    scale = popularity_scale(train.item_degrees, step.config.popularity)
    rest = remaining_budget(scale, step.budget)
    assignment = step.method.update(old.assignment, Growth(before.train, train), rest, THRESHOLD)
    tables = CodebookTables(scale_items(assignment, scale), step.config.width)
    check_budget(step.config, step.budget, tables.ledger())
    continue_rows(tables, old.cpu(), train)
    clustering = time.perf_counter() - start
    return _go_on(step, step.trainer, tables.to(step.device), clustering)


def fold_in(step: Step, before: Model) -> Model:
    """The model of the first segment, as it is; all who came later are `folded_in` by all that they have done."""
    start = time.perf_counter()
    folded = FixedTables(*folded_in(step.data.train, *embeddings(before.tables))).to(step.device)
    return Model(before.tables, before.train, _seconds(time.perf_counter() - start), folded=folded)


UPDATES: dict[str, Callable[[Step, Model], Model]] = {
    "retrain": retrain,
    "warm": warm,
    "extend": extend,
    "fold_in": fold_in,
}


@torch.no_grad()
def embeddings(tables: EmbeddingTables) -> tuple[np.ndarray, np.ndarray]:
    """Those of layer 0, (num_users, dim) and (num_items, dim) float32."""
    users, items = tables()
    return users.cpu().numpy(), items.cpu().numpy()


def folded_in(train: Biadjacency, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of all ids of a graph, from those of the first ones.

    A new user stands at the mean, over its items, of the mean embedding of the old users of an item: the rule of
    `baco.serving.users.FoldIn`, which tells why, on layer 0. With MF it is that rule; LightGCN propagates over the new
    graph. New items stand likewise among old items. Who shares nothing with old ids stands at their mean.

    Parameters
    ----------
    users, items : (n, dim) float32
        Of the ids below n.
    """
    matrix = train.to_matrix()
    return _joined(users, matrix), _joined(items, csr_array(matrix.T))


def _joined(old: np.ndarray, matrix: csr_array) -> np.ndarray:
    """(n, dim): the rows of the first ids of a side, and those of the others; a line of the matrix is an id's links."""
    audiences = means_over(csr_array(matrix[: len(old)].T), old)
    means, found = means_over(matrix[len(old) :], *audiences)
    return np.concatenate([old, np.where(found[:, None], means, old.mean(axis=0))])


def _retrained(step: Step, inherits: bool = False) -> Model:
    prepared = prepare(step.config, step.method, step.data, step.budget, step.device, memory=step.memory)
    if inherits and not prepared.tables.inherits:
        raise SettingError("update", "warm", f"does not work with method={step.method.name}; take retrain or fold_in")
    seconds = prepared.clustering_seconds, prepared.search_seconds
    return _trained(step, prepared.trainer, prepared.tables, None, *seconds)


def _go_on(step: Step, trainer: Trainer, tables: EmbeddingTables, clustering: float, search: float = 0.0) -> Model:
    """Train tables that have learned values for the epochs of an update."""
    tables.learned = True  # no epoch need be better than none
    if step.epochs == 0:
        return Model(tables, step.data.train, _seconds(clustering, search))
    return _trained(step, trainer, tables, step.epochs, clustering, search)


def _trained(
    step: Step, trainer: Trainer, tables: EmbeddingTables, epochs: int | None, clustering: float, search: float = 0.0
) -> Model:
    report = trainer.fit(tables, epochs)
    check_budget(step.config, step.budget, tables.ledger())
    seconds = _seconds(clustering, search, report.training_seconds, report.validation_seconds)
    return Model(tables, step.data.train, seconds, report.epochs)


def _seconds(
    clustering: float, search: float = 0.0, training: float = 0.0, validation: float = 0.0
) -> dict[str, float]:
    return {"clustering": clustering, "search": search, "training": training, "validation": validation}
