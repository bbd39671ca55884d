"""Hashing: budgets to the last row, who has a row of its own, and that LSH brings like ids together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baco.backbones.backbone import MF, LightGCN
from baco.compressors.budget import Budget
from baco.embedding.codebook import CodebookTables
from baco.embedding.cost import code_ledger
from baco.embedding.product_codes import ProductQuantizer
from baco.embedding.quantized import QuantizedTables
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.graph import Biadjacency
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.hashing import DoubleHash, FrequencyHash, HybridHash, Lsh, RandomHash, ShareSides, fractions
from baselines.modularity import DoubleGraphHash
from tests.conftest import QUICK

SHARED, SHARED_SUM = ShareSides(share_sides=True), DoubleHash.Config(share_sides=True)
HASHING = [
    RandomHash(),
    DoubleHash(),
    RandomHash(SHARED),
    DoubleHash(SHARED_SUM),
    FrequencyHash(),
    HybridHash(),
]


def budget_of(data, value, unit="parameters") -> Budget:
    return Budget.parse(value, unit, data.num_users, data.num_items, 64)


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("value", [0.05, 0.25, 0.7])
@pytest.mark.parametrize("method", HASHING, ids=lambda m: f"{m.name} {m.config}")
def test_one_row_more_would_not_fit(method, value, unit, planted):
    budget = budget_of(planted, value, unit)
    ledger = code_ledger(method.assign(planted.train, budget, stream(0, "assign")), 64)
    row = 64 if unit == "parameters" else 256
    assert budget.limit - row - (unit == "parameters") < budget.amount(ledger) <= budget.limit


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("method", [DoubleHash(), FrequencyHash(), HybridHash(), Lsh()], ids=lambda m: m.name)
def test_beauty_fills_the_papers_budget(method, unit, beauty):
    budget = budget_of(beauty, 8267, unit)
    ledger = code_ledger(method.assign(beauty.train, budget, stream(0, "assign")), 64)
    assert 0.99 <= budget.share(ledger) <= 1


@pytest.mark.parametrize("method", [FrequencyHash, HybridHash])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_most_frequent_ids_have_rows_of_their_own(method, share, planted):
    assignment = method(method.Config(own_share=share)).assign(
        planted.train, budget_of(planted, 0.4), stream(0, "assign")
    )
    for codes, degrees in (
        (assignment.users, planted.train.user_degrees),
        (assignment.items, planted.train.item_degrees),
    ):
        alone = np.bincount(codes.first, minlength=codes.num_rows)[codes.first] == 1
        num_own = int(share * codes.num_rows)
        assert alone.sum() == num_own
        assert degrees[alone].min() >= degrees[~alone].max()


def test_hybrid_embeddings_are_one_own_or_two_shared_rows(planted):
    assignment = HybridHash().assign(planted.train, budget_of(planted, 0.4), stream(0, "assign"))
    tables = CodebookTables(assignment, 64)
    for codes, codebook, embeddings in zip(
        (assignment.users, assignment.items), (tables.users, tables.items), tables(), strict=True
    ):
        rows = codebook.rows.detach().numpy()
        first, second = codes.index.T
        own = first >= codes.num_rows - codes.num_rows // 2
        expected = np.where(own[:, None], rows[first], rows[first] + rows[second])
        np.testing.assert_array_equal(embeddings.detach().numpy(), expected)


@pytest.mark.parametrize("method", [DoubleHash, HybridHash, DoubleGraphHash])
def test_sums_begin_as_wide_as_single_rows(method, planted):
    budget = Budget.parse(0.6, "parameters", planted.num_users, planted.num_items, 64)
    for scaled, width in ((True, 0.1), (False, 0.1 * np.sqrt(2))):
        tables = method(method.Config(scaled=scaled)).fit(planted.train, budget, stream(0, "assign"))
        tables.reset_parameters(0.1, torch_stream(0, "init"))
        for codes, embeddings in zip((tables.assignment.users, tables.assignment.items), tables(), strict=True):
            shared = codes.index[:, 0] != codes.index[:, 1]
            assert embeddings[shared].std().item() == pytest.approx(width, rel=0.05)
            if method is HybridHash:
                assert embeddings[~shared].std().item() == pytest.approx(0.1, rel=0.05)


def test_popularity_is_no_width(planted):
    """The scale of an id is on top of first values."""
    double = DoubleHash().assign(planted.train, budget_of(planted, 0.4), stream(0, "assign"))
    codes = replace(double.items, scale=np.full(double.items.num_ids, 7, np.float16))
    plain, popular = (CodebookTables(replace(double, items=own), 64, scaled=True) for own in (double.items, codes))
    for tables in (plain, popular):
        tables.reset_parameters(0.1, torch_stream(0, "init"))
    torch.testing.assert_close(popular.items.rows, plain.items.rows)
    np.testing.assert_allclose(plain.items.rows.std().item(), 0.1 / np.sqrt(2), rtol=0.05)


def test_no_own_share_is_double_hashing(planted):
    budget = budget_of(planted, 0.4)
    hybrid = HybridHash(HybridHash.Config(own_share=0)).assign(planted.train, budget, stream(0, "assign"))
    double = DoubleHash().assign(planted.train, budget, stream(0, "assign"))
    np.testing.assert_array_equal(hybrid.users.index, double.users.index)


@pytest.mark.parametrize("backbone", [MF, LightGCN])
def test_one_codebook_of_both_sides_trains_on_every_device_and_is_restored(backbone, planted, pretended):
    codes = DoubleHash(SHARED_SUM).assign(planted.train, budget_of(planted, 0.4), stream(0, "assign"))
    assert np.unique(codes.users.index).size > 0.9 * codes.users.num_rows, "users may have any row"
    found = []
    for device in ("cpu", pretended):
        tables = CodebookTables(codes, 16)
        trainer = Trainer(
            backbone(planted.train, backbone.Config()),
            Evaluator(planted),
            replace(QUICK, max_epochs=2),
            0,
            torch.device(device),
            progress=False,
            start="spectral",
        )
        trainer.fit(trainer.initialize(tables))
        assert tables.users.rows is tables.items.rows, "no device and no best state parts them"
        again = CodebookTables.from_export(tables.export())
        for output, restored in zip(tables(), again(), strict=True):
            torch.testing.assert_close(output.cpu(), restored, rtol=0, atol=0)
        found.append(again.users.rows.detach())
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_packed_codebooks_of_both_sides_are_packed_once(planted):
    quantizer = ProductQuantizer(8, 4)
    budget = Budget(5000, "bytes", 64, quantizer)
    codes = RandomHash(SHARED).assign(planted.train, budget, stream(0, "assign"))
    tables = QuantizedTables(CodebookTables(codes, 64), quantizer, 0)
    tables.reset_parameters(0.1, torch.Generator().manual_seed(0))
    tables.on_training_end()
    arrays = tables.export()
    assert sum(array.nbytes for name, array in arrays.items() if name != "header") == tables.ledger().bytes
    assert tables.ledger() == code_ledger(codes, 64, quantizer.format(64))
    assert budget.limit - 4 < budget.amount(tables.ledger()) <= budget.limit


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_impossible_shares_are_named(share):
    with pytest.raises(UserError, match=f"^own_share={share} must be"):
        FrequencyHash.Config(own_share=share)


def test_fractions_are_the_signs_of_dense_projections(planted):
    matrix = planted.train.to_matrix()
    planes = np.random.default_rng(3).standard_normal((planted.num_items, 32), np.float32)
    projections = matrix.toarray().astype(np.float64) @ planes.astype(np.float64)
    assert np.abs(projections[planted.train.user_degrees > 0]).min() > 1e-5, "no sign hangs on rounding"
    expected = [sum(0.5 ** (bit + 1) for bit in np.flatnonzero(row > 0)) for row in projections]
    np.testing.assert_array_equal(fractions(matrix, np.random.default_rng(3)), expected)


def test_lsh_gives_ids_with_equal_interactions_one_row():
    twins = Biadjacency.from_matrix(np.repeat(np.eye(20), 5, axis=0))  # 100 users in groups of five
    budget = Budget.parse(0.5, "parameters", 100, 20, 64)
    codes = Lsh().assign(twins, budget, stream(0, "assign")).users.index.reshape(20, 5)
    assert (codes == codes[:, :1]).all() and len(np.unique(codes)) > 15


def test_a_budget_below_the_second_codes_is_told_as_what_it_is(planted):
    with pytest.raises(UserError, match="the budget of 80 parameters does not buy two codebook rows beside"):
        DoubleHash().assign(planted.train, Budget(80, "parameters", 8), stream(0, "assign"))
