"""The squared loss over all pairs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from baco.backbones.backbone import SCORES, Backbone
from baco.embedding.tables import EmbeddingTables
from baco.losses.loss import Loss, pair_scores
from baco.numerics.triples import Batch
from baco.registry import register_loss
from baco.validation import setting


@register_loss("ials")
@dataclass(frozen=True)
class SquaredLoss(Loss):
    """Implicit-feedback squared loss over all pairs of users and items, by gradient (Rendle et al., arXiv 2110.14044).

    Divided by the number |S| of interactions, eq. 1 there without its regulariser, which is the protocol's decay:

        mean over S of (s_ui - 1)^2  +  weight / |S| * sum over all users and items of s_ui^2.

    A step takes the first mean over its batch. The second sum is exact, without any sampling: with final embeddings
    U and V it is the dot product of the two dim x dim Gramians U^T U and V^T V.

    Attributes
    ----------
    weight : float
        Of a pair; `alpha_0` there.
    """

    reads_all = True
    score: str = setting("dot", one_of=SCORES)
    weight: float = setting(0.1, at_least=0)

    def __call__(self, backbone: Backbone, tables: EmbeddingTables, batch: Batch) -> Tensor:
        users, items = backbone.final_embeddings(tables)
        scores = pair_scores(users, items, batch.users, batch.positives)
        everywhere = ((users.T @ users) * (items.T @ items)).sum()
        return (scores - 1).square().mean() + self.weight / backbone.train.num_edges * everywhere
