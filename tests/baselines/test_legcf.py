"""LEGCF: its partition, its graph and its update against dense linear algebra."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from baco.backbones.backbone import MF, LightGCN
from baco.backbones.propagation import bipartite_adjacency
from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.graph import Biadjacency
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.legcf import BLOCK, Legcf, LegcfTables, Settings, closest_rows, give_to_empty, metis_parts, refit_weights
from tests.conftest import QUICK

DIM = 16


PUBLISHED = {"graph": "expanded", "update_until": 1}  # but for the fit of the weights


def tables_of(data, value=0.4, unit="parameters", dim=DIM, **settings):
    budget = Budget.parse(value, unit, data.num_users, data.num_items, dim)
    tables = Legcf(Settings(**PUBLISHED | settings)).fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables, budget


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("settings", [{}, {"codes_per_id": 3}, {"codes_per_id": 1}, {"update_until": 0}])
def test_one_row_more_would_not_fit(planted, unit, settings):
    tables, budget = tables_of(planted, 0.6, unit, **settings)
    row = DIM if unit == "parameters" else 4 * DIM + 700 * 3 // 8  # and at most one bit more per code
    assert budget.limit - row < budget.amount(tables.ledger()) <= budget.limit


def test_ledger_by_hand(planted):
    learned, _ = tables_of(planted)
    rows = len(learned.codebook.rows)
    assert learned.ledger().parameters == DIM * rows + 3 * 700 + 1
    assert learned.ledger().bytes == 4 * DIM * rows + (2 * 700 * (rows - 1).bit_length() + 7) // 8 + 8 * 700 + 4
    plain, _ = tables_of(planted, graph="plain")  # no edges to codebook rows, so no scale of them
    assert plain.ledger().parameters == DIM * len(plain.codebook.rows) + 3 * 700
    fixed, _ = tables_of(planted, update_until=0)  # two constants in place of weights
    rows = len(fixed.codebook.rows)
    assert fixed.ledger().parameters == DIM * rows + 700
    assert fixed.ledger().bytes == 4 * DIM * rows + (2 * 700 * (rows - 1).bit_length() + 7) // 8


def test_parts_are_even_and_cut_few_interactions(planted):
    parts = metis_parts(planted.train, 10, 1)
    sizes = np.bincount(parts, minlength=10)
    assert sizes.min() > 50 and sizes.max() < 90
    within = np.mean(parts[planted.train.users] == parts[planted.num_users + planted.train.items])
    assert within > 0.6, "ten clusters are planted, with 80 % of the interactions inside"


@pytest.mark.parametrize("num_parts", [1, 2, 300, 650])
def test_no_part_is_empty(sparse_graph, num_parts):
    assert (np.bincount(metis_parts(sparse_graph, num_parts, 1), minlength=num_parts) > 0).all()


def test_the_largest_part_gives_its_node_of_the_highest_degree():
    parts = np.array([0, 0, 0, 2, 2, 0])
    give_to_empty(parts, np.array([1, 5, 2, 9, 1, 4]), 4)
    np.testing.assert_array_equal(parts, [0, 1, 0, 2, 2, 3])


def test_first_codes_are_distinct_and_the_first_is_the_part(planted):
    tables, _ = tables_of(planted, codes_per_id=3, own_weight=0.6)
    codes = tables.codes()
    assert all(len(set(row)) == 3 for row in codes.index.tolist())
    np.testing.assert_allclose(codes.weights, np.tile([0.6, 0.2, 0.2], (700, 1)), rtol=1e-6)
    within = codes.index[planted.train.users, 0] == codes.index[planted.num_users + planted.train.items, 0]
    assert within.mean() > 3 / codes.num_rows


def test_first_values_have_the_wanted_deviation(planted):
    tables, _ = tables_of(planted, dim=64)
    assert torch.cat(tables()).std().item() == pytest.approx(0.1, rel=0.05)


def dense_final(train: Biadjacency, tables, num_layers: int) -> torch.Tensor:
    """Final embeddings of ids and codebook rows by dense matrices, entry by entry as published."""

    def normalised(matrix):
        scale = matrix.sum(1)
        scale = torch.where(scale > 0, scale**-0.5, 0.0)
        return scale[:, None] * matrix * scale

    codes, rows = tables.codes(), tables.codebook.rows.double()
    assignment = torch.zeros(codes.num_ids, codes.num_rows, dtype=torch.float64)
    for x in range(codes.num_ids):
        for code, weight in zip(codes.index[x], codes.weights[x], strict=True):
            assignment[x, code] += weight
    adjacency = normalised(torch.as_tensor(bipartite_adjacency(train).toarray(), dtype=torch.float64))
    bottom = torch.zeros(codes.num_rows, codes.num_rows, dtype=torch.float64)
    edges = assignment * tables.edge_scale
    graph = normalised(torch.cat([torch.cat([adjacency, edges], 1), torch.cat([edges.T, bottom], 1)]))
    layers = [torch.cat([torch.tanh(assignment @ rows), rows])]
    for _ in range(num_layers):
        layers.append(graph @ layers[-1])
    return sum(layers) / len(layers)


def update(tables, backbone) -> None:
    """What a trainer does after the first epoch."""
    replaced = tables.on_epoch_end(0, lambda: backbone.propagate(tables))
    assert replaced == [], "codes are new, but no parameter has a new value"
    backbone.attach(tables)


@pytest.mark.parametrize("backbone", [LightGCN(None, LightGCN.Config()), MF(None, MF.Config())], ids=lambda b: b.name)
def test_published_update_and_graph_by_dense_matrices(planted, backbone):
    backbone = type(backbone)(planted.train, backbone.config)
    tables, _ = tables_of(planted, rescale="none")
    expected = dense_final(planted.train, tables, backbone.num_layers)
    found = torch.cat(backbone.final_embeddings(tables)).detach().double()
    torch.testing.assert_close(found, expected[:700].detach(), rtol=1e-4, atol=1e-6)
    scores = expected[:700] @ torch.linalg.pinv(expected[700:])
    update(tables, backbone)
    codes = tables.codes()
    weights, index = scores.topk(2)
    same = (torch.as_tensor(codes.index) == index).all(1)
    assert same.float().mean() > 0.99, "but for ties by rounding"
    torch.testing.assert_close(
        torch.as_tensor(codes.weights)[same], weights[same].detach().clamp(min=0).float(), rtol=1e-3, atol=1e-5
    )
    again = torch.cat(backbone.final_embeddings(tables)).detach().double()
    expected = dense_final(planted.train, tables, backbone.num_layers)[:700].detach()
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-6)


def test_weights_are_fitted_again_in_layer_0_and_edges_keep_the_published_sum(planted):
    backbone = LightGCN(planted.train, LightGCN.Config())
    published, fitted = (tables_of(planted, rescale=rescale)[0] for rescale in ("none", "layer0"))
    for tables in (published, fitted):
        before = torch.cat(backbone.final_embeddings(tables)).detach()
        update(tables, backbone)
    np.testing.assert_array_equal(published.codes().index, fitted.codes().index)
    sums = [float(tables.codes().weights.sum() * tables.edge_scale) for tables in (published, fitted)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5) and 0 < fitted.edge_scale < 1 and published.edge_scale == 1
    errors = [(tables.codebook(torch.arange(700)) - before).square().sum().item() for tables in (published, fitted)]
    assert errors[1] < 0.9 * errors[0]
    final = torch.cat(backbone.final_embeddings(fitted)).detach().double()
    expected = dense_final(planted.train, fitted, backbone.num_layers)[:700].detach()
    torch.testing.assert_close(final, expected, rtol=1e-4, atol=1e-6)
    again = LegcfTables.from_export(fitted.export())
    backbone.attach(again)
    torch.testing.assert_close(torch.cat(backbone.final_embeddings(again)).detach().double(), final)


def test_the_plain_graph_has_no_further_nodes(planted):
    tables, _ = tables_of(planted, graph="plain")
    adjacency = bipartite_adjacency(planted.train)
    assert tables.augment_graph(adjacency) is adjacency and tables.graph_rows() == ()
    before = tables.codes()
    update(tables, LightGCN(planted.train, LightGCN.Config()))
    assert not np.array_equal(tables.codes().index, before.index)


def test_largest_entries_by_blocks_are_those_of_the_dense_product():
    generator = torch.Generator().manual_seed(0)
    nodes, rows = torch.randn(BLOCK + 300, 8, generator=generator), torch.randn(40, 8, generator=generator)
    codes, weights = closest_rows(nodes, rows, 3)
    dense = nodes @ torch.linalg.pinv(rows)
    torch.testing.assert_close(dense.gather(1, codes), weights)
    torch.testing.assert_close(dense.sort(dim=1, descending=True).values[:, :3], weights)


def test_refitted_weights_are_the_best_that_are_not_negative():
    from scipy.optimize import nnls

    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(50, 8, generator=generator).double()
    codes = torch.stack([torch.randperm(50, generator=generator)[:2] for _ in range(200)])
    nodes = (rows[codes] * torch.rand(200, 2, 1, generator=generator)).sum(1)
    nodes += 0.3 * torch.randn(nodes.shape, generator=generator).double()
    found = refit_weights(nodes, rows, codes)
    for node, pair, weights in zip(nodes, codes, found, strict=True):
        best, _ = nnls(rows[pair].T.numpy(), node.numpy())
        np.testing.assert_allclose(weights.numpy(), best, atol=1e-8)
    assert (found == 0).any(), "some weights would be negative"


@pytest.mark.parametrize(("rescale", "least", "most"), [("none", 0, 0.1), ("layer0", 0.9, 1.1)])
def test_refitting_keeps_the_norm_that_the_published_update_loses(rescale, least, most):
    """2000 rows of width 64, and embeddings near pairs of them."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(2000, 64, generator=generator)
    pairs = torch.randint(2000, (1000, 2), generator=generator)
    nodes = 0.9 * rows[pairs[:, 0]] + 0.1 * rows[pairs[:, 1]]
    codes, weights = closest_rows(nodes, rows, 2)
    if rescale == "layer0":
        weights = refit_weights(nodes, rows, codes)
    share = (weights[:, :, None] * rows[codes]).sum(1).norm() / nodes.norm()
    assert least < share < most


def test_codes_of_the_best_state_are_those_the_backbone_ranks_with(planted):
    tables, budget = tables_of(planted, update_from=2, update_until=3)
    first = tables.codes().index
    backbone = LightGCN(planted.train, LightGCN.Config())
    trainer = Trainer(
        backbone, Evaluator(planted), replace(QUICK, max_epochs=6, eval_every=1), 0, torch.device("cpu"), False
    )
    report = trainer.fit(tables)
    assert report.best_epoch >= 2 and not np.array_equal(tables.codes().index, first)
    budget.check(tables.ledger(), "legcf")
    assert trainer.validate(tables) == report.best_value
    backbone.attach(tables)
    assert trainer.validate(tables) == report.best_value


def test_a_missing_package_is_named_with_the_mend(two_bicliques, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(UserError, match=r"pip install 'pymetis>=2025.2'"):
        metis_parts(two_bicliques, 2, 0)


def test_a_budget_without_enough_rows_is_refused(planted):
    with pytest.raises(UserError, match=r"budget of 2,240 parameters does not buy 'legcf' the 9 codebook rows"):
        tables_of(planted, 0.2, codes_per_id=9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codes_per_id": 0}, "^codes_per_id=0 must be"),
        ({"own_weight": 1.0}, "^own_weight=1.0 must be"),
        ({"rescale": "layer"}, "layer0"),
        ({"graph": "plane"}, "plain"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        Settings(**settings)
