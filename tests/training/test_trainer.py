"""The trainer: early stopping, decay, hooks, determinism."""

import logging
from dataclasses import asdict, replace

import numba
import pytest
import torch
from torch import nn

from baco.backbones.backbone import MF, Backbone, LightGCN
from baco.compressors.budget import Budget
from baco.embedding.cost import Ledger
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream, torch_stream
from baco.training.checkpoint import Checkpoint
from baco.training.sampler import Sampler
from baco.training.trainer import Trainer
from baselines.full import Full
from baselines.hashing import RandomHash
from tests.conftest import QUICK

CPU = torch.device("cpu")


def trainer_for(data, protocol=QUICK, backbone=LightGCN, seed=0) -> Trainer:
    return Trainer(backbone(data.train, backbone.Config()), Evaluator(data), protocol, seed, CPU, progress=False)


def tables_for(data, method=None, std=0.1, budget=0.5) -> EmbeddingTables:
    budget = Budget.parse(budget, "parameters", data.num_users, data.num_items, 16)
    tables = (method or Full()).fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(std, torch_stream(0, "init"))
    return tables


def same_bits(one: EmbeddingTables, other: EmbeddingTables) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("backbone", [MF, LightGCN])
def test_training_beats_chance_by_far_and_compression_costs(planted, backbone):
    trainer = trainer_for(planted, backbone=backbone)
    values = {}
    for method in (Full(), RandomHash()):
        tables = tables_for(planted, method)
        report = trainer.fit(tables)
        values[method.name] = trainer.evaluate(tables, "test").means()["recall@20"]
        assert report.history[-1][1] < report.history[0][1], "the loss falls"
    chance = 20 / planted.num_items
    assert values["full"] > 3 * chance
    assert values["full"] > values["random"] > chance


def test_training_repeats_bit_for_bit_on_any_number_of_threads(planted):
    available = numba.get_num_threads()
    trained = []
    try:
        for threads in (1, available, available):
            numba.set_num_threads(threads)
            trained.append(tables_for(planted))
            trainer_for(planted).fit(trained[-1])
    finally:
        numba.set_num_threads(available)
    assert same_bits(trained[0], trained[1]) and same_bits(trained[1], trained[2])
    other = tables_for(planted)
    trainer_for(planted, seed=1).fit(other)
    assert not same_bits(trained[0], other)


def test_one_step_is_adams(planted):
    """A training of one step against the arithmetic written out: the gradient, the coupled decay, Adam's first step."""
    protocol = replace(QUICK, batch_size=10**6, max_epochs=1, schedule="constant", weight_decay=0.01)
    tables = tables_for(planted)
    users, items = (rows.detach().double().requires_grad_() for rows in tables())
    trainer_for(planted, protocol, MF).fit(tables)

    (batch,) = Sampler(planted.train, 10**6, torch_stream(0, "sampling")).epoch()
    difference = (users[batch.users] * (items[batch.positives] - items[batch.negatives])).sum(1)
    (torch.log1p(torch.exp(-difference)).mean() + 0.01 / 2 * (users.square().sum() + items.square().sum())).backward()
    for start, trained in zip((users, items), tables(), strict=True):
        step = 0.05 * start.grad / (start.grad.abs() + 1e-8)
        moved = start.grad.abs() > 1e-6  # where Adam's own epsilon does not blur the sign
        assert moved.float().mean() > 0.9
        torch.testing.assert_close(trained.double()[moved], (start - step)[moved], rtol=0, atol=2e-4)


class Scripted(Trainer):
    """A trainer whose validations follow a script; it remembers the tables at each of them."""

    def validate(self, tables):
        self.states = [*getattr(self, "states", []), tables.users.rows.detach().clone()]
        return self.script[len(self.states) - 1]


def scripted(data, script, **changes) -> tuple[Scripted, EmbeddingTables]:
    protocol = replace(QUICK, **{"max_epochs": 20, "eval_every": 3, "patience": 2} | changes)
    trainer = Scripted(LightGCN(data.train, LightGCN.Config()), Evaluator(data), protocol, 0, CPU, progress=False)
    trainer.script = script
    return trainer, tables_for(data)


def test_early_stopping_and_the_best_state(planted):
    """Validations follow epochs 1, 4, 7, ...; training ends after the second in a row that is no better."""
    trainer, tables = scripted(planted, [0.1, 0.3, 0.2, 0.4, 0.4, 0.4, 9.9])
    report = trainer.fit(tables)
    assert [epoch for epoch, _, _ in report.history] == [1, 4, 7, 10, 13, 16]
    assert (report.epochs, report.best_epoch, report.best_value) == (16, 10, 0.4)
    torch.testing.assert_close(tables.users.rows.detach(), trainer.states[3], rtol=0, atol=0)


@pytest.mark.parametrize(("learned", "best"), [(False, 1), (True, 0)])
def test_values_of_an_earlier_training_may_be_the_best_state(planted, learned, best):
    trainer, tables = scripted(planted, [0.5] * learned + [0.4, 0.3, 0.2], patience=9, max_epochs=6)
    tables.learned = learned
    report = trainer.fit(tables)
    assert (report.best_epoch, report.best_value) == (best, 0.5 if learned else 0.4)
    assert [epoch for epoch, _, _ in report.history] == [1, 4, 6]
    torch.testing.assert_close(tables.users.rows.detach(), trainer.states[0], rtol=0, atol=0)


def test_the_last_epoch_is_validated(planted):
    trainer, tables = scripted(planted, [0.1, 0.2, 0.3], max_epochs=6)
    report = trainer.fit(tables)
    assert [epoch for epoch, _, _ in report.history] == [1, 4, 6]
    assert report.best_epoch == 6


def test_divergence_is_one_clear_error(planted):
    trainer = trainer_for(planted, replace(QUICK, learning_rate=1e38, schedule="constant"))
    with pytest.raises(UserError, match=r"lower the protocol's learning_rate="):
        trainer.fit(tables_for(planted))


def test_progress_is_logged(planted, caplog):
    with caplog.at_level(logging.DEBUG, logger="baco"):
        trainer_for(planted).fit(tables_for(planted))
    lines = [record.getMessage() for record in caplog.records if record.name == "baco.training.trainer"]
    assert len(lines) == 7 and lines[0].startswith("epoch 1: loss 0.")


class Learned(EmbeddingTables):
    """A toy method that uses every hook: its codes are learned, and rounded to steps of 1/16 at the end."""

    def __init__(self, num_users, num_items, dim):
        super().__init__()
        self.user_rows = nn.Parameter(torch.zeros(4, dim))
        self.item_rows = nn.Parameter(torch.zeros(num_items, dim))
        self.register_buffer("codes", torch.arange(num_users) % 4)
        self.calls = []

    def forward(self):
        return self.user_rows[self.codes], self.item_rows

    def reset_parameters(self, std, generator):
        with torch.no_grad():
            for rows in (self.user_rows, self.item_rows):
                rows.copy_(torch.randn(rows.shape, generator=generator) * std)

    def ledger(self):
        floats = self.user_rows.numel() + self.item_rows.numel()
        return Ledger(floats, 4 * floats, floats)

    def auxiliary_loss(self):
        self.calls.append("auxiliary_loss")
        return self.item_rows.square().sum()

    def on_step_end(self):
        self.calls.append("on_step_end")

    def on_epoch_end(self, epoch, final_embeddings):
        self.calls.append("on_epoch_end")
        if epoch != 1:
            return None
        with torch.no_grad():
            self.codes.copy_(torch.arange(len(self.codes)) // (len(self.codes) // 4 + 1))
            self.user_rows.fill_(0.25)
        users, items, added = final_embeddings()
        assert users.isfinite().all() and len(items) == len(self.item_rows) and len(added) == 0
        return [self.user_rows]

    def on_training_end(self):
        self.calls.append("on_training_end")
        with torch.no_grad():
            for rows in (self.user_rows, self.item_rows):
                rows.mul_(16).round_().div_(16)


def test_learned_methods_have_their_hooks(planted):
    protocol = replace(QUICK, batch_size=4000, max_epochs=3, eval_every=1)
    tables = Learned(planted.num_users, planted.num_items, 8)
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    trainer_for(planted, protocol).fit(tables)
    steps = ["auxiliary_loss", "on_step_end"] * -(-planted.train.num_edges // 4000)
    assert tables.calls == [*steps, "on_epoch_end"] * 3 + ["on_training_end"]
    assert torch.equal(tables.item_rows * 16, (tables.item_rows * 16).round()), "rounded after the best state returned"


def test_adam_forgets_replaced_parameters(planted, monkeypatch):
    seen = []

    class Watched(torch.optim.Adam):
        def step(self, closure=None):
            seen.append({len(parameter): int(state["step"]) for parameter, state in self.state.items()})
            super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    tables = Learned(planted.num_users, planted.num_items, 8)
    trainer_for(planted, replace(QUICK, batch_size=10**6, max_epochs=4)).fit(tables)
    items = planted.num_items
    assert seen == [{}, {4: 1, items: 1}, {items: 2}, {4: 1, items: 3}], "user rows were replaced after epoch 2"


def test_learned_codes_come_back_with_the_best_state(planted, monkeypatch):
    """The first validation is the best; the codes change after the second epoch."""
    values = iter([1.0, 0.5, 0.5])
    trainer = trainer_for(planted, replace(QUICK, max_epochs=3, eval_every=1))
    monkeypatch.setattr(trainer, "validate", lambda tables: next(values))
    tables = Learned(planted.num_users, planted.num_items, 8)
    start = tables.codes.clone()
    assert trainer.fit(tables).best_epoch == 1
    assert torch.equal(tables.codes, start)


def test_short_trainings_within_a_search(planted):
    """What a searching method asks of the trainer: a few epochs, several times, each from the same batches."""
    trainer, results = trainer_for(planted), []
    for _ in range(2):
        tables = tables_for(planted)
        report = trainer.fit(tables, max_epochs=2)
        assert report.epochs == 2
        results.append(tables)
    assert same_bits(*results)


def test_decay_per_epoch_is_what_it_says(planted, monkeypatch):
    """Without a gradient, rows shrink by that part in an epoch, whatever the learning rate and the batch size."""

    def no_gradient(self, tables, batch):
        return 0 * tables()[0].sum() * batch.users

    monkeypatch.setattr(Backbone, "score_differences", no_gradient)
    monkeypatch.setattr(MF, "score_differences", no_gradient)
    for backbone, batch_size, learning_rate, part in (
        (MF, 10**6, 0.05, 0.1),
        (MF, 500, 0.05, 0.1),
        (MF, 500, 0.01, 0.1),
        (LightGCN, 500, 0.05, 0.1 / 3),
    ):
        protocol = replace(
            QUICK,
            batch_size=batch_size,
            learning_rate=learning_rate,
            schedule="constant",
            decay_per_epoch=0.1,
            max_epochs=1,
        )
        tables = tables_for(planted)
        start = tables.users.rows.detach().clone()
        trainer_for(planted, protocol, backbone).fit(tables)
        steps = -(-planted.train.num_edges // batch_size)
        torch.testing.assert_close(tables.users.rows.detach(), start * (1 - part / steps) ** steps)


def interrupted_at(trainer: Trainer, call: int) -> Trainer:
    """The trainer breaks off at a validation, counted from 1, after the work that precedes it."""
    validate, calls = trainer.validate, []

    def fragile(tables):
        calls.append(tables)
        if len(calls) == call:
            raise KeyboardInterrupt
        return validate(tables)

    trainer.validate = fragile
    return trainer


def learned_for(data) -> Learned:
    tables = Learned(data.num_users, data.num_items, 8)
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables


@pytest.mark.parametrize("changes", [{}, {"decay_per_epoch": 0.1, "schedule": "constant", "patience": 1}])
@pytest.mark.parametrize("make", [tables_for, learned_for])
def test_an_interrupted_training_ends_in_the_same_bits(planted, tmp_path, make, changes):
    """Broken off twice, in other processes' stead continued by other objects."""
    protocol = replace(QUICK, eval_every=2, max_epochs=9) if not changes else replace(QUICK, **changes)
    whole = make(planted)
    expected = trainer_for(planted, protocol).fit(whole)
    path = tmp_path / "checkpoint"
    for call in (3, 2):
        with pytest.raises(KeyboardInterrupt):
            interrupted_at(trainer_for(planted, protocol), call).fit(make(planted), checkpoint=Checkpoint(path, 0, {}))
    pieces = make(planted)
    trainer = trainer_for(planted, protocol)
    report = trainer.fit(pieces, checkpoint=Checkpoint(path, 0, {}))
    assert same_bits(whole, pieces)
    assert 0 < trainer.continued_seconds < report.training_seconds + report.validation_seconds
    assert len(report.continued_after) == 2 and report.continued_after[0] < report.continued_after[1]
    timeless = {"training_seconds": 0, "validation_seconds": 0, "continued_after": []}
    assert asdict(replace(report, **timeless)) == asdict(replace(expected, **timeless))


@pytest.mark.parametrize("spoil", ["other code", "cut off", "gone"])
def test_a_useless_checkpoint_is_reported_and_the_training_starts_anew(planted, tmp_path, caplog, spoil):
    whole = tables_for(planted)
    trainer_for(planted).fit(whole)
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        interrupted_at(trainer_for(planted), 3).fit(tables_for(planted), checkpoint=Checkpoint(path, 0, {"code": 1}))
    if spoil == "cut off":
        path.write_bytes(path.read_bytes()[:-1000])
    if spoil == "gone":
        path.unlink()
    again = tables_for(planted)
    code = 2 if spoil == "other code" else 1
    report = trainer_for(planted).fit(again, checkpoint=Checkpoint(path, 0, {"code": code}))
    assert report.continued_after == [] and same_bits(whole, again)
    assert ("starts anew" in caplog.text) == (spoil != "gone")


def test_checkpoints_are_saved_at_times_only(planted, tmp_path):
    path = tmp_path / "checkpoint"
    trainer_for(planted).fit(tables_for(planted), checkpoint=Checkpoint(path, 3600, {}))
    assert not path.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_the_old_one_stays(
    planted, tmp_path, monkeypatch, caplog, error
):
    path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path, 0, {})
    checkpoint.save({"epoch": 1})

    def full(content, target):
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    report = trainer_for(planted).fit(tables_for(planted), checkpoint=Checkpoint(path.with_name("other"), 0, {}))
    checkpoint.save({"epoch": 2})
    monkeypatch.undo()
    assert report.epochs > 1 and "cannot be written" in caplog.text
    assert checkpoint.load(torch.device("cpu")) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"], "nothing half-written is left"
