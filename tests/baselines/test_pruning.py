"""Pruning: which weights stay, when the others go, that the best state meets the budget, and what a server stores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from baco.backbones.backbone import LightGCN
from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream, torch_stream
from baco.training.checkpoint import Checkpoint
from baco.training.trainer import Trainer
from baselines.pruning import Prune, PrunedTables, Selection
from tests.conftest import QUICK
from tests.training.test_trainer import interrupted_at

DIM = 16


def trainer_for(data, kind=Trainer, **changes) -> Trainer:
    backbone = LightGCN(data.train, LightGCN.Config())
    return kind(backbone, Evaluator(data), replace(QUICK, **changes), 0, torch.device("cpu"), progress=False)


def budget_of(data, value=0.25, unit="parameters") -> Budget:
    return Budget.parse(value, unit, data.num_users, data.num_items, DIM)


def fitted(data, budget=None, **settings) -> tuple[Prune, PrunedTables]:
    method = Prune(Prune.Config(**settings))
    tables = method.fit(data.train, budget or budget_of(data), stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return method, tables


def nonzero(tables) -> int:
    return sum(int(torch.count_nonzero(rows)) for rows in tables())


def kept_by_sorting(weights: np.ndarray, count: int, protect: int) -> np.ndarray:
    kept = np.zeros(weights.shape, bool)
    size = np.abs(weights)
    for row, magnitudes in enumerate(size):
        kept[row, sorted(range(len(magnitudes)), key=lambda k: -magnitudes[k])[:protect]] = True
    others = sorted(zip(*np.nonzero(~kept), strict=True), key=lambda place: -size[place])
    for place in others[: count - int(kept.sum())]:
        kept[place] = True
    return kept


@given(
    hnp.arrays(np.int8, st.tuples(st.integers(2, 6), st.integers(1, 5)), elements=st.integers(-60, 60)),
    st.floats(0, 1),
    st.integers(0, 3),
    st.integers(1, 5),
    st.sampled_from(["both", "side"]),
)
def test_the_largest_stay(weights, part, protect, num_users, scope):
    rng = np.random.default_rng(0)
    weights = weights + rng.uniform(-0.4, 0.4, weights.shape)  # no ties
    num_rows, dim = weights.shape
    num_users, protect = min(num_users, num_rows - 1), min(protect, dim)
    least = protect * num_rows
    count = least + round(part * (weights.size - least))
    sides = [torch.tensor(side) for side in np.split(weights, [num_users])]
    kept = Selection(scope, protect).keep(sides, count).numpy()
    if scope == "both":
        expected = kept_by_sorting(weights, count, protect)
    else:
        of_users = round(count * num_users / num_rows)
        parts = zip(np.split(weights, [num_users]), (of_users, count - of_users), strict=True)
        expected = np.concatenate([kept_by_sorting(side, share, protect) for side, share in parts])
    np.testing.assert_array_equal(kept, expected)


class Counting(Trainer):
    """A trainer whose first validations are the best; it counts the nonzero weights at each of them."""

    def validate(self, tables):
        self.seen = [*getattr(self, "seen", []), nonzero(tables)]
        return 1 / len(self.seen)


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("scope", ["both", "side"])
def test_weights_go_along_the_cubic_schedule_and_no_earlier_state_wins(planted, scope, unit):
    budget = budget_of(planted, unit=unit)
    method, tables = fitted(planted, budget, until=0.5, scope=scope)
    trainer = trainer_for(planted, Counting, max_epochs=12, eval_every=1)
    tables = method.search(tables, trainer)
    assert nonzero(tables) == 700 * DIM, "dense again"
    budget.check(tables.ledger(), "prune")
    report = trainer.fit(tables)
    budget.check(tables.ledger(), "prune")
    final, start = tables.ledger().parameters, 700 * DIM
    assert nonzero(tables) == final
    aim = 2800 if unit == "parameters" else (budget.limit - 700) // 4
    expected = [aim + round((1 - epoch / 6) ** 3 * (start - aim)) for epoch in range(1, 6)]
    assert trainer.seen == expected + [final] * 7
    assert report.best_epoch == 6, "the first that meets the budget"
    assert budget.limit - (1 if unit == "parameters" else 5) < budget.amount(tables.ledger()) <= budget.limit


def test_early_stopping_counts_from_the_budget_on(planted):
    method, tables = fitted(planted, until=0.5)
    trainer = trainer_for(planted, Counting, max_epochs=20, eval_every=1, patience=2)
    report = trainer.fit(method.search(tables, trainer))
    assert (report.best_epoch, report.epochs) == (10, 12)


def test_kept_weights_are_trained_on_and_pruned_ones_stay_zero(planted):
    method, tables = fitted(planted, until=0.5)
    trainer = trainer_for(planted, max_epochs=4, eval_every=1)
    tables = method.search(tables, trainer)
    masks = []

    def remember(tables, validate=trainer.validate):
        masks.append((tables.kept.clone(), torch.cat(tables.sides)))
        return len(masks)

    trainer.validate = remember
    trainer.fit(tables)
    (early, _), (final, then), (_, _), (last, now) = masks
    assert not (final & ~early).any() and torch.equal(final, last)
    assert (now[~final] == 0).all()
    assert (now[final] != then[final]).float().mean() > 0.99


def test_pruning_once_keeps_the_largest_of_the_trained_weights(planted):
    method, tables = fitted(planted, schedule="once", protect=2)
    trainer = trainer_for(planted)
    tables = method.search(tables, trainer)
    seen = []
    trainer.validate = lambda tables: seen.append(torch.cat(tables.sides).clone()) or -abs(len(seen) - 3)
    report = trainer.fit(tables)
    assert all(torch.count_nonzero(weights) == 700 * DIM for weights in seen)
    best = seen[[epoch for epoch, _, _ in report.history].index(report.best_epoch)]
    expected = torch.where(Selection("both", 2).keep(best.split([400, 300]), 2800), best, 0.0)
    torch.testing.assert_close(torch.cat(tables()), expected, rtol=0, atol=0)
    assert torch.cat(tables()).count_nonzero(1).min() >= 2


@pytest.mark.parametrize("call", [2, 4])
def test_an_interrupted_pruning_ends_in_the_same_bits(planted, tmp_path, call):
    """Broken off on the way to the budget, and after it was met."""
    budget, protocol = budget_of(planted, unit="bytes"), {"max_epochs": 8, "eval_every": 2}
    results = []
    for interrupt in (False, True):
        if interrupt:
            method, tables = fitted(planted, budget)
            trainer = interrupted_at(trainer_for(planted, **protocol), call)
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(method.search(tables, trainer), checkpoint=Checkpoint(tmp_path / "checkpoint", 0, {}))
        method, tables = fitted(planted, budget)
        trainer = trainer_for(planted, **protocol)
        report = trainer.fit(method.search(tables, trainer), checkpoint=Checkpoint(tmp_path / "checkpoint", 0, {}))
        (tmp_path / "checkpoint").unlink()
        results.append(torch.cat(tables()).detach())
    assert len(report.continued_after) == 1
    assert torch.equal(*results)


@pytest.mark.parametrize("value", [0.02, 0.1, 0.25, 1.0])
def test_rows_are_stored_as_positions_or_bitmaps(planted, value):
    budget = budget_of(planted, value, "bytes")
    _, tables = fitted(planted, budget)
    arrays = tables.export()
    counts = torch.cat(tables()).count_nonzero(1).numpy()
    np.testing.assert_array_equal(arrays["layout"], np.minimum(counts, 2))  # a bitmap of 16 bits takes 2 bytes
    assert len(arrays["positions"]) == (counts == 1).sum() and arrays["bitmaps"].shape == ((counts > 1).sum(), 2)
    assert budget.limit - 5 < tables.ledger().bytes <= budget.limit
    for output, restored in zip(tables(), PrunedTables.from_export(arrays)(), strict=True):
        assert torch.equal(output, restored)


@pytest.mark.parametrize(("unit", "least"), [("parameters", 1400), ("bytes", 1400 * 4 + 700 + 1400)])
def test_budgets_below_what_is_protected_are_refused(planted, unit, least):
    _, tables = fitted(planted, Budget(least, unit, DIM), protect=2)
    assert nonzero(tables) == 1400
    with pytest.raises(UserError, match=f"budget of {least - 1:,} {unit} is below the least .* {least:,}"):
        fitted(planted, Budget(least - 1, unit, DIM), protect=2)


@pytest.mark.parametrize(
    "setting", [{"schedule": "never"}, {"until": 0.0}, {"until": 1.5}, {"scope": "all"}, {"protect": -1}]
)
def test_impossible_settings_are_named(setting):
    with pytest.raises(UserError, match=f"^{next(iter(setting))}={next(iter(setting.values()))} must be"):
        Prune.Config(**setting)


def test_what_a_row_does_not_have_cannot_be_protected(planted):
    with pytest.raises(UserError, match=r"^protect=17 is more than dim=16"):
        fitted(planted, protect=17)


def test_positions_fit_a_byte(planted):
    with pytest.raises(UserError, match="dim=257 is more than 256"):
        fitted(planted, Budget(10**6, "parameters", 257))


def test_pruned_entries_stay_zero_at_the_start_and_dense_ones_move(planted):
    method, tables = fitted(planted)
    ones = [np.ones((size, DIM), np.float32) for size in (planted.num_users, planted.num_items)]
    before = torch.cat(tables()).detach().clone()
    tables.start_near(lambda dim: ones, 3.0)
    torch.testing.assert_close(torch.cat(tables()).detach(), (before + 3) * tables.kept)
    trainer = trainer_for(planted)
    dense = method.search(tables, trainer)
    dense.start_near(lambda dim: ones, 3.0)
    assert nonzero(dense) == 700 * DIM


def test_tables_meet_the_budget_before_their_first_values(planted):
    budget = budget_of(planted)
    tables = Prune().fit(planted.train, budget, stream(0, "assign"))
    assert budget.share(tables.ledger()) == 1
