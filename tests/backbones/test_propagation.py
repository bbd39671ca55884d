"""Propagation and score differences against dense matrices and autograd through them."""

import tracemalloc

import numba
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from baco.backbones.backbone import MF, LightGCN
from baco.backbones.propagation import Propagation, bipartite_adjacency, normalise
from baco.backbones.propagation_gpu import GpuPropagation
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment, Codes
from baco.embedding.rules import AffineHash, Identity
from baco.graph import Biadjacency
from baco.numerics.sparse import product_entries
from baco.numerics.triples import Batch

USERS, ITEMS = 400, 250  # of sparse_graph
CODES = [0, 2, 12]  # twelve are so many that layer 0 is made


def tables_of(graph, dim=8, rows=None) -> CodebookTables:
    """The full model, or two hashed codes per user into some rows and one per item."""
    if rows is None:
        rules = Identity(), Identity()
        sizes = graph.num_users, graph.num_items
    else:
        rng = np.random.default_rng(0)
        rules = AffineHash.draw(2, graph.num_users, rng), AffineHash.draw(1, graph.num_items, rng)
        sizes = rows, rows
    users = Codes.from_rule(rules[0], graph.num_users, sizes[0])
    tables = CodebookTables(Assignment(users, Codes.from_rule(rules[1], graph.num_items, sizes[1])), dim)
    tables.reset_parameters(1.0, torch.Generator().manual_seed(0))
    return tables


def dense_normalised(matrix: np.ndarray) -> np.ndarray:
    sums = matrix.sum(1)
    scale = np.where(sums > 0, 1 / np.sqrt(np.maximum(sums, 1e-30)), 0)
    return scale[:, None] * matrix * scale


def random_batch(size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(*(torch.randint(n, (size,), generator=generator, dtype=torch.int32) for n in (USERS, ITEMS, ITEMS)))


class Dense:
    """The same formulas with dense float64 matrices, the layers written out."""

    def __init__(self, adjacency, num_layers, pooling=None):
        self.adjacency = torch.as_tensor(np.asarray(adjacency), dtype=torch.float64)
        self.pooling = torch.eye(len(adjacency)).double() if pooling is None else torch.as_tensor(pooling.toarray())
        self.num_layers = num_layers

    def __call__(self, rows):
        layers = [self.pooling.double() @ rows]
        for _ in range(self.num_layers):
            layers.append(self.adjacency @ layers[-1])
        return sum(layers) / len(layers)

    def score_differences(self, batch, rows):
        users, items = self(rows).tensor_split([USERS])[:2]
        users, positives, negatives = users[batch.users], items[batch.positives], items[batch.negatives]
        return (users * (positives - negatives)).sum(1)


def cases(graph, num_layers, codes, weighted=False):
    """A propagation with so many codes per id (0: rows of their own), its dense counterpart, and values of the rows."""
    rng = np.random.default_rng(0)
    if weighted:  # five nodes more than users and items
        size = USERS + ITEMS + 5
        matrix = csr_array(np.where(rng.random((size, size)) < 0.02, rng.random((size, size)), 0).astype(np.float32))
        matrix = matrix + matrix.T
        dense = matrix.toarray().astype(np.float64)
    else:
        matrix = bipartite_adjacency(graph)
        block = graph.to_matrix().toarray()
        dense = np.block([[np.zeros((USERS, USERS)), block], [block.T, np.zeros((ITEMS, ITEMS))]])
    pooling = None
    if codes:
        index = rng.integers(90, size=(len(dense), codes))
        ends = np.arange(0, index.size + 1, codes)
        pooling = csr_array((rng.random(index.size).astype(np.float32), index.ravel(), ends), shape=(len(dense), 90))
    ours = Propagation(normalise(matrix), num_layers, USERS, pooling)
    rows = rng.standard_normal((ours.chains.num_rows, 24))
    return ours, Dense(dense_normalised(dense), num_layers, pooling), rows


def gradients(function, rows, dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the gradient of its sum under fixed random weights; rows come in two tensors."""
    tables = [part.to(dtype).requires_grad_() for part in torch.as_tensor(rows).tensor_split([len(rows) // 3])]
    output = function(*tables)
    factor = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (output * factor).sum().backward()
    return output.detach().double(), torch.cat([table.grad for table in tables]).double()


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("weighted", [False, True])
def test_final_embeddings_and_their_gradient(sparse_graph, num_layers, codes, weighted):
    ours, dense, rows = cases(sparse_graph, num_layers, codes, weighted)
    expected = gradients(lambda *tables: dense(torch.cat(tables)), rows, torch.float64)
    for found, wanted in zip(gradients(ours, rows, torch.float32), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    start = torch.as_tensor(rows, dtype=torch.float32)  # what a GPU does, on the CPU
    on_gpu = GpuPropagation(ours.chains)
    forward = on_gpu.forward(start.tensor_split([len(rows) // 3]))
    torch.testing.assert_close(forward.double(), expected[0], rtol=1e-4, atol=1e-5)
    factor = torch.randn(forward.shape, generator=torch.Generator().manual_seed(1))
    backward = on_gpu.backward(factor)
    torch.testing.assert_close(backward.double(), expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 60, 5000])  # a large batch touches every node, a small one a few
@pytest.mark.parametrize("num_layers", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("codes", CODES)
def test_score_differences_and_their_gradient(sparse_graph, size, num_layers, codes):
    ours, dense, rows = cases(sparse_graph, num_layers, codes)
    batch = random_batch(size, seed=3)
    expected = gradients(lambda *tables: dense.score_differences(batch, torch.cat(tables)), rows, torch.float64)
    found = gradients(lambda *tables: ours.score_differences(batch, *tables), rows, torch.float32)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("codes", [2, 12])
def test_two_batches_at_once(sparse_graph, codes):
    """Both are differentiated after both were scored: scratch memory must not carry anything between them."""
    ours, dense, rows = cases(sparse_graph, 2, codes)
    batches = random_batch(5000, 1), random_batch(40, 2), random_batch(5000, 3)

    def all_of(score):
        return lambda *tables: torch.cat([score(batch, *tables) for batch in batches])

    expected = gradients(
        all_of(lambda batch, *tables: dense.score_differences(batch, torch.cat(tables))), rows, torch.float64
    )
    for found, wanted in zip(gradients(all_of(ours.score_differences), rows, torch.float32), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_layer_0_is_made_where_ids_have_many_codes_and_are_propagated(sparse_graph, num_layers, codes):
    ours, _, _ = cases(sparse_graph, num_layers, codes)
    assert (ours.chains.pooling is not None) == (codes == 12 and num_layers > 0)


@pytest.mark.parametrize("columns", [1, 40, 3000])
def test_the_entries_of_a_product_are_counted_as_they_are(sparse_graph, columns):
    """By no chunk twice, whatever the threads; some rows of either matrix are empty."""
    adjacency = bipartite_adjacency(sparse_graph)
    rng = np.random.default_rng(0)
    codes = csr_array(np.where(rng.random((USERS + ITEMS, columns)) < 0.05, np.float32(1), np.float32(0)))
    assert product_entries(adjacency, codes) == (adjacency @ codes).nnz


def test_where_layer_0_is_made_the_larger_product_takes_no_memory():
    rng = np.random.default_rng(0)
    graph = Biadjacency.from_pairs(*rng.integers(300, size=(2, 6000)), 300, 300)
    codes = csr_array((np.ones(7200, np.float32), rng.integers(5000, size=7200), np.arange(0, 7201, 12)))
    product = (bipartite_adjacency(graph) @ codes).nnz
    tracemalloc.start()
    try:
        propagation = Propagation(normalise(bipartite_adjacency(graph)), 2, 300, codes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert propagation.chains.pooling is not None
    assert peak < 8 * product


def test_indices_are_as_narrow_as_the_graph_allows(sparse_graph):
    """SciPy keeps the type of row pointers for column numbers, and in all that is made of them."""
    codes = tables_of(sparse_graph, rows=60).pooling()
    for matrix in (bipartite_adjacency(sparse_graph), normalise(bipartite_adjacency(sparse_graph)), codes):
        assert matrix.indices.dtype == matrix.indptr.dtype == np.int32


@pytest.mark.parametrize("dim", [1, 7, 48, 64])
def test_any_width(sparse_graph, dim):
    ours, dense, rows = cases(sparse_graph, 2, 0)
    rows = np.random.default_rng(1).standard_normal((len(rows), dim))
    expected = gradients(lambda *tables: dense(torch.cat(tables)), rows, torch.float64)
    for found, wanted in zip(gradients(ours, rows, torch.float32), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("codes", [2, 12])
@pytest.mark.parametrize("size", [100, 5000])
def test_threads_do_not_change_a_bit(sparse_graph, size, codes):
    available = numba.get_num_threads()
    ours, _, rows = cases(sparse_graph, 3, codes)
    results = []
    try:
        for threads in (1, available):
            numba.set_num_threads(threads)
            batch = random_batch(size, 1)
            results.append(gradients(lambda *tables, b=batch: ours.score_differences(b, *tables), rows, torch.float32))
    finally:
        numba.set_num_threads(available)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("rows", [None, 60])
def test_the_pooled_form_is_the_one_of_the_tables(sparse_graph, rows):
    """MF gives layer 0 as the tables themselves compute it; LightGCN without layers is MF."""
    tables = tables_of(sparse_graph, rows=rows)
    for backbone in (MF(sparse_graph, MF.Config()), LightGCN(sparse_graph, LightGCN.Config(num_layers=0))):
        for final, first in zip(backbone.final_embeddings(tables), tables(), strict=True):
            torch.testing.assert_close(final, first)


def test_a_backbone_notices_other_tables(sparse_graph):
    backbone = LightGCN(sparse_graph, LightGCN.Config())
    first, second = tables_of(sparse_graph, rows=60), tables_of(sparse_graph)
    before = backbone.final_embeddings(first)
    backbone.final_embeddings(second)
    for one, other in zip(before, backbone.final_embeddings(first), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_node_without_neighbours_keeps_its_share():
    graph = Biadjacency.from_pairs(np.array([0]), np.array([0]), 2, 1)
    tables = tables_of(graph)
    users, _ = LightGCN(graph, LightGCN.Config(num_layers=2)).final_embeddings(tables)
    torch.testing.assert_close(users[1], tables.users.rows[1] / 3)
