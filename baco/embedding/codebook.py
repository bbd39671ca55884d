"""Codebooks: rows that ids share by their codes, and the tables made of one for each side, or of one for both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import block_diag, csr_array, diags_array, vstack
from scipy.sparse.linalg import lsmr
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from baco.embedding.codes import SIDES, Assignment, Codes
from baco.embedding.cost import Ledger, code_ledger
from baco.embedding.tables import Embeddings, EmbeddingTables, add_scaled
from baco.files import from_json_array, json_array
from baco.graph import narrow
from baco.registry import register_tables

FIT = 1e-7  # of fitted rows: relative, far below what any code leaves of an embedding


@register_tables("CodebookTables")
class CodebookTables(EmbeddingTables):
    """Two codebooks, or one for both sides, and codes that say which of their rows stand for which id.

    Parameters: dim * (user rows + item rows), or dim * rows, plus the extra codes (see `Ledger`).

    Parameters
    ----------
    assignment : Assignment
    dim : int
    scaled : bool
        Whether rows begin narrower (or wider) by what their ids make of them, so that embeddings that are sums begin as
        wide as single rows.
    """

    assignment: Assignment
    inherits = True

    def __init__(self, assignment: Assignment, dim: int, scaled: bool = False):
        super().__init__()
        self.assignment = assignment
        self.scaled = scaled
        self.users = Codebook(assignment.users, dim)
        self.items = Codebook(assignment.items, dim, self.users.rows if assignment.shared else None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CodebookTables:
        super()._apply(fn, recurse)
        if self.assignment.shared:  # where a device makes new parameters, it makes one for each side
            self.items.rows = self.users.rows
        return self

    def forward(self) -> tuple[Tensor, Tensor]:
        rows = self.shared_rows()
        return self.users(rows=rows[0]), self.items(rows=rows[-1])

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        rows = self.shared_rows()
        return getattr(self, side)(ids, rows[0 if side == "users" else -1])

    def shared_rows(self) -> tuple[Tensor, ...]:
        """The rows of each codebook; a subclass may make others of those that are trained."""
        return tuple(self.rows_of_codebooks())

    def pooling(self) -> csr_array | None:
        if self.users.identity and self.items.identity and not self.assignment.shared:
            return None
        poolings = self._poolings()
        return poolings[0] if self.assignment.shared else block_diag(poolings, format="csr")

    def _poolings(self) -> list[csr_array]:
        """That of each codebook: the weights of its rows in the embeddings of its ids."""
        sides = [self.users.pooling(), self.items.pooling()]
        return [vstack(sides, format="csr")] if self.assignment.shared else sides

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        for codebook, widths in zip(self._codebooks().values(), self._widths(), strict=True):
            codebook.reset_parameters(std, generator)
            codebook.rows.div_(widths)

    @torch.no_grad()
    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        targets = list(embeddings(self.users.rows.shape[1]))
        if self.assignment.shared:
            targets = [np.concatenate(targets)]
        for rows, pooling, target, widths in zip(
            self.rows_of_codebooks(), self._poolings(), targets, self._widths(), strict=True
        ):
            rows.mul_(widths)
            start_near(rows, pooling, target, rms)
            rows.div_(widths)

    @torch.no_grad()
    def inherit(self, users: np.ndarray, items: np.ndarray) -> None:
        targets = [np.concatenate([users, items])] if self.assignment.shared else [users, items]
        for rows, pooling, target in zip(self.rows_of_codebooks(), self._poolings(), targets, strict=True):
            used = np.flatnonzero(np.abs(pooling).sum(axis=0))
            found = torch.from_numpy(fitted_rows(pooling, target)[used])
            rows[torch.as_tensor(used, device=rows.device)] = found.to(rows.device)

    def _widths(self) -> list[Tensor]:
        """(num_rows, 1), or () for ones, of each codebook: by how much embeddings would begin wider than its rows.

        That of a row is the root of the mean square over its ids. Ones where first values are not `scaled`.
        """
        if not self.scaled:
            return [rows.new_ones(()) for rows in self.rows_of_codebooks()]
        users, items = self.users.squared_weights(), self.items.squared_weights()
        both = [(users[0] + items[0], users[1] + items[1])] if self.assignment.shared else [users, items]
        widths = [np.sqrt(np.divide(sums, ids, out=np.ones_like(sums), where=ids > 0)) for sums, ids in both]
        return [torch.as_tensor(width[:, None], device=self.users.rows.device) for width in widths]

    def ledger(self) -> Ledger:
        return code_ledger(self.assignment, self.users.rows.shape[1])

    def quantizable(self) -> dict[str, nn.Parameter]:
        return {name: codebook.rows for name, codebook in self._codebooks().items()}

    def rows_of_codebooks(self) -> list[nn.Parameter]:
        """The (num_rows, dim) rows that are trained: those of users and of items, or those that both share."""
        return [codebook.rows for codebook in self._codebooks().values()]

    def _codebooks(self) -> dict[str, Codebook]:
        """The different ones, by the names that their rows have in `export`."""
        if self.assignment.shared:
            return {"rows": self.users}
        return {f"{side}/rows": getattr(self, side) for side in SIDES}

    def export(self) -> dict[str, np.ndarray]:
        header, arrays = self.assignment.pack()
        arrays |= {name: rows.detach().float().cpu().numpy() for name, rows in self.quantizable().items()}
        return {"header": json_array(header)} | arrays

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> CodebookTables:
        """The tables whose `export` these arrays are."""
        assignment = Assignment.unpack(from_json_array(arrays["header"]), arrays)
        tables = cls(assignment, arrays["rows" if assignment.shared else "users/rows"].shape[1])
        with torch.no_grad():
            for name, rows in tables.quantizable().items():
                rows.copy_(torch.as_tensor(arrays[name]))
        return tables


class Codebook(nn.Module):
    """The rows that the ids of one side share, or those of both; then the other side's are given."""

    codes: Tensor
    ends: Tensor | None
    weights: Tensor | None
    scale: Tensor | None

    def __init__(self, codes: Codes, dim: int, rows: nn.Parameter | None = None):
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(codes.num_rows, dim)) if rows is None else rows
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

    def forward(self, ids: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """(n, dim), or (len(ids), dim) for some ids only.

        Parameters
        ----------
        rows : (num_rows, dim), optional
            What is made of the codebook's own, in their place.
        """
        rows = self.rows if rows is None else rows
        if self.identity and ids is None:
            return rows
        codes, weights, starts = self.codes, self.weights, None
        if self.ends is not None:
            places, starts = (slice(None), self.ends[:-1]) if ids is None else _places(self.ends, ids)
            assert weights is not None  # see `Codes.ends`
            codes, weights, starts = codes[places], weights[places], starts.to(codes.dtype)
        elif ids is not None:
            codes, weights = embedding(ids, codes), weights if weights is None or weights.ndim == 1 else weights[ids]
        if weights is None:
            pooled = embedding_bag(codes, rows, mode="mean")
        else:
            weights = weights.expand(codes.shape)
            pooled = embedding_bag(codes, rows, starts, mode="sum", per_sample_weights=weights)
        if self.scale is None:
            return pooled
        return pooled * (self.scale if ids is None else self.scale[ids])

    @property
    def num_ids(self) -> int:
        return len(self.codes) if self.ends is None else len(self.ends) - 1

    def pooling(self) -> csr_array:
        """(n, num_rows) float32: the weight of each row in each id's embedding."""
        codes = self.codes.cpu().numpy()
        ends = np.arange(0, codes.size + 1, codes.shape[1]) if self.ends is None else self.ends.cpu().numpy()
        weights = np.float32(1 / codes.shape[-1]) if self.weights is None else self.weights.cpu().numpy()
        values = np.broadcast_to(weights, codes.shape).ravel()
        if self.scale is not None:
            values = values * np.repeat(self.scale.cpu().numpy(), np.diff(ends))
        matrix = csr_array((values, codes.ravel(), narrow(ends)), shape=(len(ends) - 1, len(self.rows)), copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return matrix

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.rows.copy_(torch.randn(self.rows.shape, generator=generator) * std)

    def squared_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """(num_rows,) each, of the ids that have a row: the squared norms of their weights, summed, and a count.

        Weights are those of `pooling`, scales aside: an id of norm w begins w times as wide as a row of its own.
        """
        pooling = self.pooling()
        squares = pooling.multiply(pooling).sum(axis=1)
        if self.scale is not None:
            squares /= self.scale.cpu().numpy()[:, 0] ** 2
        uses = (pooling != 0).astype(np.float32)
        return uses.T @ squares, uses.sum(axis=0)


def start_near(rows: Tensor, pooling: csr_array, embeddings: np.ndarray, rms: float) -> None:
    """Add to each row the mean of its ids' (n, dim) embeddings, each with the weight that it gives the row."""
    weights = np.maximum(pooling.sum(axis=0), np.finfo(np.float32).tiny)  # a row may have no ids
    add_scaled(rows, (pooling.T @ embeddings) / weights[:, None], rms)


def fitted_rows(pooling: csr_array, embeddings: np.ndarray) -> np.ndarray:
    """(num_rows, dim) float32: rows whose sums, with the weights (n, num_rows), are closest to (n, dim) embeddings.

    The least squared error over all entries; of equally good rows short ones, and zeros for rows without ids. Where
    each id has one row of weight 1, means of the embeddings of a row's ids.
    """
    norms = np.sqrt(pooling.multiply(pooling).sum(axis=0, dtype=np.float64))
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    scaled = (pooling @ diags_array(scale)).tocsr()  # rows of a length of 1 are found in fewer steps
    columns = [lsmr(scaled, column, atol=FIT, btol=FIT)[0] * scale for column in embeddings.T.astype(np.float64)]
    return np.stack(columns, axis=1).astype(np.float32)


def _places(ends: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Where the codes of some ids are, one id after the other, and where those of each begin among them."""
    first = ends.index_select(0, ids)
    counts = ends.index_select(0, ids + 1) - first
    starts = counts.cumsum(0) - counts
    shifts = torch.repeat_interleave(first - starts, counts)
    return shifts + torch.arange(shifts.shape[0], device=ends.device), starts  # len() would stop torch.export
