"""The ranking loss and its regulariser."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from baco.graph import Biadjacency
from baco.tables import EmbeddingTables


def bpr_loss(difference: Tensor, epsilon: float = 0.0) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009): the mean of -log(epsilon + sigmoid(difference)).

    Parameters
    ----------
    difference : (batch,) float32
        Score of the positive item minus score of the negative one.
    epsilon : float
        The authors' code has 1e-10, which takes the gradient from pairs that are wrong by more than 23; 0 is exact.
    """
    if epsilon == 0:
        return softplus(-difference).mean()
    return -torch.log(epsilon + torch.sigmoid(difference)).mean()


def expected_squares(tables: EmbeddingTables, train: Biadjacency) -> Tensor:
    """The expected squared norm of the layer-0 embeddings of a training triple: |e_u|^2 + |e_i|^2 + |e_j|^2.

    LightGCN's regulariser sums these over a batch; its expectation costs less and adds no noise. User u is in a triple
    with probability d_u / E, item i as the positive one with d_i / E and as the negative one with 1 / num_items.
    """
    users, items = tables()
    user_share = torch.as_tensor(train.user_degrees / train.num_edges, dtype=users.dtype, device=users.device)
    item_share = torch.as_tensor(
        train.item_degrees / train.num_edges + 1 / train.num_items, dtype=items.dtype, device=items.device
    )
    return user_share @ users.square().sum(1) + item_share @ items.square().sum(1)
