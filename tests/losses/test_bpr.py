import numpy as np
import pytest
import torch

from baco.losses.bpr import BPR


def test_loss_is_its_formula():
    difference = torch.tensor([-30.0, -1.0, 0.0, 2.0], dtype=torch.float64)
    sigmoid = 1 / (1 + np.exp(-difference.numpy()))
    for epsilon in (0.0, 1e-10):
        expected = -np.log(epsilon + sigmoid).mean()
        assert BPR(epsilon=epsilon).of_differences(difference).item() == pytest.approx(expected, rel=1e-12)


def test_the_published_epsilon_mutes_hopeless_pairs():
    gradients = []
    for epsilon in (0.0, 1e-10):
        difference = torch.tensor([-40.0], requires_grad=True)
        BPR(epsilon=epsilon).of_differences(difference).backward()
        gradients.append(difference.grad.item())
    assert gradients[0] == pytest.approx(-1)
    assert abs(gradients[1]) < 1e-6
    huge = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = BPR().of_differences(huge)
    loss.backward()
    assert loss.item() == pytest.approx(5e3) and huge.grad.isfinite().all()
