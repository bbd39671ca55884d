"""What all composed embeddings have in common."""

import numpy as np
import pytest
import torch

from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.rng import stream, torch_stream
from baselines.qr import QuotientRemainder
from baselines.ttrec import TensorTrain


def budget_of(data, value, unit="parameters", dim=16) -> Budget:
    return Budget.parse(value, unit, data.num_users, data.num_items, dim)


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("method", [QuotientRemainder(), TensorTrain()], ids=lambda m: m.name)
def test_beauty_fills_the_papers_budget(beauty, method, unit):
    budget = budget_of(beauty, 8267, unit, dim=64)
    tables = method.fit(beauty.train, budget, stream(0, "assign"))
    assert 0.995 < budget.share(tables.ledger()) <= 1
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    for embeddings in tables():
        assert embeddings.std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("tables", [QuotientRemainder(), TensorTrain()], ids=lambda m: m.name)
def test_order_permutes_the_embeddings(planted, tables):
    method = type(tables)
    permuted, plain = (
        method(method.Config(order=order)).fit(planted.train, budget_of(planted, 0.5), stream(0, "assign"))
        for order in ("permuted", "id")
    )
    for tables in (permuted, plain):
        tables.reset_parameters(0.1, torch_stream(0, "init"))
    positions = permuted.users.positions()
    assert not np.array_equal(positions, np.arange(400)) and np.array_equal(np.sort(positions), np.arange(400))
    torch.testing.assert_close(permuted()[0], plain()[0][positions], rtol=0, atol=0)


@pytest.mark.parametrize("method", [QuotientRemainder(), TensorTrain()], ids=lambda m: m.name)
def test_a_small_budget_is_refused(planted, method):
    with pytest.raises(UserError, match=f"budget of 56 parameters .*{method.name}"):
        method.fit(planted.train, budget_of(planted, 0.005), stream(0, "assign"))


def test_impossible_settings_are_named(planted):
    with pytest.raises(UserError, match="concat"):
        QuotientRemainder.Config(operation="concatenate")
    with pytest.raises(UserError, match="permuted"):
        TensorTrain.Config(order="permute")
    with pytest.raises(UserError, match=r"operation=concat needs an even dim, not dim=9"):
        QuotientRemainder(QuotientRemainder.Config(operation="concat")).fit(
            planted.train, budget_of(planted, 0.5, dim=9), stream(0, "assign")
        )
