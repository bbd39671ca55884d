"""Bayesian personalised ranking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from baco.backbones.backbone import SCORES, Backbone
from baco.embedding.tables import EmbeddingTables
from baco.losses.loss import Loss
from baco.numerics.triples import Batch
from baco.registry import register_loss
from baco.validation import setting


@register_loss("bpr")
@dataclass(frozen=True)
class BPR(Loss):
    """The mean of -log(epsilon + sigmoid(s_ui - s_uj)) with one negative j a pair (Rendle et al., UAI 2009).

    Attributes
    ----------
    epsilon : float
        The authors' code has 1e-10, which takes the gradient from pairs that are wrong by more than 23; 0 is exact.
    """

    score: str = setting("dot", one_of=SCORES)
    epsilon: float = setting(0.0, at_least=0)

    def num_negatives(self, batch_size: int) -> int:
        return batch_size

    def part(self, batch: Batch, mine: slice) -> Batch:
        return Batch(*(ids[mine] for ids in batch))

    def __call__(self, backbone: Backbone, tables: EmbeddingTables, batch: Batch) -> Tensor:
        return self.of_differences(backbone.score_differences(tables, batch))

    def of_differences(self, difference: Tensor) -> Tensor:
        """(): the same from (batch,) scores of positive items minus those of negative ones."""
        if self.epsilon == 0:
            return softplus(-difference).mean()
        return -torch.log(self.epsilon + torch.sigmoid(difference)).mean()
