"""Information-theoretic co-clustering against its definition with dense tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.rng import stream
from baselines.itcc import InformationTheoreticCoclustering, half_step, mutual_information
from baselines.support.connected import Connected
from tests.coclustering.test_solvers import graphs


def dense_table(matrix, rows, columns, k, m):
    """p(row cluster, column cluster)."""
    return np.eye(k)[rows].T @ matrix.toarray() @ np.eye(m)[columns] / matrix.nnz


def dense_information(matrix, rows, columns, k, m):
    p = dense_table(matrix, rows, columns, k, m)
    expected = np.outer(p.sum(1), p.sum(0))
    return (p[p > 0] * np.log(p[p > 0] / expected[p > 0])).sum()


def random_start(size, k, rng):
    return (rng.permutation(size) % k).astype(np.int32)


@given(graphs(), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.7]), st.integers(0, 5))
def test_half_steps_take_the_best_cluster(graph, k, m, smoothing, seed):
    matrix, rng = Connected(graph).graph.to_matrix(), np.random.default_rng(seed)
    k, m = min(k, matrix.shape[0]), min(m, matrix.shape[1])
    rows, columns = random_start(matrix.shape[0], k, rng), random_start(matrix.shape[1], m, rng)
    p = dense_table(matrix, rows, columns, k, m)
    q = (1 - smoothing) * p / p.sum(1, keepdims=True) + smoothing * p.sum(0)
    profiles = matrix.toarray() @ np.eye(m)[columns]
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.nansum(profiles[:, None, :] * np.log(q)[None], axis=2)  # 0 log 0 = 0
    labels = half_step(matrix, rows, columns, k, m, smoothing)
    assert set(labels.tolist()) == set(range(k))
    chosen = scores[np.arange(len(labels)), labels]
    best = np.flatnonzero(chosen >= scores.max(1) - 1e-9)
    emptied = k - len(set(labels[best].tolist()))
    assert len(labels) - len(best) <= max(emptied, 0), "only rows that fill an empty cluster are elsewhere"


@given(graphs(), st.integers(1, 5), st.integers(1, 5), st.integers(0, 5))
def test_mutual_information_never_falls_without_smoothing(graph, k, m, seed):
    matrix, rng = Connected(graph).graph.to_matrix(), np.random.default_rng(seed)
    by_column = matrix.T.tocsr()
    k, m = min(k, matrix.shape[0]), min(m, matrix.shape[1])
    rows, columns = random_start(matrix.shape[0], k, rng), random_start(matrix.shape[1], m, rng)
    values = [dense_information(matrix, rows, columns, k, m)]
    for _ in range(4):
        rows = half_step(matrix, rows, columns, k, m, 0.0)
        values.append(dense_information(matrix, rows, columns, k, m))
        columns = half_step(by_column, columns, rows, m, k, 0.0)
        values.append(dense_information(matrix, rows, columns, k, m))
        assert mutual_information(matrix, rows, columns) == pytest.approx(values[-1], abs=1e-9)
    assert (np.diff(values) >= -1e-9).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_information_is_gained_and_the_budget_filled(planted, smoothing):
    budget = Budget.parse(30, "parameters", planted.num_users, planted.num_items, 64)
    method = InformationTheoreticCoclustering(InformationTheoreticCoclustering.Config(smoothing))
    assignment = method.assign(planted.train, budget, stream(0, "assign"))
    assert assignment.users.num_rows + assignment.items.num_rows == 30
    assert assignment.details["information"] > 3 * assignment.details["information_at_start"]


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(UserError, match="smoothing="):
        InformationTheoreticCoclustering.Config(smoothing)
