"""Product quantization under a budget, after training and with trained centroids."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baco.backbones.backbone import LightGCN
from baco.compressors.budget import Budget
from baco.embedding.product_codes import ProductQuantizer, RotatedProductQuantizer
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.graph import Biadjacency
from baco.registry import METHODS
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.full import Full
from baselines.pq import ProductQuantization, ProductTables
from baselines.support.centroids import centroid_ledger
from tests.conftest import QUICK

GRAPH = Biadjacency.from_pairs(np.arange(900) % 600, np.arange(900) % 450, 600, 450)


def method(**settings) -> ProductQuantization:
    return ProductQuantization(ProductQuantization.Config(**settings))


def budget_of(graph, value, unit="parameters", dim=16) -> Budget:
    return Budget.parse(value, unit, graph.num_users, graph.num_items, dim)


@given(st.floats(0.1, 1), st.sampled_from(["parameters", "bytes"]), st.integers(1, 32))
def test_no_affordable_code_has_more_bits(value, unit, dim):
    budget = budget_of(GRAPH, value, unit, dim)

    def cost(blocks, bits):
        return budget.amount(centroid_ledger(ProductQuantizer(blocks, bits), 600, 450, dim))

    if cost(1, 1) > budget.limit:
        with pytest.raises(UserError, match=f"needs {cost(1, 1):,} {unit} at least"):
            method().quantizer_within(GRAPH, budget)
        return
    chosen = method().quantizer_within(GRAPH, budget)
    assert cost(chosen.blocks, chosen.bits) <= budget.limit
    for blocks in range(1, dim + 1):
        for bits in range(1, 9):
            if blocks * bits > chosen.blocks * chosen.bits:
                assert cost(blocks, bits) > budget.limit


def test_the_papers_budget_on_beauty_buys_fifteen_bytes_per_id():
    """dim 2^b per side and M - 1 codes per id: 2 * 16,384 + 14 * 34,464 of 529,088."""
    graph = Biadjacency.from_pairs(np.array([0]), np.array([0]), 22_363, 12_101)
    budget = Budget.parse(8267, "parameters", 22_363, 12_101, 64)
    assert method().quantizer_within(graph, budget) == ProductQuantizer(15, 8)
    assert method(blocks=8).quantizer_within(graph, budget) == ProductQuantizer(8, 8)
    assert method(bits=4).quantizer_within(graph, budget) == ProductQuantizer(16, 4)
    assert method(bits=9).quantizer_within(graph, budget) == ProductQuantizer(14, 9)


def trainer_of(data) -> Trainer:
    backbone = LightGCN(data.train, LightGCN.Config())
    return Trainer(backbone, Evaluator(data), QUICK, 0, torch.device("cpu"), progress=False)


def test_without_finetuning_the_full_model_is_trained_and_then_packed(planted):
    budget = budget_of(planted, 0.5)
    full, tables = Full().fit(planted.train, budget, None), method().fit(planted.train, budget, stream(0, "assign"))
    for one in (full, tables):
        one.reset_parameters(0.1, torch_stream(0, "init"))
        trainer_of(planted).fit(one)
    rows, packed = full.users.rows.detach(), tables.inner.users.rows.detach()
    assert 0 < ((packed - rows) ** 2).sum() < 0.1 * (rows**2).sum()
    blocks = tables.quantizer.block_of_column(16)
    for block in range(tables.quantizer.blocks):
        parts = packed[:, torch.from_numpy(blocks == block)]
        assert len(parts.unique(dim=0)) <= 2**tables.quantizer.bits


@pytest.mark.parametrize("bits", [5, 9])
def test_finetuning_keeps_the_codes_and_moves_the_centroids(planted, bits):
    pq = method(finetune=True, blocks=2, bits=bits)
    tables = pq.fit(planted.train, Budget.parse(None, "parameters", 2000, 2000, 16), stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    ledger = tables.ledger()
    trainer = trainer_of(planted)
    assert pq.search(tables, trainer) is tables and isinstance(tables, ProductTables)
    before = {name: value.clone() for name, value in tables.state_dict().items()}
    learned = trainer.evaluate(tables, "val").means()["recall@20"]
    trainer.fit(tables)
    for side, codebook in tables.sides.items():
        assert torch.equal(codebook.codes, before[f"{side}.codes"])
        assert not torch.equal(codebook.centroids, before[f"{side}.centroids"])
    assert trainer.evaluate(tables, "val").means()["recall@20"] > 0.9 * learned
    assert tables.ledger() == ledger and ledger.training_floats == 16 * (400 + 300), "the full model is trained first"
    again = ProductTables.from_export(tables.export())
    assert all(torch.equal(one, other) for one, other in zip(tables(), again(), strict=True))


def test_product_tables_are_sums_over_blocks():
    tables = ProductTables(ProductQuantizer(3, 2), 5, 4, 7, np.random.default_rng(0))
    tables.reset_parameters(1.0, torch.Generator().manual_seed(0))
    blocks = tables.quantizer.block_of_column(7)
    for side, output in zip(("users", "items"), tables(), strict=True):
        codes, centroids = (getattr(tables.sides[side], name).detach().numpy() for name in ("codes", "centroids"))
        expected = [[centroids[codes[x, blocks[j]], j] for j in range(7)] for x in range(len(codes))]
        np.testing.assert_array_equal(output.detach().numpy(), np.float32(expected))
        ids = torch.tensor([2, 0, 2])
        torch.testing.assert_close(tables.lookup(side, ids), output[ids])


def test_popularity_draws_centroids_to_frequent_ids():
    rng = np.random.default_rng(0)
    rows, degrees = rng.standard_normal((500, 8)).astype(np.float32), np.r_[np.full(50, 400), np.ones(450, int)]
    quantizer = ProductQuantizer(2, 4)
    errors = []
    for popularity in (0.0, 1.0):
        learned = method(popularity=popularity).learn(quantizer, rows, degrees, np.random.default_rng(1))
        errors.append(((quantizer.decode(learned) - rows)[:50] ** 2).sum())
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 0}, "^blocks=0 must be 1 or more"),
        ({"bits": 13}, "^bits=13 must lie between 1 and 12"),
        ({"rate": 0.0}, "^rate=0.0 must be positive"),
        ({"popularity": -1.0}, "^popularity=-1.0 must be 0 or more"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        method(**settings)


def test_more_blocks_than_columns_are_refused():
    with pytest.raises(UserError, match=r"^blocks=17 is more than the embedding width dim=16"):
        method(blocks=17).quantizer_within(GRAPH, budget_of(GRAPH, 0.5))


# After a rotation ----------------------------------------------------------------------------------------------------


def test_the_rotation_is_orthogonal_and_charged():
    quantizer = RotatedProductQuantizer(blocks=3, bits=4)
    rows = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32)
    rotation = quantizer.learn(rows, np.random.default_rng(1))["rotation"]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(7), atol=1e-5)
    plain, rotated = (centroid_ledger(of(3, 4), 300, 200, 7) for of in (ProductQuantizer, RotatedProductQuantizer))
    assert rotated.parameters - plain.parameters == 2 * 49 and rotated.bytes - plain.bytes == 2 * 4 * 49


def test_a_rotation_finds_the_axes_along_which_blocks_are_independent():
    """Rows of two distinct values along each of 8 hidden axes: a bit per axis is enough, once they are found."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    rows = ((rng.choice([-1.0, 1.0], (500, 8)) * 2.0 ** np.arange(8)) @ axes.T).astype(np.float32)
    errors = [
        ((of(8, 1).decode(of(8, 1).learn(rows, np.random.default_rng(1))) - rows) ** 2).sum() / (rows**2).sum()
        for of in (ProductQuantizer, RotatedProductQuantizer)
    ]
    assert errors[0] > 0.1 and errors[1] < 1e-6


def test_axes_are_dealt_out_evenly():
    """Variances 8, 4, 2, 1 in blocks of two: the products 8 * 1 and 4 * 2 are equal, whatever the unit is."""
    for unit in (1.0, 1e-3):
        axes = RotatedProductQuantizer(blocks=2, bits=1).principal_axes(np.diag([2.0, 8.0, 1.0, 4.0]) * unit)
        assert {frozenset(np.abs(axes[:, part]).argmax(0).tolist()) for part in ([0, 1], [2, 3])} == {
            frozenset({1, 2}),
            frozenset({0, 3}),
        }


def test_finetuned_rotated_tables_are_what_the_quantizer_decodes(planted):
    opq = METHODS["opq"](ProductQuantization.Config(finetune=True, blocks=3, bits=4))
    tables = opq.fit(planted.train, budget_of(planted, 0.5), stream(0, "assign"))
    rows = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    learned = opq.learn(tables.quantizer, rows, planted.train.user_degrees, np.random.default_rng(1))
    tables.users.take_over(learned)
    np.testing.assert_allclose(tables()[0].detach().numpy(), tables.quantizer.decode(learned), atol=1e-5)
    again = type(tables).from_export(tables.export())
    assert all(torch.equal(one, other) for one, other in zip(tables(), again(), strict=True))
