"""DHE: against torch's own layers, what a server computes for one id, and widths that fill the budget."""

import numpy as np
import pytest
import torch
from torch import nn

from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.rng import stream, torch_stream
from baselines.dhe import BINS, PRIME, DeepHash, DeepHashTables, widths_of


def fitted(data, budget, **settings) -> DeepHashTables:
    tables = DeepHash(DeepHash.Config(**settings)).fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables


@pytest.fixture
def tables(planted) -> DeepHashTables:
    tables = fitted(planted, Budget(9000, "parameters", 16), num_hashes=24, num_layers=3)
    with torch.no_grad():
        for parameter in tables.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch_stream(1, "init")) * 0.1)
    return tables


def torchs(side, multipliers, offsets) -> tuple[nn.Sequential, torch.Tensor]:
    """The same network of torch's layers, and the encoded ids."""
    layers: list[nn.Module] = []
    for hidden in side.hidden:
        linear = nn.Linear(*hidden.matrix.shape, bias=False)
        norm = nn.BatchNorm1d(hidden.matrix.shape[1])
        linear.weight.data, norm.weight.data, norm.bias.data = (
            hidden.matrix.data.T,
            hidden.gain.data,
            hidden.offset.data,
        )
        layers += [linear, norm, nn.Mish()]
    hashed = [
        [(a * x + b) % PRIME % BINS for a, b in zip(multipliers, offsets, strict=True)]
        for x in range(len(side.encoded))
    ]
    last = nn.Linear(*side.matrix.shape)
    last.weight.data, last.bias.data = side.matrix.data.T, side.offset.data
    return nn.Sequential(*layers, last).train(), torch.tensor(hashed) / (BINS - 1) * 2 - 1


def test_outputs_and_gradients_are_those_of_torchs_layers(tables):
    users, items = tables()
    for side, output in ((tables.users, users), (tables.items, items)):
        network, encoded = torchs(side, *tables.coefficients.tolist())
        expected = network(encoded)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
        parameters = [layer.gain for layer in side.hidden]
        found = torch.autograd.grad((output**3).sum(), parameters)
        wanted = torch.autograd.grad((expected**3).sum(), [network[3 * layer + 1].weight for layer in range(3)])
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_server_computes_one_id_alone(tables):
    users, _ = tables()
    served = DeepHashTables.from_export(tables.export())
    served.users.encoded = served.users.encoded[[3]]
    torch.testing.assert_close(served()[0][0], users[3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("limit", [9000, 40_000])
def test_widths_fill_the_budget(unit, limit, planted):
    budget = Budget(limit, unit, 16)
    tables = fitted(planted, budget, num_hashes=24, num_layers=3)
    widths = tables.settings["widths"]
    assert all(max(of) - min(of) <= 1 for of in widths) and sum(widths[0]) > sum(widths[1])
    unit_more = (24 + 2 * max(widths[1]) + 16) * (1 if unit == "parameters" else 4)
    assert budget.limit - unit_more < budget.amount(tables.ledger()) <= budget.limit


def test_first_values_have_the_deviation_that_is_wanted(planted):
    users, items = fitted(planted, Budget(40_000, "parameters", 16))()
    assert torch.cat([users, items]).square().mean().sqrt().item() == pytest.approx(0.1, rel=0.2)
    correlation = np.corrcoef(users[:50].detach().numpy())
    assert np.abs(correlation - np.eye(50)).mean() < 0.4, "ids do not start alike"


def test_small_budgets_and_single_layers(planted):
    with pytest.raises(UserError, match="leaves dhe 57 for 400 ids, too little for a network"):
        fitted(planted, Budget(100, "parameters", 16))
    assert len(fitted(planted, Budget(9000, "parameters", 16), num_layers=1).users.hidden) == 1
    assert widths_of(11, 3) == [3, 4, 4]
