"""ALPT: rounding at random, the gradient of steps, and a training that leaves nothing but integers."""

from dataclasses import replace

import pytest
import torch

from baco.backbones.backbone import LightGCN
from baco.compressors.budget import Budget
from baco.embedding.codebook import CodebookTables
from baco.embedding.quantizers import unpack_export
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.alpt import AdaptiveLowPrecisionTraining, LowPrecisionTables, StochasticGrids
from baselines.integers import Int2, Int4, Int8
from baselines.qat import Grids
from tests.conftest import QUICK


def rows_of(n=40, dim=16) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


def tables_of(data, bits=8) -> LowPrecisionTables:
    method = AdaptiveLowPrecisionTraining(AdaptiveLowPrecisionTraining.Config(bits=bits))
    budget = Budget.parse(None, "parameters", data.num_users, data.num_items, 16)
    return method.fit(data.train, budget, stream(0, "assign"))


@pytest.mark.parametrize("method", [Int8, Int4, Int2], ids=lambda method: method.name)
def test_rows_are_rounded_to_either_side_and_are_right_on_the_mean(method):
    rows = rows_of()
    grids = StochasticGrids(method.quantizer, *rows.shape)
    grids.fit(rows)
    places, steps, _ = grids._places(rows, None)
    inside = (places > 0) & (places < method.quantizer.top)
    mean, tries = torch.zeros_like(rows), 400
    for seed in range(tries):
        rounded = rows.clone()
        grids.round(rounded, torch.Generator().manual_seed(seed))
        assert ((rounded - rows).abs() < steps * 1.001)[inside].all()
        mean += rounded / tries
    torch.testing.assert_close(grids(rounded), rounded, rtol=0, atol=0)
    off = ((mean - rows) / steps)[inside]
    assert off.abs().max() < 5 * 0.5 / tries**0.5  # five deviations of the mean of a coin


@pytest.mark.parametrize("method", [Int8, Int4, Int2], ids=lambda method: method.name)
def test_gradients_are_those_of_rounding_what_rows_were_before(method):
    """Of rows that of the identity, of steps and offsets that of `qat` for the rows before they were rounded."""
    before, outer = rows_of(), rows_of().flip(0)
    grids, plain = StochasticGrids(method.quantizer, *before.shape), Grids(method.quantizer, len(before))
    for own in (grids, plain):
        own.fit(before * 0.8)  # some entries are beyond
    rows = before.clone()
    grids.round(rows, torch.Generator().manual_seed(1))
    rows.requires_grad_()
    (grids(rows) * outer).sum().backward()
    (plain(before) * outer).sum().backward()
    torch.testing.assert_close(rows.grad, outer)
    for own, expected in zip(grids.parameters(), plain.parameters(), strict=True):
        assert expected.grad.abs().max() > 0
        torch.testing.assert_close(own.grad, expected.grad)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_training_leaves_integers_after_each_epoch_and_learns(bits, planted):
    tables = tables_of(planted, bits)
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    first = tables.users.log_steps.detach().clone()
    backbone = LightGCN(planted.train, LightGCN.Config())
    trainer = Trainer(backbone, Evaluator(planted), replace(QUICK, max_epochs=6), 0, torch.device("cpu"), False)
    before = trainer.validate(tables)
    on_epoch_end, levels = tables.on_epoch_end, []
    tables.on_epoch_end = lambda *of_epoch: (
        levels.extend(len(row.unique()) for row in tables()[0]) or on_epoch_end(*of_epoch)
    )
    trainer.fit(tables)
    assert max(levels) <= min(16, 2**bits) and trainer.validate(tables) > 1.5 * before
    assert not torch.equal(tables.users.log_steps, first)
    found = [side.detach().clone() for side in tables()]
    again = CodebookTables.from_export(unpack_export(tables.export()))
    assert all(torch.equal(one, other) for one, other in zip(found, again(), strict=True))
    values = sum(
        value.numel() for name, value in tables.state_dict().items() if torch.is_tensor(value) and "codes" not in name
    )
    assert tables.ledger().training_floats == values


def test_a_restored_state_rounds_on_as_it_would_have(planted):
    tables, other = tables_of(planted), tables_of(planted)
    for seed, own in enumerate((tables, other)):
        own.reset_parameters(0.1, torch_stream(seed, "init"))
    tables.on_step_end()
    other.load_state_dict(tables.state_dict())
    for own in (tables, other):
        own.inner.users.rows.data += 0.01
        own.on_step_end()
    assert all(torch.equal(*sides) for sides in zip(tables(), other(), strict=True))
