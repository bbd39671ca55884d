"""Embedding tables: the modules that turn ids into layer-0 embeddings, and the accounting of what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import block_array, csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from baco.compressors.budget import RowFormat
from baco.embedding.codes import SIDES, Assignment, Codes
from baco.embedding.quantizers import unpack_export
from baco.files import from_json_array, json_array

Embeddings = Callable[[int], tuple[np.ndarray, np.ndarray]]  # dim -> (num_users, dim) and (num_items, dim) float32
FinalEmbeddings = Callable[[], tuple[Tensor, Tensor, Tensor]]  # of users, items, and the nodes of `augment_graph`


@dataclass(frozen=True)
class Ledger:
    """What the tables of both sides cost.

    Attributes
    ----------
    parameters : int
        By the paper's rule: trainable floats, plus one for each code of an id after its first and for each pooling
        weight stored per id. The first code of an id is free. Integers that rows are packed into count one each.
    bytes : int
        What a server holds: the length of `export()`, its header aside.
    training_floats : int
        Floats alive in training, without optimizer state.
    user_rows, item_rows : int
        Codebook rows; 0 where a method has no rows.
    extra_codes : int
        Codes after the first, over all ids; those that rows are packed into do not count.
    """

    parameters: int
    bytes: int
    training_floats: int
    user_rows: int = 0
    item_rows: int = 0
    extra_codes: int = 0


def code_ledger(assignment: Assignment, dim: int, row: RowFormat | None = None) -> Ledger:
    """What codebooks of width `dim` under the given codes cost, in float32 or another format of rows."""
    users, items = assignment.users, assignment.items
    row = row or RowFormat.float32(dim)
    sizes = users.num_rows, items.num_rows
    extra_codes = users.extra_codes + items.extra_codes
    return Ledger(
        parameters=sum(map(row.parameters, sizes)) + extra_codes + users.num_stored_weights + items.num_stored_weights,
        bytes=sum(map(row.bytes, sizes)) + users.packed_bytes + items.packed_bytes,
        training_floats=sum(sizes) * dim,
        user_rows=users.num_rows,
        item_rows=items.num_rows,
        extra_codes=extra_codes,
    )


class EmbeddingTables(nn.Module):
    """Layer-0 embeddings of users and items: what a compressor returns and the trainer trains.

    A subclass gives `forward`, `ledger`, `export` and `reset_parameters`. The other methods are hooks that the one
    trainer calls; their defaults do nothing. Codes belong into persistent buffers, so that the best state restores
    codes and rows together; whatever else changes while they train belongs into `get_extra_state`, so that an
    interrupted training can be continued.

    Attributes
    ----------
    assignment : Assignment or None
        The codes, where ids share rows of a codebook.
    learned : bool
        Whether the first values are those of a training: then they may be the best state.
    """

    assignment: Assignment | None = None
    learned = False

    @property
    def kind(self) -> str:
        """The name of the class whose `from_export` reads the export back."""
        return type(self).__name__

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

    def ledger(self) -> Ledger:
        """What the tables cost; known before training and checked against the budget."""
        raise NotImplementedError

    def export(self) -> dict[str, np.ndarray]:
        """What a server needs: packed arrays, and their description under the key 'header'.

        The arrays' bytes, header aside, are `ledger().bytes`. `from_export` of the same class is the inverse.
        """
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


class CodebookTables(EmbeddingTables):
    """Two codebooks, and codes that say which of their rows stand for which id.

    Parameters: dim * (user rows + item rows), plus the extra codes (see `Ledger`).
    """

    def __init__(self, assignment: Assignment, dim: int):
        super().__init__()
        self.assignment = assignment
        self.users = Codebook(assignment.users, dim)
        self.items = Codebook(assignment.items, dim)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users(), self.items()

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return getattr(self, side)(ids)

    def shared_rows(self) -> tuple[Tensor, ...]:
        return self.users.rows, self.items.rows

    def pooling(self) -> csr_array | None:
        if self.users.identity and self.items.identity:
            return None
        return block_array([[self.users.pooling(), None], [None, self.items.pooling()]], format="csr")

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        for side in SIDES:
            getattr(self, side).reset_parameters(std, generator)

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        users, items = embeddings(self.users.rows.shape[1])
        self.users.start_near(users, rms)
        self.items.start_near(items, rms)

    def ledger(self) -> Ledger:
        return code_ledger(self.assignment, self.users.rows.shape[1])

    def quantizable(self) -> dict[str, nn.Parameter]:
        return {f"{side}/rows": getattr(self, side).rows for side in SIDES}

    def export(self) -> dict[str, np.ndarray]:
        header, arrays = self.assignment.pack()
        for side in SIDES:
            arrays[f"{side}/rows"] = getattr(self, side).rows.detach().cpu().numpy()
        return {"header": json_array(header)} | arrays

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> CodebookTables:
        """The tables whose `export` these arrays are, with rows in float32 or packed (see `QuantizedTables`)."""
        arrays = unpack_export(arrays)
        assignment = Assignment.unpack(from_json_array(arrays["header"]), arrays)
        tables = cls(assignment, arrays["users/rows"].shape[1])
        with torch.no_grad():
            for side in SIDES:
                getattr(tables, side).rows.copy_(torch.as_tensor(arrays[f"{side}/rows"]))
        return tables


class Codebook(nn.Module):
    """The rows that the ids of one side share."""

    def __init__(self, codes: Codes, dim: int):
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(codes.num_rows, dim))
        self.register_buffer("codes", torch.as_tensor(codes.index))  # (n, s) int32, or (total,) where there are ends
        self.register_buffer("ends", None if codes.ends is None else torch.as_tensor(codes.ends))  # None or (n + 1,)
        weights = None if codes.weights is None else torch.as_tensor(codes.weights)
        self.register_buffer("weights", weights)  # None, (s,) or as the codes
        scale = None if codes.scale is None else torch.as_tensor(codes.scale.astype(np.float32)[:, None])
        self.register_buffer("scale", scale)  # None or (n, 1)
        self.identity = (
            scale is None
            and codes.num_ids == codes.num_rows
            and np.array_equal(codes.index, np.arange(codes.num_ids, dtype=np.int32)[:, None])
        )

    def forward(self, ids: Tensor | None = None) -> Tensor:
        """(n, dim), or (len(ids), dim) for some ids only."""
        if self.identity and ids is None:
            return self.rows
        codes, weights, starts = self.codes, self.weights, None
        if self.ends is not None:
            places, starts = (slice(None), self.ends[:-1]) if ids is None else _places(self.ends, ids)
            codes, weights, starts = codes[places], weights[places], starts.to(codes.dtype)
        elif ids is not None:
            codes, weights = codes[ids], weights if weights is None or weights.ndim == 1 else weights[ids]
        if weights is None:
            pooled = embedding_bag(codes, self.rows, mode="mean")
        else:
            weights = weights.expand(codes.shape)
            pooled = embedding_bag(codes, self.rows, starts, mode="sum", per_sample_weights=weights)
        if self.scale is None:
            return pooled
        return pooled * (self.scale if ids is None else self.scale[ids])

    def pooling(self) -> csr_array:
        """(n, num_rows) float32: the weight of each row in each id's embedding."""
        codes = self.codes.cpu().numpy()
        ends = np.arange(0, codes.size + 1, codes.shape[1]) if self.ends is None else self.ends.cpu().numpy()
        weights = np.float32(1 / codes.shape[-1]) if self.weights is None else self.weights.cpu().numpy()
        values = np.broadcast_to(weights, codes.shape).ravel()
        if self.scale is not None:
            values = values * np.repeat(self.scale.cpu().numpy(), np.diff(ends))
        matrix = csr_array((values, codes.ravel(), ends), shape=(len(ends) - 1, len(self.rows)), copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return matrix

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.rows.copy_(torch.randn(self.rows.shape, generator=generator) * std)

    @torch.no_grad()
    def start_near(self, embeddings: np.ndarray, rms: float) -> None:
        """Add to each row the mean of its ids' (n, dim) embeddings, each with the weight that it gives the row."""
        pooling = self.pooling()
        weights = np.maximum(pooling.sum(axis=0), np.finfo(np.float32).tiny)  # a row may have no ids
        add_scaled(self.rows, (pooling.T @ embeddings) / weights[:, None], rms)


@torch.no_grad()
def add_scaled(values: Tensor, added: np.ndarray, rms: float) -> None:
    """Add to values, in place, the multiple of a float32 array of their shape that has the root mean square `rms`."""
    norm = np.sqrt(np.mean(added**2))
    if norm > 0:
        values.add_(torch.from_numpy(added * np.float32(rms / norm)).to(values.device))


def _places(ends: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Where the codes of some ids are, one id after the other, and where those of each begin among them."""
    counts = ends[ids + 1] - ends[ids]
    starts = counts.cumsum(0) - counts
    shifts = torch.repeat_interleave(ends[ids] - starts, counts)
    return shifts + torch.arange(len(shifts), device=ends.device), starts
