"""Singular vectors of the normalised interactions, and rows that start near them."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from baco.backbones.backbone import LightGCN
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment, Codes
from baco.embedding.start import STRENGTH
from baco.evaluation.evaluator import Evaluator
from baco.graph import Biadjacency
from baco.numerics.spectral import normalise_interactions, singular_vectors, spectral_factors
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.full import full_tables
from tests.conftest import QUICK


def dense_normalised(graph) -> np.ndarray:
    degrees = np.outer(np.maximum(graph.user_degrees, 1), np.maximum(graph.item_degrees, 1))
    return graph.to_matrix().toarray() / np.sqrt(degrees)


@pytest.mark.parametrize(("count", "limit"), [(6, 0), (6, 2**20), (1000, 0)], ids=["ARPACK", "dense", "all of them"])
def test_singular_vectors_are_those_of_the_dense_matrix(sparse_graph, count, limit, monkeypatch):
    monkeypatch.setattr("baco.numerics.spectral.DENSE", limit)
    dense = dense_normalised(sparse_graph)
    np.testing.assert_allclose(normalise_interactions(sparse_graph).toarray(), dense, rtol=1e-6)
    left, values, right = singular_vectors(sparse_graph, count, np.random.default_rng(0))
    expected = np.linalg.svd(dense, compute_uv=False)[:count]
    assert expected[0] == pytest.approx(1)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    for vectors in (left, right):
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(expected)), atol=1e-6)
    np.testing.assert_allclose(np.diag(left.T @ dense @ right), expected, atol=1e-6)


def test_no_embeddings_of_the_width_come_closer_to_the_normalise_interactions(sparse_graph):
    dense = dense_normalised(sparse_graph)
    values = np.linalg.svd(dense, compute_uv=False)
    for dim in (2, 8):
        users, items = spectral_factors(sparse_graph, dim, np.random.default_rng(0))
        assert users.shape == (sparse_graph.num_users, dim) and users.dtype == items.dtype == np.float32
        assert np.linalg.norm(dense - users @ items.T) == pytest.approx(np.linalg.norm(values[dim:]), rel=1e-4)
        assert not users[sparse_graph.user_degrees == 0].any() and not items[sparse_graph.item_degrees == 0].any()


def test_columns_that_a_small_matrix_lacks_are_zero():
    graph = Biadjacency.from_matrix(np.array([[1, 0, 1], [0, 1, 0]]))
    users, items = spectral_factors(graph, 5, np.random.default_rng(0))
    assert users.shape == (2, 5) and items.shape == (3, 5)
    assert not users[:, 2:].any() and not items[:, 2:].any()
    np.testing.assert_allclose(users @ items.T, dense_normalised(graph), atol=1e-6)


def test_a_low_rank_changes_nothing_from_call_to_call():
    """ARPACK would go on from vectors of a global generator where the rank is used up."""
    graph = Biadjacency.from_matrix(np.kron(np.eye(20), np.ones((15, 12))))
    first, again = (spectral_factors(graph, 64, np.random.default_rng(1)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(first[0] @ first[1].T, dense_normalised(graph), atol=1e-6)


@pytest.mark.parametrize("limit", [0, 2**20], ids=["ARPACK", "dense"])
def test_threads_of_the_linear_algebra_change_nothing(planted, limit, monkeypatch):
    monkeypatch.setattr("baco.numerics.spectral.DENSE", limit)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            results.append(spectral_factors(planted.train, 8, np.random.default_rng(0)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_row_starts_at_the_mean_of_its_ids():
    """Users share row 0, user 1 has row 1 too, row 2 is nobody's; items share one row, and item 1 counts twice."""
    users = Codes(np.array([[0, 0], [0, 1]], np.int32), 3)
    items = Codes(np.array([[0], [0]], np.int32), 1, scale=np.array([0.5, 1.0], np.float16))
    tables = CodebookTables(Assignment(users, items), 2)
    wanted = np.array([[1.0, 0.0], [4.0, 3.0]], np.float32)
    tables.start_near(lambda dim: (wanted, wanted), 2.0)
    means = np.array([[2.0, 1.0], [4.0, 3.0], [0.0, 0.0]])  # (1 + 4 / 2) / 1.5, and so on
    expected = means * 2 / np.sqrt(np.mean(means**2))
    np.testing.assert_allclose(tables.users.rows.detach(), expected, rtol=1e-6)
    mean = np.array([[3.0, 2.0]])
    np.testing.assert_allclose(tables.items.rows.detach(), mean * 2 / np.sqrt(np.mean(mean**2)), rtol=1e-6)


def test_the_trainer_adds_factors_to_what_it_draws(planted):
    def rows(start):
        trainer = Trainer(
            LightGCN(planted.train, LightGCN.Config()), Evaluator(planted), QUICK, 3, torch.device("cpu"), start=start
        )
        return trainer.initialize(full_tables(planted.train, 8)).users.rows.detach()

    drawn = torch.randn(planted.num_users, 8, generator=torch_stream(3, "init")) * QUICK.init_std
    torch.testing.assert_close(rows("normal"), drawn)
    added = rows("spectral") - drawn
    factors = spectral_factors(planted.train, 8, stream(3, "init"))[0]
    assert added.square().mean().sqrt() == pytest.approx(STRENGTH * QUICK.init_std, rel=1e-4)
    torch.testing.assert_close(added / added.norm(), torch.tensor(factors / np.linalg.norm(factors)), atol=1e-5, rtol=0)


def test_without_interactions_the_start_is_what_was_drawn():
    tables = full_tables(Biadjacency.from_matrix(np.zeros((3, 4))), 2)
    tables.reset_parameters(1.0, torch_stream(0, "init"))
    before = tables.users.rows.clone()
    tables.start_near(lambda dim: (np.zeros((3, dim), np.float32), np.zeros((4, dim), np.float32)), 1.0)
    assert torch.equal(tables.users.rows, before) and before.abs().min() > 0
