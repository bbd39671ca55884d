"""Product quantization of the full model, plain and after a learned rotation, under a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from baco.embedding.product_codes import ProductQuantizer, RotatedProductQuantizer
from baco.registry import register_method, register_tables
from baco.validation import setting
from baselines.support.centroids import (
    AfterTraining,
    AfterTrainingSettings,
    CentroidCodebook,
    CentroidSettings,
    CentroidTables,
)


class ProductCodebook(CentroidCodebook):
    """Centroids of all blocks side by side, and a code for each block of an id."""

    block_of_column: Tensor

    def __init__(self, quantizer: ProductQuantizer, num_ids: int, dim: int, rng: np.random.Generator):
        super().__init__(quantizer, num_ids, dim, rng)
        blocks = torch.from_numpy(quantizer.block_of_column(dim))
        self.register_buffer("block_of_column", blocks, persistent=False)  # (dim,)

    def forward(self, ids: Tensor | None = None) -> Tensor:
        codes = self.codes if ids is None else self.codes[ids]
        return torch.gather(self.centroids, 0, codes[:, self.block_of_column].long())


class RotatedCodebook(ProductCodebook):
    """The same, turned back by the transpose of the rotation under which the codes were learned."""

    stored = ("centroids", "codes", "rotation")
    rotation: Tensor

    def __init__(self, quantizer: RotatedProductQuantizer, num_ids: int, dim: int, rng: np.random.Generator):
        super().__init__(quantizer, num_ids, dim, rng)
        self.register_buffer("rotation", torch.eye(dim))

    def forward(self, ids: Tensor | None = None) -> Tensor:
        return super().forward(ids) @ self.rotation


@register_tables("ProductTables")
class ProductTables(CentroidTables):
    """Centroids under product codes. Parameters: dim * 2^bits per side, plus (blocks - 1) codes per id."""

    Quantizer = ProductQuantizer
    Codebook = ProductCodebook


@register_tables("RotatedTables")
class RotatedTables(CentroidTables):
    """Those of rotated rows. Parameters: dim * (2^bits + dim) per side, plus (blocks - 1) codes per id."""

    Quantizer = RotatedProductQuantizer
    Codebook = RotatedCodebook


@dataclass(frozen=True)
class ProductSettings(CentroidSettings):
    """blocks : codes per id; None: the budget decides."""

    blocks: int | None = setting(None, at_least=1)

    @property
    def num_codes(self) -> int | None:
        return self.blocks


@register_method("pq")
class ProductQuantization(AfterTraining):
    """The full model, its rows then replaced by product codes (Jégou, Douze, Schmid, TPAMI 2011; `ProductQuantizer`).

    Parameters: 2 dim * 2^bits, plus (blocks - 1) codes per id. Centroids are those of k-means of each side. With
    `finetune` they are then trained under the frozen codes, by a second training of the same length.
    """

    label = "Full, PQ"
    Tables: ClassVar[type[CentroidTables]] = ProductTables

    @dataclass(frozen=True)
    class Config(ProductSettings, AfterTrainingSettings):
        """The settings of product codes, and of methods that pack the full model."""

    config: Config


@register_method("opq")
class OptimizedProductQuantization(ProductQuantization):
    """The full model, its rows then replaced by product codes of what a learned rotation makes of them (Ge, He, Ke,
    Sun, CVPR 2013; `RotatedProductQuantizer`).

    Parameters: 2 dim * (2^bits + dim), plus (blocks - 1) codes per id. With `finetune` the centroids are trained, the
    rotations are not.
    """

    label = "Full, OPQ"
    Tables = RotatedTables
