"""The state of a training: early stopping, and a state that is saved and continued."""

import copy

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from baco.graph import Biadjacency
from baco.training.sampler import Sampler
from baco.training.state import EarlyStopping, TrainingState


def test_early_stopping_counts_failures_in_a_row():
    stopping = EarlyStopping(patience=2)
    values = [0.2, 0.1, 0.3, 0.3, 0.1]
    assert [stopping.update(value, epoch) for epoch, value in enumerate(values, 1)] == [True, False, True, False, False]
    assert (stopping.best_value, stopping.best_epoch, stopping.failures) == (0.3, 3, 2)
    assert stopping.exhausted


def test_the_first_validation_may_be_worth_nothing():
    stopping = EarlyStopping(patience=1)
    assert stopping.update(0.0, 1) and not stopping.exhausted


def state_of(graph: Biadjacency) -> TrainingState:
    tables = nn.Linear(3, 2)
    adam = torch.optim.Adam(tables.parameters(), lr=0.1)
    scheduler = LambdaLR(adam, lambda step: 1 / (step + 1))
    return TrainingState(
        tables, adam, scheduler, Sampler(graph, 16, torch.Generator().manual_seed(0)), EarlyStopping(patience=3)
    )


def advance(state: TrainingState) -> torch.Tensor:
    """A step on drawn numbers; returns all that it makes."""
    (state.tables.weight * torch.randn(2, 3, generator=state.sampler.generator)).sum().backward()
    state.optimizer.step()
    state.scheduler.step()
    return torch.cat([state.tables.weight.detach().flatten(), torch.tensor(state.scheduler.get_last_lr())])


def test_a_loaded_state_continues_as_the_saved_one(sparse_graph):
    state, other = state_of(sparse_graph), state_of(sparse_graph)
    advance(state)
    state.stopping.update(0.4, 1)
    state.keep_best()
    state.report.epochs, state.report.history = 1, [(1, 0.7, 0.4)]
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    state.optimizer.zero_grad()
    assert (other.report, other.stopping) == (state.report, state.stopping)
    assert torch.equal(advance(other), advance(state))
    for one in (state, other):
        one.restore_best()
        assert (one.report.best_epoch, one.report.best_value) == (1, 0.4)
    assert torch.equal(state.tables.weight, other.tables.weight)


def test_the_best_state_is_a_copy(sparse_graph):
    state = state_of(sparse_graph)
    start = state.tables.weight.detach().clone()
    advance(state)
    assert not torch.equal(state.tables.weight, start)
    state.restore_best()
    assert torch.equal(state.tables.weight, start) and state.report.best_epoch == 0
