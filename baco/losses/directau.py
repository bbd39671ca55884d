"""Alignment and uniformity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from baco.backbones.backbone import Backbone
from baco.embedding.tables import EmbeddingTables
from baco.losses.blocks import blocks
from baco.losses.loss import BatchRows, Loss, pair_scores, with_gradients
from baco.numerics.exponentials import exp_rows_
from baco.numerics.triples import Batch
from baco.registry import register_loss
from baco.validation import setting


@register_loss("directau")
@dataclass(frozen=True)
class DirectAU(Loss):
    """Alignment of pairs and uniformity on the sphere, without negatives (Wang et al., KDD 2022, arXiv 2206.12811).

    With x and y of length 1, over the pairs (x, y) of a batch (eq. 5 and 6 there):

        mean |x - y|^2 + gamma / 2 * ( log mean exp(-2 |x - x'|^2) + log mean exp(-2 |y - y'|^2) ),

    the second and third mean over all pairs of different places in the batch. Their cost grows with the square of the
    batch. The authors rank by dot products (`score=dot`) of what the loss sees at length 1.

    Attributes
    ----------
    gamma : float
    """

    splits = False
    gamma: float = setting(1.0, at_least=0)

    def __call__(self, backbone: Backbone, tables: EmbeddingTables, batch: Batch) -> Tensor:
        rows = BatchRows.of(backbone, tables, batch)
        users, items = normalize(rows.users), normalize(rows.items)
        scores = pair_scores(users, items, rows.pair_user, rows.pair_item)
        pairs_per_item = torch.bincount(rows.pair_item, minlength=len(items))
        size = len(scores)
        uniformity = log_potential(users, rows.pairs_per_user, size) + log_potential(items, pairs_per_item, size)
        return (2 - 2 * scores).mean() + self.gamma / 2 * uniformity


def log_potential(X: Tensor, counts: Tensor, size: int) -> Tensor:
    """(): log mean exp(-2 |x - x'|^2) over all pairs of different places, of which each row has some; differentiable.

    Parameters
    ----------
    X : (n, dim) float32, rows of length 1
    counts : (n,) integers
        Places that have the row.
    size : int
        All places, the sum of the counts.
    """
    number = counts.to(X.dtype)
    rows = X.detach()
    weighted = rows * number[:, None]
    total, gradient = X.new_full((), -size), torch.empty_like(rows)  # a place is no pair with itself
    for block, products in blocks(rows, rows):
        top = torch.full_like(number[block], 4)
        exp_rows_(products.mul_(4), top)  # |x - x'|^2 = 2 - 2 x.x'; a product is at most 1, save for rounding
        total += number[block] @ (products @ number)
        torch.mm(products, weighted, out=gradient[block])
    if size < 2:
        return (X * 0).sum()
    return with_gradients(torch.log(total / (size * (size - 1))), (X,), [gradient.mul_(8 * number[:, None] / total)])
