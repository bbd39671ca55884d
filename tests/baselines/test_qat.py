"""Quantization-aware training: what rounding gives and what it passes back, and what is left after training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baco.backbones.backbone import LightGCN
from baco.compressors.budget import Budget
from baco.embedding.codebook import CodebookTables
from baco.embedding.quantizers import unpack_export
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream
from baco.training.trainer import Trainer
from baselines.integers import Int2, Int4, Int8
from baselines.qat import Grids, QuantizationAwareTables, QuantizationAwareTraining
from tests.conftest import QUICK


def rows_of(n=40, dim=16) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", [Int8, Int4, Int2], ids=lambda method: method.name)
def test_at_first_rows_are_what_packing_makes_of_them(method):
    rows, grids = rows_of(), Grids(method.quantizer, 40)
    grids.fit(rows)
    expected = method.quantizer.pack(rows.numpy(), np.random.default_rng(0))
    for packed in (expected, grids.packed(rows)):
        found = method.quantizer.unpack(packed, 16)
        np.testing.assert_array_equal(found, grids(rows).detach().numpy())
    ids = torch.tensor([3, 1, 3])
    assert torch.equal(grids(rows[ids], ids), grids(rows)[ids])


@pytest.mark.parametrize("method", [Int8, Int4, Int2], ids=lambda method: method.name)
def test_gradients_are_those_of_learned_step_sizes(method):
    """LSQ, eq. 3: of an entry x within the range, 1 for x, and q - (x - offset) / step for the step."""
    quantizer, rows = method.quantizer, rows_of().requires_grad_()
    grids = Grids(quantizer, 40)
    with torch.no_grad():
        grids.fit(rows)
        grids.log_steps.sub_(0.3)  # some entries are beyond
        steps = grids.log_steps.exp().half().double()
        first = -steps * (quantizer.top // 2) if grids.offsets is None else grids.offsets.half().double()
        places = (rows.double() - first) / steps
        inside = ((places > 0) & (places < quantizer.top)).double()
        levels = places.clamp(0, quantizer.top).round()
        from_zero = levels - quantizer.top // 2 if quantizer.symmetric else levels
        rounding = from_zero - inside * rows.double() / steps if quantizer.symmetric else levels - inside * places
    grids(rows).sum().backward()
    assert 0 < inside.mean() < 1
    torch.testing.assert_close(rows.grad, inside.float())
    expected = (rounding.sum(1, keepdim=True) * grids.log_steps.exp().double()).float()
    torch.testing.assert_close(grids.log_steps.grad, expected, rtol=1e-3, atol=1e-3)
    if grids.offsets is not None:
        torch.testing.assert_close(grids.offsets.grad, (1 - inside).sum(1, keepdim=True).float())


@pytest.mark.parametrize("bits", [8, 2])
def test_training_goes_on_from_the_full_model_and_ends_as_integers(bits, planted):
    qat = QuantizationAwareTraining(QuantizationAwareTraining.Config(bits=bits))
    budget = Budget.parse(None, "parameters", planted.num_users, planted.num_items, 16)
    protocol = replace(QUICK, max_epochs=6)
    backbone = LightGCN(planted.train, LightGCN.Config())
    trainer = Trainer(backbone, Evaluator(planted), protocol, 0, torch.device("cpu"), progress=False)
    tables = qat.search(trainer.initialize(qat.fit(planted.train, budget, stream(0, "assign"))), trainer)
    assert isinstance(tables, QuantizationAwareTables)
    before, learned = tables.state_dict()["users.log_steps"].clone(), trainer.validate(tables)
    trainer.fit(tables)
    assert not torch.equal(tables.state_dict()["users.log_steps"], before)
    assert trainer.validate(tables) >= learned
    assert all(len(row.unique()) <= 2**bits for row in tables()[0])
    assert tables.ledger().training_floats == sum(parameter.numel() for parameter in tables.parameters())
    again = CodebookTables.from_export(unpack_export(tables.export()))
    assert all(torch.equal(one, other) for one, other in zip(tables(), again(), strict=True))


def test_other_widths_are_refused():
    with pytest.raises(UserError, match=r"^bits=3 must be 8, 4 or 2"):
        QuantizationAwareTraining.Config(bits=3)
