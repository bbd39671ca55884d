"""Sampled softmax."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from baco.backbones.backbone import Backbone
from baco.embedding.tables import EmbeddingTables
from baco.losses.blocks import blocks
from baco.losses.loss import BatchRows, Loss, with_gradients
from baco.numerics.exponentials import exp_rows_
from baco.numerics.triples import Batch
from baco.registry import register_loss
from baco.validation import setting

SAMPLINGS = ("uniform", "batch")


@register_loss("ssm")
@dataclass(frozen=True)
class SampledSoftmax(Loss):
    """Softmax over the positive item and negatives that the whole batch shares (Wu et al., arXiv 2201.02327, eq. 5).

    The mean over the pairs (u, i) of a batch of

        -log( exp(a_ui) / (exp(a_ui) + sum_j exp(a_uj)) )   with   a_ui = s_ui / temperature.

    A negative that is the pair's own item is left out of its sum.

    Attributes
    ----------
    temperature : float
    sampling : str
        'uniform': items drawn uniformly from all; 'batch': the items of the batch's own pairs, so in proportion to
        their interactions.
    negatives : int
        How many a batch has; with sampling 'batch' at most, and no more than it has pairs.
    correction : bool
        With sampling 'batch': subtract from a_ui and a_uj the logarithm of the item's share of all interactions, so
        that popular items are not punished for being drawn often (Yi et al., RecSys 2019, eq. 3).
    """

    temperature: float = setting(0.12, above=0)
    sampling: str = setting("uniform", one_of=SAMPLINGS)
    negatives: int = setting(1024, at_least=1)
    correction: bool = False

    def num_negatives(self, batch_size: int) -> int:
        return self.negatives if self.sampling == "uniform" else 0

    def part(self, batch: Batch, mine: slice) -> Batch:
        return super().part(self._with_negatives(batch), mine)

    def _with_negatives(self, batch: Batch) -> Batch:
        """The batch with the negatives that it has within itself; a part has those of the whole."""
        if self.sampling == "uniform" or len(batch.negatives) > 0:
            return batch
        return batch._replace(negatives=batch.positives[: self.negatives])

    def __call__(self, backbone: Backbone, tables: EmbeddingTables, batch: Batch) -> Tensor:
        rows = BatchRows.of(backbone, tables, self._with_negatives(batch))
        shift = None
        if self.sampling == "batch" and self.correction:
            degrees = torch.as_tensor(backbone.train.item_degrees, device=rows.items.device)
            shift = -torch.log(degrees[rows.item_ids] / backbone.train.num_edges)
        negatives, scores = embedding(rows.negatives, rows.items), rows.pair_scores()
        value, *gradients = softmax_loss(rows, negatives.detach(), scores.detach(), self.temperature, shift)
        return with_gradients(value, (rows.users, negatives, scores), gradients)


@torch.no_grad()
def softmax_loss(
    rows: BatchRows, negatives: Tensor, scores: Tensor, temperature: float, shift: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, and its gradients with respect to user rows, negatives and the scores of pairs.

    Users of several pairs are scored once. Their pairs share the sum over the negatives, save their own item.

    Parameters
    ----------
    rows : BatchRows
    negatives : (K, dim) float32
    scores : (batch,) float32
        Of the pairs.
    shift : (m,) float32, optional
        Added to what each item's scores give.
    """
    X, Y = rows.users.detach() / temperature, negatives
    positive = scores / temperature
    of_others = None
    if shift is not None:
        positive, of_others = positive + shift[rows.pair_item], shift[rows.negatives]
    own = torch.bincount(rows.negatives, minlength=len(rows.items))[rows.pair_item]
    ends = rows.pairs_per_user.cumsum(0).cpu()
    value, of_users, of_negatives = X.new_zeros(()), torch.empty_like(X), torch.zeros_like(Y)
    of_scores = torch.empty_like(scores)
    for block, products in blocks(X, Y):
        pairs = slice(int(ends[block.start - 1]) if block.start else 0, int(ends[block.stop - 1]))
        user, logit = rows.pair_user[pairs] - block.start, positive[pairs]
        if of_others is not None:
            products += of_others
        top = X.new_empty(len(products)).scatter_reduce_(0, user, logit, "amax", include_self=False)
        others = exp_rows_(products, top)
        logit = logit - top[user]
        itself = logit.exp()
        once = (1 - own[pairs]) * itself
        total = torch.maximum(others[user] + once, itself)  # as it is but for rounding
        value += (total.log() - logit).sum()
        of_scores[pairs] = once / total - 1
        weight = torch.zeros_like(top).index_add_(0, user, 1 / total)[:, None]
        torch.mm(products, Y, out=of_users[block]).mul_(weight)
        of_negatives.addmm_(products.T, X[block] * weight)
    mean = 1 / len(scores)
    return (
        value * mean,
        of_users.mul_(mean / temperature),
        of_negatives.mul_(mean),  # X has the temperature in it
        of_scores.mul_(mean / temperature),
    )
