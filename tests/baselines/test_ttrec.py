"""Tensor trains: embeddings entry by entry, and budgets to the last rank."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baco.embedding.rules import AffineHash
from baselines.ttrec import TensorTrainSide, ranks_within, three_digits, three_factors

IN_ORDER = AffineHash(np.array([1]), np.array([0]))


def filled(side, std=0.1):
    with torch.no_grad():
        side.reset_parameters(std, torch.Generator().manual_seed(0))
    return side


@pytest.mark.parametrize(("num_ids", "dim", "ranks"), [(100, 16, (3, 5)), (1, 7, (1, 1)), (57, 12, (4, 2))])
def test_tensor_trains_entry_by_entry(num_ids, dim, ranks):
    side = filled(TensorTrainSide(IN_ORDER, num_ids, ranks, dim))
    (p1, p2, p3), (q1, q2, q3), (r1, r2) = three_digits(num_ids), three_factors(dim), ranks
    first, second, third = (core.detach().double().numpy() for core in side.factors)
    first, second, third = (first.reshape(p1, q1, r1), second.reshape(p2, r1, q2, r2), third.reshape(p3, r2, q3))
    found = side().detach().numpy()
    for x in range(num_ids):
        i1, i2, i3 = x // (p2 * p3), x // p3 % p2, x % p3
        for j1 in range(q1):
            for j2 in range(q2):
                for j3 in range(q3):
                    expected = first[i1, j1] @ second[i2, :, j2] @ third[i3, :, j3]
                    assert found[x, (j1 * q2 + j2) * q3 + j3] == pytest.approx(expected, rel=1e-4, abs=1e-7)


@given(st.integers(1, 200_000))
def test_digits_reach_all_ids_with_little_waste(count):
    p = three_digits(count)
    assert count <= math.prod(p) <= 1.2 * count + 12
    assert max(p) <= min(p) + 2 + 0.1 * max(p)


@given(st.integers(1, 256))
def test_factors_multiply_to_the_width(dim):
    q = three_factors(dim)
    assert math.prod(q) == dim
    assert three_factors(64) == (4, 4, 4)


@given(st.integers(1, 10_000), st.floats(0.02, 1))
def test_ranks_fill_what_they_may(num_ids, ratio):
    p, q, floats = three_digits(num_ids), three_factors(64), int(ratio * 64 * num_ids)

    def cost(first, second):
        return p[0] * q[0] * first + p[1] * q[1] * first * second + p[2] * q[2] * second

    ranks = ranks_within(floats, p, q)
    if ranks is None:
        assert cost(1, 1) > floats
        return
    assert cost(*ranks) <= floats
    assert ranks[0] <= p[0] * q[0] and ranks[1] <= p[2] * q[2]
    if num_ids > 2000 and ratio < 0.9:
        assert cost(*ranks) > 0.97 * floats
