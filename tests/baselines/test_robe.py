"""ROBE: entry by entry, and an array of exactly the budget."""

import numpy as np
import pytest
import torch

from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.rng import stream, torch_stream
from baselines.robe import PRIME, Robe, RobeTables


def filled(num_users=7, num_items=5, dim=6, length=11, chunk=4) -> RobeTables:
    coefficients = np.random.default_rng(3).integers(1, PRIME, size=(2, 4))
    tables = RobeTables(coefficients, num_users, num_items, dim, length, chunk)
    tables.reset_parameters(1.0, torch_stream(0, "init"))
    return tables


@pytest.mark.parametrize("chunk", [1, 3, 4, 6, 9])  # of 6 entries; the last chunk may be shorter
def test_entries_are_signed_floats_at_hashed_places(chunk):
    tables = filled(chunk=chunk)
    array, (places, signs) = tables.array.tolist(), tables.coefficients.tolist()
    for side, output in enumerate(tables()):
        for x, embedding in enumerate(output.tolist()):
            for j, entry in enumerate(embedding):
                key = (side, x, j // chunk, 1)
                place, sign = (sum(np.multiply(key, hashed).tolist()) % PRIME for hashed in (places, signs))
                assert entry == array[(place % 11 + j % chunk) % 11] * (1 if sign % 2 else -1)
    ids = torch.tensor([4, 0, 4])
    torch.testing.assert_close(tables.lookup("items", ids), tables()[1][ids], rtol=0, atol=0)


def test_gradients_reach_the_array_from_all_places():
    tables = filled()
    users, items = tables()
    (2 * users.sum() + items.sum()).backward()
    expected = np.zeros(11)
    for side, (num_ids, factor) in enumerate(((7, 2), (5, 1))):
        for x in range(num_ids):
            for j in range(6):
                hashed = [int(np.dot((side, x, j // 4, 1), of) % PRIME) for of in tables.coefficients]
                expected[(hashed[0] % 11 + j % 4) % 11] += factor * (1 if hashed[1] % 2 else -1)
    np.testing.assert_allclose(tables.array.grad, expected, rtol=1e-6)


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_the_array_is_the_budget(unit, planted):
    budget = Budget(5003, unit, 16)
    tables = Robe().fit(planted.train, budget, stream(0, "assign"))
    assert budget.limit - (0 if unit == "parameters" else 3) <= budget.amount(tables.ledger()) <= budget.limit
    with pytest.raises(UserError, match="buys robe an array shorter than one embedding of 16"):
        Robe().fit(planted.train, Budget(15, unit, 16), stream(0, "assign"))


def test_places_and_signs_are_spread_evenly(planted):
    tables = Robe().fit(planted.train, Budget(2000, "parameters", 64), stream(0, "assign"))
    places = torch.cat([tables.users_places.flatten(), tables.items_places.flatten()]).numpy()  # 5600 of them
    counts = np.bincount(places // 200, minlength=10)
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()
    assert abs(tables.users_signs.mean()) < 0.1
