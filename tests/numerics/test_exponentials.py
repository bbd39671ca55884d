import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baco.numerics.exponentials import exp_rows_


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 30.0, 1e4]))
def test_exponentials_are_those_of_numpy(seed, spread):
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.normal(0, spread, (5, 37)).astype(np.float32))
    top = torch.from_numpy(rng.normal(0, spread, 5).astype(np.float32))
    greatest = np.maximum(top.numpy(), scores.numpy().max(1))
    expected = np.exp((scores.numpy() - greatest[:, None]).astype(np.float64))
    sums = exp_rows_(scores, top)
    assert np.array_equal(top.numpy(), greatest)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=2e-6 * max(1, spread), atol=2e-38)
    np.testing.assert_allclose(sums.numpy(), expected.sum(1), rtol=1e-4 if spread > 100 else 1e-5, atol=1e-36)


@pytest.mark.parametrize("power", [0.0, -1e-7, -0.3465, -0.3466, -1.0, -86.0, -87.4, -200.0, -3e38])
def test_single_values(power):
    scores = torch.tensor([[power]])
    exp_rows_(scores, torch.zeros(1))
    assert scores.item() == pytest.approx(np.exp(np.float64(power)), rel=1e-5, abs=2e-38)
