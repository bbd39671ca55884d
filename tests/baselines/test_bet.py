"""BET: actions that spend the budget, what the predictor sees and learns, and which trainings a search consists of."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from baco.backbones.backbone import LightGCN
from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.bet import FAMILIES, Actions, Bet, FitnessPredictor
from baselines.support.size_search import score
from tests.coclustering.test_solvers import graphs
from tests.conftest import QUICK

PUBLISHED = [  # the distributions of the four families, by their parameter
    lambda beta: stats.powerlaw(beta),
    lambda beta: stats.truncexpon(beta),
    lambda beta: stats.truncnorm(0, beta),
    lambda beta: stats.lognorm(beta),
]
SMALL = Bet.Config(probes=6, candidates=10, probe_epochs=1, probe_steps=5, retrained=2)


@pytest.mark.parametrize("family", range(4))
@pytest.mark.parametrize("part", [0.05, 0.5, 1.0])
def test_families_are_the_published_distributions_up_to_scale(family, part):
    most, shares = FAMILIES[family]
    u = np.linspace(0.01, 0.99, 99)
    drawn, expected = shares(u, part * most), PUBLISHED[family](part * most).ppf(u)
    np.testing.assert_allclose(drawn / drawn[49], expected / expected[49], rtol=1e-6)
    assert np.isfinite(shares(np.array([0.5, 2**52 - 0.5]) / 2**52, part * most)).all()


@given(graphs(), st.floats(0, 1), st.integers(1, 9), st.integers(0, 2**32))
def test_actions_spend_the_budget_and_favour_the_frequent(graph, part, largest, seed):
    total = graph.num_nodes + int(part * graph.num_nodes * (largest - 1))
    actions = Actions(graph, total, largest)
    action = actions.draw(np.random.default_rng(seed))
    tables = actions.tables(action)
    assert tables.ledger().parameters == sum(map(np.sum, action)) == total
    sides = np.split(tables.sizes, [graph.num_users])
    for sizes, degrees in zip(sides, (graph.user_degrees, graph.item_degrees), strict=True):
        assert sizes.min() >= 1 and sizes.max() <= largest
        assert (np.diff(sizes[np.argsort(degrees, kind="stable")])[np.diff(np.sort(degrees)) > 0] >= 0).all()


def test_actions_are_diverse(planted):
    actions, rng = Actions(planted.train, 700 * 4, 16), np.random.default_rng(0)
    drawn = [actions.draw(rng) for _ in range(200)]
    shares = np.array([action.user_sizes.sum() / 2800 for action in drawn])
    assert shares.min() < 0.2 and shares.max() > 0.8
    assert min(a.user_sizes[0] - a.user_sizes[-1] for a in drawn) <= 1
    assert max(a.user_sizes[0] - a.user_sizes[-1] for a in drawn) == 15


@pytest.fixture
def actions(planted):
    return Actions(planted.train, 700 * 4, 16)


def predictor_for(actions, seed=0) -> FitnessPredictor:
    torch.manual_seed(seed)
    return FitnessPredictor(actions.frequencies, actions.largest)


def test_the_predictor_sees_means_over_the_ids_of_a_size(actions, planted):
    """Against a loop over ids, with the networks of the predictor."""
    predictor = predictor_for(actions)
    action = actions.draw(np.random.default_rng(3))
    encoded = []
    for encode, degrees in zip(
        predictor.elements, (planted.train.user_degrees, planted.train.item_degrees), strict=True
    ):
        encoded.append(encode(torch.tensor(degrees / degrees.max(), dtype=torch.float32)[:, None]))
    encoded, sizes = torch.cat(encoded), actions.tables(action).sizes
    sets = []
    for size in range(1, 17):
        members = encoded[torch.as_tensor(sizes == size)]
        mean = members.mean(0) if len(members) else torch.zeros(16)
        sets.append(predictor.sets(torch.cat([mean, torch.tensor([size / 16])])))
    expected = torch.stack(sets).mean(0)
    found = predictor.embed(actions.histogram(action)[None])[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(predictor(actions.histogram(action)[None])[0], predictor.value(expected)[0])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_predictor_learns_what_holds_for_other_actions_too(actions, seed):
    """Here that fitness is the users' share of the budget."""
    rng, predictor = np.random.default_rng(seed), predictor_for(actions, seed)
    drawn = [actions.draw(rng) for _ in range(100)]
    histograms = torch.stack([actions.histogram(action) for action in drawn])
    fitness = np.array([action.user_sizes.sum() / actions.total for action in drawn])
    for number in rng.integers(60, size=300):
        predictor.learn(histograms[number], fitness[number])
    predicted = predictor(histograms[60:]).detach().numpy()
    assert np.corrcoef(predicted, fitness[60:])[0, 1] > 0.6


def test_an_update_learns_one_pair_at_a_falling_rate(actions):
    predictor, histogram = predictor_for(actions), actions.histogram(actions.draw(np.random.default_rng(1)))
    errors = []
    for _ in range(30):
        errors.append(abs(predictor(histogram[None]).item() - 0.8))
        predictor.learn(histogram, 0.8)
    assert errors[-1] < 0.2 * errors[0]
    assert predictor._optimizer.param_groups[0]["lr"] == 0.002


class Watched(Trainer):
    """A trainer that remembers what it was asked to train, and which splits were ranked."""

    def fit(self, tables, max_epochs=None, checkpoint=None):
        start = tables.values.detach().clone() if hasattr(tables, "values") else None
        report = super().fit(tables, max_epochs, checkpoint)
        kind = "full" if start is None else "probe" if max_epochs else "retrained"
        self.trained = [*getattr(self, "trained", []), (kind, tables, start)]
        return report

    def evaluate(self, tables, split, k=50):
        self.splits = {*getattr(self, "splits", ()), split}
        return super().evaluate(tables, split, k)


def searched(data, config=SMALL, seed=0):
    trainer = Watched(
        LightGCN(data.train, LightGCN.Config()), Evaluator(data), QUICK, seed, torch.device("cpu"), progress=False
    )
    budget = Budget.parse(0.25, "parameters", data.num_users, data.num_items, 16)
    method = Bet(config)
    return trainer, method.search(method.fit(data.train, budget, stream(seed, "assign")), trainer)


def test_a_search_trains_once_in_full_probes_from_there_and_retrains_the_best(planted, caplog):
    with caplog.at_level(logging.INFO, logger="baselines"):
        trainer, tables = searched(planted)
    kinds, trained, starts = zip(*trainer.trained, strict=True)
    assert kinds == ("full", *["probe"] * 6, *["retrained"] * 2)
    assert trainer.splits == {"val"}
    full = torch.cat(trained[0]()).detach().flatten()
    for probe, start in zip(trained[1:7], starts[1:7], strict=True):
        torch.testing.assert_close(start, full[probe.positions], rtol=0, atol=0)
    values = [score(trainer, probe) for probe in trained[1:7]]
    retrained = [
        next(i for i in range(1, 7) if torch.equal(trained[i].positions, one.positions)) for one in trained[7:]
    ]
    assert retrained == [1 + i for i in np.argsort(values)[::-1][:2]], "the best probes, best first"
    best = max(trained[7:], key=lambda one: score(trainer, one))
    assert torch.equal(tables.positions, best.positions)
    trainer.fit(tables)
    torch.testing.assert_close(tables.values, best.values, rtol=0, atol=0)  # the training proper repeats it
    assert tables.ledger().parameters == 700 * 4 and tables.ledger().training_floats == 700 * 16
    assert "48 epochs at most" in caplog.text  # 3 * 12 + 6 * 2


def test_searches_repeat_and_leave_the_global_generator_alone(planted):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    short = replace(SMALL, probes=3, retrained=1)
    _, first = searched(planted, short)
    assert torch.equal(torch.rand(1), expected)
    _, again = searched(planted, short)
    assert torch.equal(first.positions, again.positions) and torch.equal(first.values, again.values)
    _, other = searched(planted, short, seed=1)
    assert not torch.equal(first.values, other.values)


@pytest.mark.parametrize(("steps", "epochs"), [(0, 1), (4, 1), (5, 2), (200, 12)])
def test_probes_are_whole_epochs_of_so_many_steps_and_no_longer_than_a_training(steps, epochs, planted):
    trainer = Trainer(
        LightGCN(planted.train, LightGCN.Config()), Evaluator(planted), QUICK, 0, torch.device("cpu"), progress=False
    )
    assert trainer.steps_per_epoch == 4
    assert Bet(replace(SMALL, probe_epochs=1, probe_steps=steps)).epochs_of_probe(trainer) == epochs


def test_the_control_probes_blindly(planted, monkeypatch):
    monkeypatch.setattr(FitnessPredictor, "forward", None)
    monkeypatch.setattr(FitnessPredictor, "learn", None)
    _, tables = searched(planted, replace(SMALL, selection="random", updates=0))
    assert tables.ledger().parameters == 700 * 4


@pytest.mark.parametrize(
    "setting",
    [{"probes": 0}, {"candidates": 0}, {"probe_steps": -1}, {"updates": -1}, {"retrained": 21}, {"selection": "best"}],
)
def test_impossible_settings_are_named(setting):
    with pytest.raises(UserError, match=f"^{next(iter(setting))}={next(iter(setting.values()))}"):
        Bet.Config(**setting)


def test_first_tables_are_those_of_a_blind_action(planted):
    budget = Budget.parse(0.25, "bytes", planted.num_users, planted.num_items, 16)
    tables = Bet().fit(planted.train, budget, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    assert budget.limit - 4 < tables.ledger().bytes <= budget.limit
    assert tables.values.std().item() == pytest.approx(0.1, rel=0.1)
