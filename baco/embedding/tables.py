"""Embedding tables: the modules that turn ids into layer-0 embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding

from baco.embedding.codes import SIDES, Assignment
from baco.embedding.cost import Ledger

Embeddings = Callable[[int], tuple[np.ndarray, np.ndarray]]  # dim -> (num_users, dim) and (num_items, dim) float32
FinalEmbeddings = Callable[[], tuple[Tensor, Tensor, Tensor]]  # of users, items, and the nodes of `augment_graph`


class EmbeddingTables(nn.Module):
    """Layer-0 embeddings of users and items: what a compressor returns and the trainer trains.

    A subclass gives `forward`, `ledger`, `export`, `from_export` and `reset_parameters`, and has a name by
    `@register_tables`. The other methods are hooks that the one trainer calls; their defaults do nothing. Codes belong
    into persistent buffers, so that the best state restores codes and rows together; whatever else changes while they
    train belongs into `get_extra_state`, so that an interrupted training can be continued.

    Attributes
    ----------
    assignment : Assignment or None
        The codes, where ids share rows of a codebook.
    inherits : bool
        Whether `inherit` is there.
    learned : bool
        Whether the first values are those of a training: then they may be the best state.
    name : str
        By which an export tells whose it is; set by `register_tables`.
    """

    name: ClassVar[str]

    assignment: Assignment | None = None
    inherits: bool = False
    learned = False

    @property
    def kind(self) -> str:
        """The name of the tables whose `from_export` reads the export back."""
        return self.name

    def forward(self) -> tuple[Tensor, Tensor]:
        """((num_users, dim), (num_items, dim)) float32."""
        raise NotImplementedError

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        """(len(ids), dim): the embeddings of some ids of one side, 'users' or 'items'."""
        return embedding(ids, self()[SIDES.index(side)])

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        """Draw the first values; `std` is the standard deviation of a row's entries."""
        raise NotImplementedError

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        """Add to the first values what brings layer 0 near to given embeddings.

        Only for tables of a compressor that `has_start`; `start=spectral` calls it.

        Parameters
        ----------
        embeddings : function
            From the width that is wanted to the embeddings of users and items.
        rms : float
            Root mean square of what is added to each side.
        """
        raise NotImplementedError

    def inherit(self, users: np.ndarray, items: np.ndarray) -> None:
        """Take values by which the embeddings come as near as may be, by squared error, to given ones.

        Rows that no id has keep theirs. Only for tables that `inherits`.

        Parameters
        ----------
        users, items : (n, dim) float32
        """
        raise NotImplementedError

    def ledger(self) -> Ledger:
        """What the tables cost; known before training and checked against the budget."""
        raise NotImplementedError

    def export(self) -> dict[str, np.ndarray]:
        """What a server needs: packed arrays, and their description under the key 'header'.

        The arrays' bytes, header aside, are `ledger().bytes`.
        """
        raise NotImplementedError

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> EmbeddingTables:
        """The inverse of `export`; arrays of other names are ignored. `load_tables` finds the class by itself."""
        raise NotImplementedError

    def quantizable(self) -> dict[str, nn.Parameter]:
        """The (rows, width) float32 parameters that `quantize=` may pack, by the names that `export` has for them.

        The default, none, is for tables that cannot be quantized.
        """
        return {}

    def auxiliary_loss(self) -> Tensor | None:
        """A term added to the loss of each step."""
        return None

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """Optimizer parameter groups."""
        return [{"params": list(self.parameters()), "lr": lr, "weight_decay": weight_decay}]

    def shared_rows(self) -> tuple[Tensor, ...]:
        """What propagation starts from: tensors that are, one below the other, the (K, dim) rows of `pooling`.

        The default is layer 0 itself, after it `graph_rows`.
        """
        return (*self(), *self.graph_rows())

    def pooling(self) -> csr_array | None:
        """(n, K) float32 weights by which the nodes' layer-0 embeddings are sums of `shared_rows`; None: they are them.

        Constant until `on_epoch_end` says that something changed. Tables that can give it train faster.
        """
        return None

    def augment_graph(self, adjacency: csr_array) -> csr_array:
        """The graph to propagate over: users and items first, then whatever nodes the tables add (LEGCF).

        Symmetric (n, n) float32 matrices, not yet normalised.
        """
        return adjacency

    def graph_rows(self) -> tuple[Tensor, ...]:
        """The layer-0 embeddings of the nodes that `augment_graph` added."""
        return ()

    def on_step_end(self) -> None:
        """After each optimizer step."""

    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> list[nn.Parameter] | None:
        """Learn codes or rows anew, after each epoch and before its validation.

        Parameters
        ----------
        epoch : int
            Counted from 0.
        final_embeddings : callable
            Computes the (n, dim) embeddings that the backbone makes of these tables as they are.

        Returns
        -------
        list of nn.Parameter, or None : None where codes, `pooling` and graph are as before; otherwise the parameters
            that were replaced, whose optimizer state is then cleared. The list may be empty.
        """
        return None

    def selectable(self) -> bool:
        """Whether the present state may become the best one; False while the tables are on their way to the budget."""
        return True

    def on_training_end(self) -> None:
        """Once, on the restored best state, before the test (quantization, pruning)."""


@torch.no_grad()
def add_scaled(values: Tensor, added: np.ndarray, rms: float) -> None:
    """Add to values, in place, the multiple of a float32 array of their shape that has the root mean square `rms`."""
    norm = np.sqrt(np.mean(added**2))
    if norm > 0:
        values.add_(torch.from_numpy(added * np.float32(rms / norm)).to(values.device))
