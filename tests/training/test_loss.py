import numpy as np
import pytest
import torch

from baco.training.loss import bpr_loss


def test_loss_is_its_formula():
    difference = torch.tensor([-30.0, -1.0, 0.0, 2.0], dtype=torch.float64)
    sigmoid = 1 / (1 + np.exp(-difference.numpy()))
    for epsilon in (0.0, 1e-10):
        expected = -np.log(epsilon + sigmoid).mean()
        assert bpr_loss(difference, epsilon).item() == pytest.approx(expected, rel=1e-12)


def test_the_published_epsilon_mutes_hopeless_pairs():
    gradients = []
    for epsilon in (0.0, 1e-10):
        difference = torch.tensor([-40.0], requires_grad=True)
        bpr_loss(difference, epsilon).backward()
        gradients.append(difference.grad.item())
    assert gradients[0] == pytest.approx(-1)
    assert abs(gradients[1]) < 1e-6
    huge = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = bpr_loss(huge)
    loss.backward()
    assert loss.item() == pytest.approx(5e3) and huge.grad.isfinite().all()
