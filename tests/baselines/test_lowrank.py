"""Low rank: what the budget buys, that the tables are products, and that they begin as the short embeddings."""

import numpy as np
import pytest
import torch

from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.numerics.spectral import spectral_factors
from baco.rng import stream, torch_stream
from baselines.lowrank import LowRank, ProjectedTables
from baselines.sizes import EqualSizes, SizedTables

DIM = 16


def fitted(data, limit, unit="parameters") -> ProjectedTables:
    tables = LowRank().fit(data.train, Budget(limit, unit, DIM), stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_the_budget_buys_the_widest_embeddings_then_floats_for_the_frequent(planted, unit):
    """700 ids; a row of both matrices is 32 floats."""
    cost = {"parameters": lambda floats: floats, "bytes": lambda floats: 4 * floats + 700}[unit]
    for floats, width, unused in ((732, 1, 0), (732 + 32, 1, 32), (732 + 33, 2, 0), (2 * 732 - 1, 2, 0), (4000, 6, 0)):
        tables, ledger = fitted(planted, cost(floats), unit), Budget(cost(floats), unit, DIM)
        assert ledger.limit - ledger.amount(tables.ledger()) == unused * (1 if unit == "parameters" else 4)
        sizes = tables.short.sizes
        assert tables.projections.shape == (2, width, DIM) and set(sizes) <= {width - 1, width}
        degrees = planted.train.joint_degrees
        assert degrees[sizes == width].min() >= degrees[sizes < width].max(initial=0)
    with pytest.raises(UserError, match="buys 731 floats, below the 732"):
        fitted(planted, cost(731), unit)


def test_layer_0_is_a_product_with_a_matrix_per_side():
    tables = ProjectedTables(SizedTables(np.array([2, 1]), np.array([2]), 2), 3)
    with torch.no_grad():
        tables.short.values.copy_(torch.tensor([1.0, 2, 3, 4, 5]))
        tables.projections.copy_(torch.tensor([[[1.0, 0, 2], [0, 1, 0]], [[0.0, 1, 1], [1, 0, 0]]]))
    users, items = tables()
    assert users.tolist() == [[1, 2, 2], [3, 0, 6]] and items.tolist() == [[5, 4, 4]]
    assert tables.lookup("users", torch.tensor([1, 1])).tolist() == [[3, 0, 6]] * 2
    assert tables.lookup("items", torch.tensor([0])).tolist() == [[5, 4, 4]]


def test_the_first_scores_are_those_of_short_embeddings_of_equal_sizes(planted):
    tables = fitted(planted, 4000)
    short = EqualSizes().fit(planted.train, Budget(4000 - 6 * 32, "parameters", 6), stream(0, "assign"))
    np.testing.assert_array_equal(tables.short.sizes, short.sizes)
    short.reset_parameters(0.1, torch_stream(0, "init"))
    (users, items), (others, those) = tables(), short()
    torch.testing.assert_close(users @ items.T, others @ those.T)


def test_it_starts_near_singular_vectors(planted):
    tables = fitted(planted, 4 * 732)
    before = torch.cat(tables()).detach()
    tables.start_near(lambda dim: spectral_factors(planted.train, dim, stream(0, "init")), 0.5)
    added = (torch.cat(tables()).detach() - before).split([400, 300])
    for side, factors in zip(added, spectral_factors(planted.train, 4, stream(0, "init")), strict=True):
        assert side.square().mean().item() == pytest.approx(0.5**2 * 4 / DIM, rel=1e-4)
        grams = side @ side.T, torch.from_numpy(factors @ factors.T)
        torch.testing.assert_close(*(gram / gram.norm() for gram in grams), rtol=1e-3, atol=1e-5)
