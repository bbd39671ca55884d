"""Tables whose rows are stored in fewer bits than they are trained in."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch

from baco.embedding.cost import Ledger, RowFormat
from baco.embedding.quantizer import Quantizer
from baco.embedding.quantizers import pack_export
from baco.embedding.tables import EmbeddingTables
from baco.embedding.wrapped import WrappedTables
from baco.errors import UserError


class QuantizedTables(WrappedTables):
    """Other tables, trained as they are, then quantized: after training they hold what the packed rows stand for.

    What is tested is therefore what is exported. The ledger is that of the packed form from the start.

    Parameters
    ----------
    inner : EmbeddingTables
    quantizer : Quantizer
    seed : int
        Of the k-means of product quantization.
    weights : dict, optional
        From names of `inner.quantizable()` to weights of their rows, see `Quantizer.pack`.

    Raises
    ------
    UserError
        When the inner tables have nothing that can be quantized.
    """

    def __init__(
        self,
        inner: EmbeddingTables,
        quantizer: Quantizer,
        seed: int,
        weights: dict[str, np.ndarray] | None = None,
    ):
        super().__init__(inner)
        if not inner.quantizable():
            raise UserError(
                f"the tables of this method cannot be packed as {quantizer.label}; train them without a quantizer"
            )
        self.quantizer = quantizer
        self.seed = seed
        self.weights = weights or {}
        self._packed: dict[str, dict[str, np.ndarray]] = {}
        self._digests: dict[str, bytes] = {}  # of the rows that the packed ones stand for

    @property
    def kind(self) -> str:
        return self.inner.kind

    def ledger(self) -> Ledger:
        ledger = self.inner.ledger()
        for parameter in self.inner.quantizable().values():
            rows, width = parameter.shape
            before, after = RowFormat.float32(width), self.quantizer.format(width)
            ledger = replace(
                ledger,
                parameters=ledger.parameters + after.parameters(rows) - before.parameters(rows),
                bytes=ledger.bytes + after.bytes(rows) - before.bytes(rows),
            )
        return ledger

    @torch.no_grad()
    def on_training_end(self) -> None:
        super().on_training_end()
        self._packed = self._pack(self.inner.export())
        for name, parameter in self.inner.quantizable().items():
            rows = self.quantizer.unpack(self._packed[name], parameter.shape[1])
            self._digests[name] = digest(rows)
            parameter.copy_(torch.from_numpy(rows))

    def export(self) -> dict[str, np.ndarray]:
        """The inner export with its rows packed: as `on_training_end` did it, unless they have changed since."""
        arrays = self.inner.export()
        kept = self._digests == {name: digest(arrays[name]) for name in self.inner.quantizable()}
        return pack_export(arrays, self._packed if kept else self._pack(arrays), self.quantizer)

    def _pack(self, arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        rng = np.random.default_rng(self.seed)
        return {
            name: self.quantizer.pack(arrays[name], rng, self.weights.get(name)) for name in self.inner.quantizable()
        }


def digest(rows: np.ndarray) -> bytes:
    """SHA-256 of the content, by which rows are known again without a copy of them."""
    return hashlib.sha256(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data).digest()
