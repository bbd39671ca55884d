"""What every method without training promises. Parametrised over the registry, as test_methods.py."""

import numpy as np
import pytest

from baco.compressors.scoring import ScoringMethod
from baco.evaluation.evaluator import Evaluator
from baco.graph import Biadjacency
from baco.registry import METHODS, method_class
from tests.contract.test_methods import DEGENERATE

method_class("full")  # imports them all


@pytest.fixture(params=sorted(name for name, cls in METHODS.items() if issubclass(cls, ScoringMethod)))
def method(request) -> ScoringMethod:
    return METHODS[request.param]()


@pytest.mark.parametrize("name", DEGENERATE)
def test_odd_graphs_have_finite_scores(method, name):
    graph = DEGENERATE[name]
    scores = method.fit(graph).scores(np.arange(graph.num_users))
    assert scores.shape == (graph.num_users, graph.num_items)
    assert scores.dtype == np.float32 and np.isfinite(scores).all()


def test_a_user_is_scored_alike_in_any_company_and_by_any_object(method, planted):
    everybody = method.fit(planted.train).scores(np.arange(planted.num_users))
    some = np.array([7, 3, 399])
    np.testing.assert_allclose(type(method)().fit(planted.train).scores(some), everybody[some], rtol=1e-4, atol=1e-6)


def test_the_graph_is_left_alone(method, planted):
    train = planted.train
    graph = Biadjacency.from_sorted(train.users.copy(), train.items.copy(), train.num_users, train.num_items)
    for array in (graph.users, graph.items, *graph.by_user, graph.user_degrees, graph.item_degrees):
        array.flags.writeable = False
    method.fit(graph).scores(np.arange(3))
    assert graph.fingerprint == train.fingerprint


def test_the_ledger_counts_something(method, planted):
    ledger = method.fit(planted.train).ledger
    assert 0 < ledger.training_floats <= ledger.parameters and ledger.bytes >= 4 * ledger.training_floats


def test_it_beats_chance(method, planted):
    means = Evaluator(planted).evaluate_scores(method.fit(planted.train).scores, "test").means()
    floor = {"mostpop": 1.2}.get(method.name, 4)
    assert means["recall@20"] > floor * 20 / planted.num_items
