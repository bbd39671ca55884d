"""The ranking loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


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
