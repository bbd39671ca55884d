import numba
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from baco import propagation
from baco.backbones import MF, LightGCN
from baco.codes import Assignment, Codes, Identity
from baco.graph import Biadjacency
from baco.propagation import Adjacency
from baco.scores import Batch, score_differences
from baco.tables import CodebookTables


def full_tables(graph, dim=8) -> CodebookTables:
    tables = CodebookTables(
        Assignment(
            Codes.from_rule(Identity(), graph.num_users, graph.num_users),
            Codes.from_rule(Identity(), graph.num_items, graph.num_items),
        ),
        dim,
    )
    tables.reset_parameters(1.0, torch.Generator().manual_seed(0))
    return tables


def dense_normalised(matrix: np.ndarray) -> np.ndarray:
    sums = matrix.sum(1)
    scale = np.where(sums > 0, 1 / np.sqrt(np.maximum(sums, 1e-30)), 0)
    return scale[:, None] * matrix * scale


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("dim", [1, 7, 64])
@pytest.mark.parametrize("weighted", [False, True])
def test_mean_of_layers_and_its_gradient(sparse_graph, num_layers, dim, weighted):
    """Against the dense matrix, and autograd through it."""
    if weighted:
        rng = np.random.default_rng(0)
        matrix = csr_array(np.where(rng.random((60, 60)) < 0.1, rng.random((60, 60)), 0))
        matrix = matrix + matrix.T
        adjacency, dense = Adjacency.from_matrix(matrix), dense_normalised(matrix.toarray())
    else:
        block = sparse_graph.to_matrix().toarray()
        square = np.block([[np.zeros((400, 400)), block], [block.T, np.zeros((250, 250))]])
        adjacency, dense = Adjacency.from_graph(sparse_graph), dense_normalised(square)
    dense = torch.as_tensor(dense, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    rows, factor = (torch.randn(len(dense), dim, generator=generator) for _ in range(2))
    expected_rows = rows.clone().requires_grad_()
    layers = [expected_rows]
    for _ in range(num_layers):
        layers.append(dense @ layers[-1])
    expected = sum(layers) / (num_layers + 1)
    rows.requires_grad_()
    found = adjacency.mean_of_layers(rows, num_layers)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (found * factor).sum().backward()
    (expected * factor).sum().backward()
    torch.testing.assert_close(rows.grad, expected_rows.grad, rtol=1e-4, atol=1e-5)
    if num_layers:  # what a GPU does, on the CPU
        found = propagation._horner_sparse(adjacency.on(torch.device("cpu")), rows.detach(), num_layers)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_threads_do_not_change_a_bit(sparse_graph):
    """Forward and backward passes of propagation and of score differences."""
    available = numba.get_num_threads()
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(sparse_graph.num_nodes, 64, generator=generator)
    batch = Batch(*(torch.randint(n, (5000,), generator=generator, dtype=torch.int32) for n in (400, 250, 250)))
    results = []
    try:
        for threads in (1, available):
            numba.set_num_threads(threads)
            rows = start.clone().requires_grad_()
            nodes = Adjacency.from_graph(sparse_graph).mean_of_layers(rows, 2)
            differences = score_differences(nodes[:400], nodes[400:], *batch)
            (differences * differences).sum().backward()
            results.append((differences.detach(), rows.grad))
    finally:
        numba.set_num_threads(available)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("dim", [1, 7, 48, 64])
def test_score_differences_and_their_gradient(dim):
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(30, dim, generator=generator), torch.randn(20, dim, generator=generator)
    batch = Batch(*(torch.randint(n, (500,), generator=generator, dtype=torch.int32) for n in (30, 20, 20)))
    factor = torch.randn(500, generator=generator)
    plain = users.double().requires_grad_(), items.double().requires_grad_()
    expected = (plain[0][batch.users] * (plain[1][batch.positives] - plain[1][batch.negatives])).sum(1)
    (expected * factor).sum().backward()
    users.requires_grad_()
    items.requires_grad_()
    found = score_differences(users, items, *batch)
    (found * factor).sum().backward()
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(users.grad, plain[0].grad.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(items.grad, plain[1].grad.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [3, 1000])  # MF looks small batches up, and large ones not
def test_mf_is_lightgcn_without_layers(sparse_graph, size):
    tables = full_tables(sparse_graph)
    mf, lightgcn = MF(sparse_graph, MF.Config()), LightGCN(sparse_graph, LightGCN.Config(num_layers=0))
    generator = torch.Generator().manual_seed(2)
    batch = Batch(*(torch.randint(n, (size,), generator=generator, dtype=torch.int32) for n in (400, 250, 250)))
    gradients = []
    for backbone in (mf, lightgcn):
        backbone.attach(tables)
        differences = backbone.score_differences(tables, batch)
        tables.zero_grad()
        differences.sum().backward()
        gradients.append([differences.detach(), tables.users.rows.grad.clone(), tables.items.rows.grad.clone()])
        for final, first in zip(backbone.final_embeddings(tables), tables(), strict=True):
            torch.testing.assert_close(final, first)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_node_without_neighbours_keeps_its_share():
    graph = Biadjacency.from_pairs(np.array([0]), np.array([0]), 2, 1)
    tables = full_tables(graph)
    users, _ = LightGCN(graph, LightGCN.Config(num_layers=2)).final_embeddings(tables)
    torch.testing.assert_close(users[1], tables.users.rows[1] / 3)
