"""Tables around other tables, to which they leave all that they do not change."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from baco.embedding.tables import Embeddings, EmbeddingTables, FinalEmbeddings


class WrappedTables(EmbeddingTables):
    """Hands every hook on. A subclass gives `ledger` and `export`, and says what of the inner tables is `quantizable`.

    Parameters
    ----------
    inner : EmbeddingTables
    """

    def __init__(self, inner: EmbeddingTables):
        super().__init__()
        self.inner = inner
        self.assignment = inner.assignment
        self.inherits = inner.inherits

    @property
    def learned(self) -> bool:
        return self.inner.learned

    @learned.setter
    def learned(self, value: bool) -> None:
        self.inner.learned = value

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.inner()

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return self.inner.lookup(side, ids)

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.inner.reset_parameters(std, generator)

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        self.inner.start_near(embeddings, rms)

    def inherit(self, users: np.ndarray, items: np.ndarray) -> None:
        self.inner.inherit(users, items)

    def selectable(self) -> bool:
        return self.inner.selectable()

    def auxiliary_loss(self) -> Tensor | None:
        return self.inner.auxiliary_loss()

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return self.inner.param_groups(lr, weight_decay)

    def shared_rows(self) -> tuple[Tensor, ...]:
        return self.inner.shared_rows()

    def pooling(self) -> csr_array | None:
        return self.inner.pooling()

    def augment_graph(self, adjacency: csr_array) -> csr_array:
        return self.inner.augment_graph(adjacency)

    def graph_rows(self) -> tuple[Tensor, ...]:
        return self.inner.graph_rows()

    def on_step_end(self) -> None:
        self.inner.on_step_end()

    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> list[nn.Parameter] | None:
        return self.inner.on_epoch_end(epoch, final_embeddings)

    def on_training_end(self) -> None:
        self.inner.on_training_end()
