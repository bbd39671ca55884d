"""Clustered compositional embeddings: codes that k-means finds anew while the tables train."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding

from baco.compressors.budget import Budget, split_rows
from baco.compressors.compressor import Compressor
from baco.embedding.bits import code_bits, pack_bits, packed_code_bytes, unpack_bits
from baco.embedding.codes import SIDES
from baco.embedding.cost import Ledger, RowFormat
from baco.embedding.rules import AffineHash
from baco.embedding.tables import EmbeddingTables, FinalEmbeddings
from baco.errors import SettingError, UserError
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.numerics.kmeans import compile_kmeans, fill_empty, kmeans, kmeans_seeds
from baco.registry import register_method, register_tables
from baco.validation import setting
from baselines.support.schedule import CodeUpdates

NEVER = CodeUpdates(update_until=0)


@register_method("cce")
class Cce(Compressor):
    """Clustered compositional embeddings (Tsang, Ahle, NeurIPS 2023, arXiv 2210.05974).

    An embedding is made of c chunks of width dim / c, each the sum of a row of a clustered table and one of a sketch:

        e_x = [T_1[h_1(x)] + S_1[g_1(x)], ..., T_c[h_c(x)] + S_c[g_c(x)]],

    with tables of k rows. All codes start as hashes. A clustering step takes the chunks of all embeddings of a side as
    they are, makes the centres of a k-means with k centres the new T and its labels the new h, draws new hashes g, and
    puts into each row of S the mean of what the centres leave of the ids that share it.
    Parameters: 2 dim (user k + item k) + (2 c - 1) (num_users + num_items).

    Codes are updated once, after the first epoch, as in the published comparison; the method's authors do it after each
    of the first three quarters of all epochs (`update_until`). Deviations: codes are paid from the budget, where the
    authors' is one of floats; hashes are affine permutations, which leave no row of the sketch empty.
    """

    label = "CCE"

    @dataclass(frozen=True)
    class Config(CodeUpdates):
        """num_chunks : c, into how many chunks an embedding is cut; must divide dim."""

        num_chunks: int = setting(2, at_least=1)

    config: Config

    def warm_up(self) -> None:
        compile_kmeans()

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> CceTables:
        chunks = self.config.num_chunks
        if budget.dim % chunks:
            raise SettingError("num_chunks", chunks, f"does not divide dim={budget.dim}; change one of them")
        sizes, row = (train.num_users, train.num_items), budget.row_format(budget.dim // chunks)

        def over_budget(rows: int) -> bool:
            sides = [
                chunked_ledger(size, side_rows, chunks, budget.dim, row)
                for size, side_rows in zip(sizes, split_rows(rows, *sizes), strict=True)
            ]
            return budget.amount(total(*sides)) > budget.limit

        rows = 1 + bisect_left(range(2, train.num_nodes + 1), True, key=over_budget)  # of each of the two tables
        if rows < 2:
            least = budget.amount(total(*(chunked_ledger(size, 1, chunks, budget.dim, row) for size in sizes)))
            raise UserError(
                f"the budget of {budget.limit:,} {budget.unit} is below the least that 'cce' needs, {least:,}; "
                "raise the budget or lower num_chunks"
            )
        codebooks = []
        for size, side_rows in zip(sizes, split_rows(rows, *sizes), strict=True):
            labels = AffineHash.draw(chunks, size, rng).evaluate(size, side_rows).index
            hashes = AffineHash.draw(chunks, size, rng)
            codebooks.append(ChunkedCodebook(labels, hashes, side_rows, budget.dim))
        users, items = codebooks
        return CceTables(users, items, self.config, int(rng.integers(2**32)))


@register_tables("CceTables")
class CceTables(EmbeddingTables):
    """A chunked codebook for each side.

    Parameters
    ----------
    updates : CodeUpdates
        When to cluster.
    seed : int
        With the epoch, it decides a clustering step, so that no random state has to be kept.
    """

    def __init__(self, users: ChunkedCodebook, items: ChunkedCodebook, updates: CodeUpdates = NEVER, seed: int = 0):
        super().__init__()
        self.users, self.items = users, items
        self.updates = updates
        self.seed = seed

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users(), self.items()

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return getattr(self, side)(ids)

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        for rows in self.quantizable().values():
            rows.copy_(torch.randn(rows.shape, generator=generator) * (std / np.sqrt(2)))  # an entry is a sum of two

    def ledger(self) -> Ledger:
        return total(self.users.ledger(), self.items.ledger())

    def quantizable(self) -> dict[str, nn.Parameter]:
        return {f"{side}/rows": getattr(self, side).rows for side in SIDES}

    def export(self) -> dict[str, np.ndarray]:
        header, arrays = {}, {}
        for side in SIDES:
            codebook: ChunkedCodebook = getattr(self, side)
            labels, hashes = codebook.labels(), codebook.hashes()
            header[side] = {"shape": list(labels.shape), "num_rows": codebook.num_rows}
            arrays[f"{side}.labels"] = pack_bits(labels.ravel(), code_bits(codebook.num_rows))
            arrays |= {f"{side}.{name}": array for name, array in hashes.arrays().items()}
            arrays[f"{side}/rows"] = codebook.rows.detach().cpu().numpy()
        return {"header": json_array(header)} | arrays

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> CceTables:
        """The tables whose `export` these arrays are."""
        codebooks = []
        for side, about in from_json_array(arrays["header"]).items():
            num_ids, chunks = about["shape"]
            labels = unpack_bits(arrays[f"{side}.labels"], code_bits(about["num_rows"]), num_ids * chunks)
            hashes = AffineHash(arrays[f"{side}.multipliers"], arrays[f"{side}.offsets"])
            rows = arrays[f"{side}/rows"]
            codebook = ChunkedCodebook(
                labels.reshape(num_ids, chunks), hashes, about["num_rows"], rows.shape[1] * chunks
            )
            with torch.no_grad():
                codebook.rows.copy_(torch.as_tensor(rows))
            codebooks.append(codebook)
        users, items = codebooks
        return cls(users, items)

    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> list[nn.Parameter] | None:
        if not self.updates.due(epoch) or not all(embeddings.isfinite().all() for embeddings in self()):
            return None  # what is not finite cannot be clustered; the next validation stops the training
        rng = np.random.default_rng([self.seed, epoch])
        self.users.cluster(rng)
        self.items.cluster(rng)
        return [self.users.rows, self.items.rows]


class ChunkedCodebook(nn.Module):
    """The clustered tables and the sketches of one side.

    Parameters
    ----------
    labels : (n, c) integers
        The codes into the clustered tables.
    hashes : AffineHash
        c hashes, the codes into the sketches.
    num_rows : int
        k, of each table.
    dim : int
    """

    codes: Tensor
    hash_arrays: Tensor

    def __init__(self, labels: np.ndarray, hashes: AffineHash, num_rows: int, dim: int):
        super().__init__()
        num_ids, chunks = labels.shape
        self.num_rows = num_rows
        # c times two tables, one below the other: T_1, S_1, T_2, S_2, ...
        self.rows = nn.Parameter(torch.zeros(chunks * 2 * num_rows, dim // chunks))
        self.register_buffer("codes", torch.empty(2, num_ids, chunks, dtype=torch.int32))  # places in `rows`
        self.register_buffer("hash_arrays", torch.empty(2, chunks, dtype=torch.int64))
        self._use(labels, hashes)

    def _use(self, labels: np.ndarray, hashes: AffineHash) -> None:
        hashed = hashes.evaluate(len(labels), self.num_rows).index
        codes = np.stack([labels, hashed]) + self._starts()
        self.codes.copy_(torch.as_tensor(codes))
        self.hash_arrays.copy_(torch.as_tensor(np.stack([hashes.multipliers, hashes.offsets])))

    def _starts(self) -> np.ndarray:
        """(2, 1, c): where the clustered table of each chunk begins in `rows`, and where its sketch."""
        chunks = self.codes.shape[2]
        return self.num_rows * np.arange(2 * chunks).reshape(2, 1, chunks, order="F")

    def labels(self) -> np.ndarray:
        """(n, c): the codes into the clustered tables."""
        return self.codes[0].cpu().numpy() - self._starts()[0]

    def hashes(self) -> AffineHash:
        """The codes into the sketches."""
        return AffineHash(*self.hash_arrays.cpu().numpy())

    def forward(self, ids: Tensor | None = None) -> Tensor:
        """(n, dim), or (len(ids), dim) for some ids only."""
        codes = self.codes if ids is None else self.codes[:, ids]
        clustered, sketch = (embedding(code, self.rows) for code in codes)
        return (clustered + sketch).flatten(1)

    def ledger(self) -> Ledger:
        _, num_ids, chunks = self.codes.shape
        return chunked_ledger(num_ids, self.num_rows, chunks, chunks * self.rows.shape[1])

    @torch.no_grad()
    def cluster(self, rng: np.random.Generator) -> None:
        """A clustering step: new codes, and new rows that keep the embeddings as they are as far as they can."""
        _, num_ids, chunks = self.codes.shape
        embeddings = self().double().cpu().numpy().reshape(num_ids, chunks, -1)
        labels = np.empty((num_ids, chunks), np.int32)
        hashes = AffineHash.draw(chunks, num_ids, rng)
        hashed = hashes.evaluate(num_ids, self.num_rows).index
        tables = []
        for chunk in range(chunks):
            points = np.ascontiguousarray(embeddings[:, chunk])
            labels[:, chunk], distances = kmeans(points, kmeans_seeds(points, self.num_rows, rng))
            fill_empty(labels[:, chunk], distances, self.num_rows)
            centers = means(points, labels[:, chunk], self.num_rows)
            tables += [centers, means(points - centers[labels[:, chunk]], hashed[:, chunk], self.num_rows)]
        self.rows.copy_(torch.as_tensor(np.concatenate(tables)))
        self._use(labels, hashes)


def means(points: np.ndarray, codes: np.ndarray, num_rows: int) -> np.ndarray:
    """(num_rows, d): the mean of the points with each code, zero where there are none."""
    members = csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(num_rows, len(codes)))
    return (members @ points) / np.maximum(1, np.bincount(codes, minlength=num_rows))[:, None]


def chunked_ledger(num_ids: int, num_rows: int, chunks: int, dim: int, row: RowFormat | None = None) -> Ledger:
    """What a `ChunkedCodebook` costs: labels are stored, hashes are computed from two integers each.

    Parameters
    ----------
    row : RowFormat, optional
        Of the rows, each of which is a chunk wide; float32 by default.
    """
    row = row or RowFormat.float32(dim // chunks)
    rows, extra_codes = 2 * num_rows * chunks, (2 * chunks - 1) * num_ids
    return Ledger(
        parameters=row.parameters(rows) + extra_codes,
        bytes=row.bytes(rows) + packed_code_bytes(chunks * num_ids, num_rows) + 16 * chunks,
        training_floats=2 * num_rows * dim,
        user_rows=2 * num_rows,
        extra_codes=extra_codes,
    )


def total(users: Ledger, items: Ledger) -> Ledger:
    """The ledger of both sides, from that of each."""
    return Ledger(
        parameters=users.parameters + items.parameters,
        bytes=users.bytes + items.bytes,
        training_floats=users.training_floats + items.training_floats,
        user_rows=users.user_rows,
        item_rows=items.user_rows,
        extra_codes=users.extra_codes + items.extra_codes,
    )
