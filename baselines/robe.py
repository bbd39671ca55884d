"""Random offset block embedding: chunks of embeddings lie at hashed places of one array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.codes import SIDES
from baco.embedding.cost import FLOAT_BYTES, Ledger
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.registry import register_method, register_tables
from baco.validation import Validated, setting

PRIME = 2**31 - 1
HASH_BYTES = 64  # of two hashes with four coefficients each


@register_method("robe")
class Robe(Compressor):
    """Random offset block embedding array, ROBE-Z (Desai, Chou, Shrivastava, MLSys 2022, arXiv 2108.02191).

    An embedding is cut into chunks of Z entries. Chunk c of the id x of side e (0: users, 1: items) begins at the place
    h(e, x, c) of one array of floats, which is read in a circle, and is multiplied by the sign g(e, x, c). Both are
    universal hashes, (a e + b x + c' c + d) mod P, modulo the length of the array and modulo 2.
    Parameters: the length of the array, which is the budget; hashes are computed and not counted.

    Chunks of one id may overlap, and some floats are in no chunk: a part exp(-1 / r) of an array that is r times as
    large as the full model.
    """

    label = "ROBE"

    @dataclass(frozen=True)
    class Config(Validated):
        """chunk : Z, consecutive entries of an embedding that are so in the array, too."""

        chunk: int = setting(8, at_least=1)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> RobeTables:
        length = budget.limit if budget.unit == "parameters" else (budget.limit - HASH_BYTES) // FLOAT_BYTES
        if length < budget.dim:
            raise UserError(
                f"the budget of {budget.limit:,} {budget.unit} buys robe an array shorter than one embedding of "
                f"{budget.dim}; raise the budget"
            )
        coefficients = rng.integers(1, PRIME, size=(2, 4))
        return RobeTables(coefficients, train.num_users, train.num_items, budget.dim, length, self.config.chunk)


@register_tables("RobeTables")
class RobeTables(EmbeddingTables):
    """`Robe`'s tables.

    Parameters
    ----------
    coefficients : (2, 4) int64
        a, b, c', d of the hash for places and of that for signs.
    num_users, num_items, dim : int
    length : int
        Of the array.
    chunk : int
    """

    def __init__(self, coefficients: np.ndarray, num_users: int, num_items: int, dim: int, length: int, chunk: int):
        super().__init__()
        self.array = nn.Parameter(torch.zeros(length))
        self.coefficients = coefficients
        self.sizes = {"num_users": num_users, "num_items": num_items, "dim": dim, "length": length, "chunk": chunk}
        of_places, of_signs = coefficients
        for number, (side, num_ids) in enumerate(zip(SIDES, (num_users, num_items), strict=True)):
            chunks = number, num_ids, -(-dim // chunk)
            places = hashed_chunks(of_places, *chunks) % length
            signs = 2 * (hashed_chunks(of_signs, *chunks) % 2) - 1
            self.register_buffer(f"{side}_places", torch.as_tensor(places), persistent=False)  # (n, chunks) int64
            self.register_buffer(f"{side}_signs", torch.as_tensor(signs.astype(np.float32)), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = (self._read(getattr(self, f"{side}_places"), getattr(self, f"{side}_signs")) for side in SIDES)
        return users, items

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return self._read(getattr(self, f"{side}_places")[ids], getattr(self, f"{side}_signs")[ids])

    def _read(self, places: Tensor, signs: Tensor) -> Tensor:
        """(n, dim): the chunks at (n, chunks) places, times their signs."""
        column = torch.arange(self.sizes["dim"], device=places.device)
        chunk, entry = column // self.sizes["chunk"], column % self.sizes["chunk"]
        index = (places[:, chunk] + entry) % len(self.array)  # (n, dim)
        return self.array.index_select(0, index.flatten()).view(index.shape) * signs[:, chunk]

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.array.copy_(torch.randn(self.array.shape, generator=generator) * std)

    def ledger(self) -> Ledger:
        length = len(self.array)
        return Ledger(parameters=length, bytes=FLOAT_BYTES * length + HASH_BYTES, training_floats=length)

    def export(self) -> dict[str, np.ndarray]:
        array = self.array.detach().cpu().numpy()
        return {"header": json_array(self.sizes), "array": array, "coefficients": self.coefficients}

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> RobeTables:
        """The tables whose `export` these arrays are."""
        tables = cls(arrays["coefficients"], **from_json_array(arrays["header"]))
        with torch.no_grad():
            tables.array.copy_(torch.as_tensor(arrays["array"]))
        return tables


def hashed_chunks(coefficients: np.ndarray, side: int, num_ids: int, num_chunks: int) -> np.ndarray:
    """(num_ids, num_chunks) int64 in [0, PRIME): the hash of each chunk of the ids of a side."""
    of_side, of_id, of_chunk, offset = coefficients
    ids, chunks = np.arange(num_ids)[:, None], np.arange(num_chunks)
    return (of_side * side + of_id * ids + of_chunk * chunks + offset) % PRIME
