"""AMTL: masks and their gradient, that sizes keep to the budget while they are learned, and that they are its sizes."""

import numpy as np
import pytest
import torch

from baco.backbones.backbone import MF
from baco.compressors.budget import Budget
from baco.evaluation.evaluator import Evaluator
from baco.graph import Biadjacency
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.amtl import AdaptiveTables, Amtl
from tests.conftest import QUICK

DIM = 16


def tables_for(train, mean, dim=DIM) -> AdaptiveTables:
    tables = AdaptiveTables(train, dim, round(mean * train.num_nodes), epochs=1)
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables


@pytest.mark.parametrize("mean", [1.2, 4, 15.9])
def test_rows_are_kept_as_far_as_sizes_go_which_begin_equal_and_within_the_budget(planted, mean):
    tables = tables_for(planted.train, mean)
    sizes = tables.sizes()
    assert np.abs(sizes - mean).max() < 1.5 and tables.auxiliary_loss() < 0.05
    padded = torch.arange(1, DIM + 1) <= torch.as_tensor(sizes).round()[:, None]
    rows = torch.cat([tables.users.rows, tables.items.rows])
    torch.testing.assert_close(torch.cat(tables()), rows * padded)
    ids = torch.tensor([3, 3, 0])
    for side, output in zip(("users", "items"), tables(), strict=True):
        torch.testing.assert_close(tables.lookup(side, ids), output[ids])
    one_degree = planted.train.user_degrees == planted.train.user_degrees[0]
    assert len(set(sizes[:400][one_degree])) == 1


def test_what_gains_from_more_entries_grows_and_the_budget_pulls_back():
    tables = tables_for(Biadjacency.from_matrix(np.ones((2, 3))), 4)
    users, _ = tables()
    users.backward(-tables.users.rows.detach())  # as if a loss fell with every entry that is kept
    bias = tables.user_sizer.frequent.last_bias
    assert bias.grad < 0 and tables.item_sizer.frequent.last_bias.grad is None
    tables.zero_grad()
    tables.total //= 2
    tables.auxiliary_loss().backward()
    assert bias.grad > 0


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_the_learned_sizes_are_scaled_to_the_budget(planted, unit, monkeypatch):
    budget = Budget.parse(0.25, unit, planted.num_users, planted.num_items, DIM)
    trainer = Trainer(MF(planted.train, MF.Config()), Evaluator(planted), QUICK, 0, torch.device("cpu"), progress=False)
    learned = []
    monkeypatch.setattr(trainer, "fit", lambda tables: learned.append(tables) or Trainer.fit(trainer, tables))
    method = Amtl()
    tables = method.search(method.fit(planted.train, budget, stream(0, "assign")), trainer)
    shares = learned[0].sizes()
    assert learned[0].selectable() and shares.std() > 0.1 and abs(shares.sum() / len(tables.values) - 1) < 0.2
    assert np.abs(tables.sizes - shares * len(tables.values) / shares.sum()).max() < 1.5
    assert budget.limit - (1 if unit == "parameters" else 4) < budget.amount(tables.ledger()) <= budget.limit
