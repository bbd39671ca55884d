"""SCALL: its curves are means of sorted draws, its points spend the budget, and its search steps from the best."""

import numpy as np
import pytest
import torch

from baco.backbones.backbone import LightGCN
from baco.compressors.budget import Budget
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream
from baco.training.trainer import Trainer
from baselines.scall import Curves, NearTheBest, Scall, expected_descending
from baselines.support.size_search import Probed
from tests.conftest import QUICK


@pytest.mark.parametrize("alpha", [0.1, 1.0, 30.0])
def test_curves_are_means_of_sorted_draws(alpha):
    draws = np.sort(np.random.default_rng(0).random((20_000, 12)) ** (1 / alpha), axis=1)[:, ::-1].mean(0)
    expected = expected_descending(12, alpha)
    np.testing.assert_allclose(expected, draws / draws[0], rtol=0.03, atol=1e-4)


def test_points_are_the_users_part_and_two_curves(planted):
    curves = Curves(planted.train, 700 * 4, 16)
    equal = curves.at(np.array([400 / 700, 1, 1]))
    assert {*equal.user_sizes, *equal.item_sizes} <= {3, 4, 5}, "a large alpha is one size for all"
    steep = curves.at(np.array([0.3, 0, 0.5]))
    assert sum(map(np.sum, steep)) == 2800 and abs(steep.user_sizes.sum() - 840) <= 1
    assert steep.user_sizes[0] > 12 and (steep.user_sizes == 1).sum() > 200
    for part, users in ((0.0, 400), (1.0, 2500)):
        assert curves.at(np.array([part, 0.5, 0.5])).user_sizes.sum() == users, "one float is left for each of the rest"


def test_the_later_half_of_the_probes_are_steps_from_the_best(planted):
    curves = Curves(planted.train, 700 * 4, 16)
    proposer, probed = NearTheBest(curves, 10, np.random.default_rng(0)), []
    for _ in range(60):
        action = proposer.propose(probed)
        probed.append(Probed(action, -abs(proposer.points[-1] - 0.6).sum()))
    fitness = np.array([probe.fitness for probe in probed])
    assert fitness[10:].max() > -0.1 > fitness[:10].max(), "it finds what it looks for"
    assert np.abs(np.diff(proposer.points[:10], axis=0)).mean() > 0.2


def test_a_search_ends_with_tables_that_spend_the_budget(planted):
    trainer = Trainer(
        LightGCN(planted.train, LightGCN.Config()), Evaluator(planted), QUICK, 0, torch.device("cpu"), progress=False
    )
    budget = Budget.parse(0.25, "bytes", planted.num_users, planted.num_items, 16)
    method = Scall(Scall.Config(probes=2, probe_epochs=1, probe_steps=0, retrained=1))
    tables = method.search(method.fit(planted.train, budget, stream(0, "assign")), trainer)
    assert budget.limit - 4 < tables.ledger().bytes <= budget.limit
