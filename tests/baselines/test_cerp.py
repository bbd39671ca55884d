"""CERP: its rows, its regulariser, its budget, and what it is without pruning."""

import numpy as np
import pytest
import torch

from baco.compressors.budget import Budget
from baco.rng import stream, torch_stream
from baselines.cerp import Cerp, ComplementaryTables
from tests.baselines.test_pep import trainer_for

DIM = 16


def fitted(data, value=0.4, unit="parameters", **settings):
    budget = Budget.parse(value, unit, data.num_users, data.num_items, DIM)
    method = Cerp(Cerp.Config(**settings))
    tables = method.fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return method, tables, budget


def two_rows(rows, codebook):
    return torch.stack([rows[first] + rows[second] for first, second in codebook.codes.long().tolist()])


@pytest.mark.parametrize("share", [False, True])
def test_an_embedding_is_a_row_of_each_codebook_and_no_two_ids_have_the_same(planted, share):
    _, tables, budget = fitted(planted, share_sides=share)
    users, items = tables.users.codes, tables.items.codes
    sides = [(torch.cat([users, items]), tables.users)] if share else [(users, tables.users), (items, tables.items)]
    for codes, codebook in sides:
        half = len(codebook.rows) // 2
        assert codes[:, 0].unique().tolist() == list(range(half)), "all rows are in use"
        assert codes[:, 1].unique().tolist() == list(range(half, 2 * half))
        assert len(codes.unique(dim=0)) == len(codes)
    for output, codebook in zip(tables(), (tables.users, tables.items), strict=True):
        torch.testing.assert_close(output, two_rows(codebook.rows, codebook))
    assert budget.share(tables.ledger()) == 1
    assert tables.kept.float().mean() == pytest.approx(0.5, abs=0.03)


def test_sums_are_of_thresholded_rows_and_their_zeros_cost(planted):
    _, tables, _ = fitted(planted, share_sides=True)
    thresholded = ComplementaryTables(tables.assignment, DIM, tables.most, ramp=10, gamma=0.5)
    thresholded.reset_parameters(0.1, torch_stream(0, "init"))
    thresholded.common.fill_(np.log(0.05))
    rows = thresholded.users.rows
    soft = rows.sign() * (rows.abs() - 0.05).clamp(min=0)
    expected = [two_rows(soft, codebook) for codebook in (thresholded.users, thresholded.items)]
    for output, same in zip(thresholded(), expected, strict=True):
        torch.testing.assert_close(output, same)
    costs = -(100 * torch.cat(expected)).tanh().square().sum() / 700
    torch.testing.assert_close(thresholded.auxiliary_loss(), 0.5 * costs)
    thresholded.on_epoch_end(0, None)
    assert thresholded.gamma == 0.25, "ten halvings in ten epochs"


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_the_mask_is_what_the_first_training_leaves_and_fills_the_budget(planted, unit):
    method, tables, budget = fitted(planted, unit=unit)
    trainer = trainer_for(planted)
    tables = method.search(trainer.initialize(tables), trainer)
    left = torch.cat(trainer.trained.shared_rows()) != 0
    assert (tables.kept & ~left).sum() <= 2
    assert budget.limit - (1 if unit == "parameters" else 5) < budget.amount(tables.ledger()) <= budget.limit
    assert tables.ledger().training_floats == 2 * tables.kept.numel()


def test_without_sparsity_no_entry_is_lost(planted):
    _, tables, budget = fitted(planted, sparsity=0.0)
    assert tables.kept.float().mean() > 0.98 and budget.share(tables.ledger()) > 0.98
