"""Tables whose items are multiplied by a scale that is stored for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import csr_array, dia_array
from torch import Tensor, nn

from baco.embedding.cost import Ledger
from baco.embedding.quantizers import unpack_export
from baco.embedding.tables import EmbeddingTables
from baco.embedding.wrapped import WrappedTables
from baco.files import from_json_array, json_array
from baco.registry import register_tables, tables_class

SCALE = "item_scale"  # its name in an export


@register_tables("ScaledTables")
class ScaledTables(WrappedTables):
    """Other tables of any kind, each item's embedding times a number: what `Codes.scale` is for codes.

    Parameters: those of the inner tables, and one for each item, of two bytes.

    Parameters
    ----------
    inner : EmbeddingTables
    scale : (num_items,) float16
    """

    scale: Tensor

    def __init__(self, inner: EmbeddingTables, scale: np.ndarray):
        super().__init__(inner)
        self.stored = scale
        factors = torch.from_numpy(scale.astype(np.float32)[:, None])
        self.register_buffer("scale", factors, persistent=False)  # (num_items, 1)

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self.inner()
        return users, items * self.scale

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        rows = self.inner.lookup(side, ids)
        return rows * self.scale[ids] if side == "items" else rows

    def inherit(self, users: np.ndarray, items: np.ndarray) -> None:
        self.inner.inherit(users, items / self.stored.astype(np.float32)[:, None])

    def pooling(self) -> csr_array:
        weights = self.inner.pooling()
        num_users = len(self.inner()[0])
        factors = np.ones(sum(map(len, self.shared_rows())) if weights is None else weights.shape[0], np.float32)
        factors[num_users : num_users + len(self.stored)] = self.stored
        diagonal = dia_array((factors[None], [0]), shape=(len(factors),) * 2)
        return csr_array(diagonal if weights is None else diagonal @ weights)

    def ledger(self) -> Ledger:
        ledger = self.inner.ledger()
        stored = self.stored
        return replace(ledger, parameters=ledger.parameters + stored.size, bytes=ledger.bytes + stored.nbytes)

    def quantizable(self) -> dict[str, nn.Parameter]:
        return self.inner.quantizable()

    def export(self) -> dict[str, np.ndarray]:
        arrays = self.inner.export()
        header = {"tables": self.inner.kind, "header": from_json_array(arrays["header"])}
        return arrays | {"header": json_array(header), SCALE: self.stored}

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> ScaledTables:
        """The tables whose `export` these arrays are."""
        header = from_json_array(arrays["header"])
        inner = unpack_export(arrays | {"header": json_array(header["header"])})
        return cls(tables_class(header["tables"]).from_export(inner), arrays[SCALE])
