"""Tables whose rows are stored in fewer bits than they are trained in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from baco.embedding.codes import Assignment
from baco.embedding.cost import Ledger, RowFormat
from baco.embedding.quantizers import Quantizer, pack_export
from baco.embedding.tables import Embeddings, EmbeddingTables, FinalEmbeddings
from baco.errors import UserError


class QuantizedTables(EmbeddingTables):
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
        super().__init__()
        if not inner.quantizable():
            raise UserError(
                f"the tables of this method cannot be packed as {quantizer.label}; train them without a quantizer"
            )
        self.inner = inner
        self.quantizer = quantizer
        self.seed = seed
        self.weights = weights or {}
        self._packed: dict[str, dict[str, np.ndarray]] = {}

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
        self.inner.on_training_end()
        self._packed = self._pack(self.inner.export())
        for name, parameter in self.inner.quantizable().items():
            parameter.copy_(torch.from_numpy(self.quantizer.unpack(self._packed[name], parameter.shape[1])))

    def export(self) -> dict[str, np.ndarray]:
        """The inner export with its rows packed: as `on_training_end` did it, unless they have changed since."""
        arrays, packed = self.inner.export(), self._packed
        kept = packed and all(
            np.array_equal(self.quantizer.unpack(own, arrays[name].shape[1]), arrays[name])
            for name, own in packed.items()
        )
        return pack_export(arrays, packed if kept else self._pack(arrays), self.quantizer)

    def _pack(self, arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        rng = np.random.default_rng(self.seed)
        return {
            name: self.quantizer.pack(arrays[name], rng, self.weights.get(name)) for name in self.inner.quantizable()
        }

    # Everything else is left to the inner tables ---------------------------------------------------------------------

    @property
    def kind(self) -> str:
        return self.inner.kind

    @property
    def assignment(self) -> Assignment | None:
        return self.inner.assignment

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.inner()

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return self.inner.lookup(side, ids)

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.inner.reset_parameters(std, generator)

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        self.inner.start_near(embeddings, rms)

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
