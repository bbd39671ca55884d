"""Residual quantization of the full model, under a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from baco.embedding.product_codes import ResidualQuantizer
from baco.registry import register_method, register_tables
from baco.validation import setting
from baselines.support.centroids import AfterTraining, AfterTrainingSettings, CentroidCodebook, CentroidTables


class ResidualCodebook(CentroidCodebook):
    """Centroids of all levels one below the other, and a code for each level of an id."""

    starts: Tensor

    def __init__(self, quantizer: ResidualQuantizer, num_ids: int, dim: int, rng: np.random.Generator):
        super().__init__(quantizer, num_ids, dim, rng)
        self.register_buffer("starts", torch.from_numpy(quantizer.starts), persistent=False)  # (levels,)

    def forward(self, ids: Tensor | None = None) -> Tensor:
        codes = self.codes if ids is None else self.codes[ids]
        return embedding_bag(codes + self.starts, self.centroids, mode="sum")

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        super().reset_parameters(std / math.sqrt(len(self.starts)), generator)  # an entry is a sum


@register_tables("ResidualTables")
class ResidualTables(CentroidTables):
    """Centroids under residual codes. Parameters: levels * dim * 2^bits per side, plus (levels - 1) codes per id."""

    Quantizer = ResidualQuantizer
    Codebook = ResidualCodebook


@register_method("rq")
class ResidualQuantization(AfterTraining):
    """The full model, its rows then replaced by sums of centroids, one of each level (`ResidualQuantizer`): the
    semantic ids of generative recommenders (Rajput et al., NeurIPS 2023), by k-means as in Luo et al. (CIKM
    2025, arXiv 2411.11739), of trained rows in place of texts and images.

    Parameters: 2 levels * dim * 2^bits, plus (levels - 1) codes per id. A level has one code per id as a block of
    product codes has, but centroids as wide as the embedding. With `finetune` they are then trained under the frozen
    codes, by a second training of the same length.
    """

    label = "Full, RQ"
    Tables = ResidualTables

    @dataclass(frozen=True)
    class Config(AfterTrainingSettings):
        """levels : codes per id; None: the budget decides."""

        levels: int | None = setting(None, at_least=1)

        @property
        def num_codes(self) -> int | None:
            return self.levels

    config: Config
