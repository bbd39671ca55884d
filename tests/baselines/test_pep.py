"""PEP: what thresholds leave, that they end at the budget, and that the mask is trained from the first values."""

import numpy as np
import pytest
import torch

from baco.backbones.backbone import LightGCN
from baco.compressors.budget import Budget
from baco.embedding.codes import Assignment
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.full import full_tables
from baselines.pep import Pep, ThresholdedTables
from tests.conftest import QUICK

DIM = 16


class Watched(Trainer):
    """A trainer that remembers the tables that it trained and the weights that were left at each validation."""

    def fit(self, tables, max_epochs=None, checkpoint=None):
        self.trained = tables
        return super().fit(tables, max_epochs, checkpoint)

    def validate(self, tables):
        self.left = [*getattr(self, "left", []), int(torch.cat(tables()).count_nonzero())]
        return super().validate(tables)


def trainer_for(data) -> Watched:
    backbone = LightGCN(data.train, LightGCN.Config())
    return Watched(backbone, Evaluator(data), QUICK, 0, torch.device("cpu"), progress=False)


def test_weights_are_thresholded_softly_and_priorities_say_which_stay():
    tables = ThresholdedTables(Assignment.of_own_rows(1, 1), 3, most=3, ramp=1)
    with torch.no_grad():
        tables.users.rows.copy_(torch.tensor([[0.5, -2.0, 0.1]]))
        tables.items.rows.copy_(torch.tensor([[-0.3, 0.05, 0.0]]))
        tables.own[0][0, 1] = np.log(10)
        tables.common.fill_(np.log(0.15))
    users, items = tables()
    torch.testing.assert_close(users, torch.tensor([[0.35, -0.5, 0.0]]))
    torch.testing.assert_close(items, torch.tensor([[-0.15, 0, 0]]))
    torch.testing.assert_close(tables.lookup("users", torch.tensor([0, 0])), users.expand(2, 3))
    for output, priorities in zip(tables(), tables.priorities(), strict=True):
        assert torch.equal(output != 0, priorities > tables.common.exp())
    users.sum().backward()
    torch.testing.assert_close(tables.own[0].grad, torch.tensor([[-0.15, 1.5, 0.0]]))
    tables.on_epoch_end(0, None)
    assert torch.cat(tables()).count_nonzero() == 3 and tables.selectable(), "no fewer were left before"


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_the_mask_is_what_the_first_training_leaves_and_starts_from_the_same_values(planted, unit):
    budget = Budget.parse(0.25, unit, planted.num_users, planted.num_items, DIM)
    method, trainer = Pep(), trainer_for(planted)
    tables = method.fit(planted.train, budget, stream(0, "assign"))
    tables = method.search(trainer.initialize(tables), trainer)
    assert trainer.left == sorted(trainer.left, reverse=True)
    assert trainer.left[-1] == pytest.approx(tables.most, abs=2)
    thresholded = trainer.trained
    kept = torch.cat(thresholded()) != 0
    assert (tables.kept & ~kept).sum() <= 2 and tables.ledger().training_floats == 2 * 700 * DIM
    first = full_tables(planted.train, DIM)
    first.reset_parameters(QUICK.init_std, torch_stream(0, "init"))
    torch.testing.assert_close(torch.cat(tables()), torch.cat(first()) * tables.kept, rtol=0, atol=0)
    assert budget.limit - (1 if unit == "parameters" else 5) < budget.amount(tables.ledger()) <= budget.limit
    magnitudes = torch.cat(thresholded.priorities())
    assert not torch.equal(magnitudes, torch.cat([thresholded.users.rows, thresholded.items.rows]).abs())


def test_rows_under_thresholds_start_near_embeddings():
    tables = ThresholdedTables(Assignment.of_own_rows(2, 3), 4, most=10, ramp=1)
    tables.start_near(lambda dim: (np.ones((2, dim), np.float32), -np.ones((3, dim), np.float32)), 3.0)
    for output, value in zip(tables(), (3.0, -3.0), strict=True):
        torch.testing.assert_close(output, torch.full_like(output, value))
