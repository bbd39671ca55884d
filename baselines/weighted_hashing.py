"""Hashed rows with trained weights: hashed scalars, or a weight for each hash of an id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.codebook import Codebook, CodebookTables
from baco.embedding.codes import Assignment
from baco.embedding.cost import FLOAT_BYTES, Ledger
from baco.embedding.tables import Embeddings, EmbeddingTables
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.registry import register_method, register_tables
from baco.validation import setting
from baselines.hashing import ShareSides, bytes_of_hashes, dealt, rows_within


@register_method("memrec")
class MemRec(Compressor):
    """MEM-REC: hashed rows times hashed scalars (Jha et al., arXiv 2305.07205).

        E(x) = (w[g_1(x)] + ... + w[g_kw(x)]) (M[h_1(x)] + ... + M[h_k(x)])

    with a row table M and a scalar table w of as many entries. Ids have the same embedding only where all hashes
    collide, and no number is stored for an id. Parameters: (dim + 1) rows, or dim * rows without scalars; hashes are
    computed and, unlike the second codes of `double`, not counted.

    Deviations: hashes are those of `random`, with which k = 1 and kw = 0 is the same. Sides have tables of their own
    unless `share_sides` is set, which is published. Scalars start at 1 / kw: the published first values, uniform around
    zero, are for a network above, and a dot product of two such embeddings would begin near zero.
    """

    label = "MEM-REC"
    has_start = True

    @dataclass(frozen=True)
    class Config(ShareSides):
        """How many hashes an id has.

        num_hashes : k, the rows that are summed.
        num_scalars : kw, the scalars that are summed; 0: none.
        """

        num_hashes: int = setting(1, at_least=1)
        num_scalars: int = setting(1, at_least=0)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> ScalarTables:
        config, share = self.config, self.config.share_sides
        stored = bytes_of_hashes(config.num_hashes, share)
        if config.num_scalars:
            stored += bytes_of_hashes(config.num_scalars, share)

        def extras(rows: int) -> tuple[int, int]:
            scalars = rows if config.num_scalars else 0
            return scalars, FLOAT_BYTES * scalars + stored

        rows = rows_within(budget, train.num_nodes, extras, codebooks=2 - share)
        tables = CodebookTables(dealt(train, rows, rng, config.num_hashes, share), budget.dim, scaled=True)
        if not config.num_scalars:
            return ScalarTables(tables)
        return ScalarTables(tables, CodebookTables(dealt(train, rows, rng, config.num_scalars, share), 1))


@register_method("hashemb")
class HashEmbedding(Compressor):
    """Hash embeddings (Svenstrup, Hansen, Winther, NeurIPS 2017, arXiv 1709.03933).

        E(x) = p_1(x) M[h_1(x)] + ... + p_k(x) M[h_k(x)]

    with k importance weights for each id, stored and trained. Parameters: dim * rows + k (num_users + num_items);
    hashes are computed and, unlike the second codes of `double`, not counted.

    Deviations: hashes are affine permutations, those of `double`; every id has weights of its own (published: a further
    hash may make ids share them), and they are not appended to the embedding, an option of the authors'; they start at
    1, where the sum is that of `double`, since near zero so is a dot product.
    """

    label = "Hash embeddings"
    has_start = True

    @dataclass(frozen=True)
    class Config(ShareSides):
        """num_hashes : k, rows and weights of an id."""

        num_hashes: int = setting(2, at_least=1)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> ImportanceTables:
        hashes, share = self.config.num_hashes, self.config.share_sides
        weights = hashes * train.num_nodes
        extras = weights, FLOAT_BYTES * weights + bytes_of_hashes(hashes, share)
        rows = rows_within(budget, train.num_nodes, lambda rows: extras, codebooks=2 - share)
        own = Assignment.of_own_rows(train.num_users, train.num_items)
        tables = CodebookTables(dealt(train, rows, rng, hashes, share), budget.dim, scaled=True)
        return ImportanceTables(tables, CodebookTables(own, hashes))


class WeightedTables(EmbeddingTables):
    """Rows under computed hashes, which the ledger does not count, and trained weights of them.

    Parameters
    ----------
    rows : CodebookTables
    weights : CodebookTables, optional
        The weights of an id are an embedding of theirs, stored in float32 whatever rows are packed into.
    """

    def __init__(self, rows: CodebookTables, weights: CodebookTables | None = None):
        super().__init__()
        self.rows, self.weights = rows, weights

    def weighted(self, side: str, ids: Tensor | None = None) -> Tensor:
        """(n, dim), or (len(ids), dim) for some ids only: the embeddings of one side."""
        raise NotImplementedError

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.weighted("users"), self.weighted("items")

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return self.weighted(side, ids)

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.rows.reset_parameters(std, generator)
        if self.weights is not None:
            for weights in self.weights.parameters():
                weights.fill_(1 / self.weights.assignment.users.codes_per_id)

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        self.rows.start_near(embeddings, rms)

    def _parts(self) -> dict[str, CodebookTables]:
        return {"rows": self.rows} | ({} if self.weights is None else {"weights": self.weights})

    def ledger(self) -> Ledger:
        parts = [part.ledger() for part in self._parts().values()]
        return Ledger(
            parameters=sum(part.parameters - part.extra_codes for part in parts),
            bytes=sum(part.bytes for part in parts),
            training_floats=sum(part.training_floats for part in parts),
            user_rows=parts[0].user_rows,
            item_rows=parts[0].item_rows,
        )

    def quantizable(self) -> dict[str, nn.Parameter]:
        return {f"rows/{name}": rows for name, rows in self.rows.quantizable().items()}

    def export(self) -> dict[str, np.ndarray]:
        headers, arrays = {}, dict[str, np.ndarray]()
        for part, tables in self._parts().items():
            own = tables.export()
            headers[part] = from_json_array(own.pop("header"))
            arrays |= {f"{part}/{name}": array for name, array in own.items()}
        return {"header": json_array(headers)} | arrays

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> WeightedTables:
        """The tables whose `export` these arrays are."""
        parts = {}
        for part, header in from_json_array(arrays["header"]).items():
            own = {
                name.removeprefix(f"{part}/"): array for name, array in arrays.items() if name.startswith(f"{part}/")
            }
            parts[part] = CodebookTables.from_export(own | {"header": json_array(header)})
        return cls(**parts)


@register_tables("ScalarTables")
class ScalarTables(WeightedTables):
    """`MemRec`'s tables: each id's sum of rows times its sum of scalars, the weights of width 1."""

    def weighted(self, side: str, ids: Tensor | None = None) -> Tensor:
        rows = getattr(self.rows, side)(ids)
        return rows if self.weights is None else rows * getattr(self.weights, side)(ids)


@register_tables("ImportanceTables")
class ImportanceTables(WeightedTables):
    """`HashEmbedding`'s tables: each row of an id has a weight, the weights of an id are a row of k."""

    def weighted(self, side: str, ids: Tensor | None = None) -> Tensor:
        codebook: Codebook = getattr(self.rows, side)
        codes = codebook.codes if ids is None else codebook.codes[ids]
        weights = getattr(self.weights, side)(ids)
        return embedding_bag(codes, codebook.rows, mode="sum", per_sample_weights=weights)
