"""Label propagation and EBMD against plain Python, which counts everything anew for each node."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from baco.compressors.budget import Budget
from baco.embedding.cost import code_ledger
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.rng import stream
from baselines.density import Ebmd, excess_density
from baselines.labels import LabelPropagation, propagate
from tests.coclustering.plain import neighbours


def random_graph(seed: int, num_users: int = 14, num_items: int = 11, density: float = 0.2) -> Biadjacency:
    rng = np.random.default_rng(seed)
    matrix = rng.random((num_users, num_items)) < density
    matrix[0, 0] = True
    return Biadjacency.from_matrix(matrix)


def rows(graph, labels) -> int:
    return len(set(labels[: graph.num_users])) + len(set(labels[graph.num_users :]))


def budget_of(data, value, unit="parameters") -> Budget:
    return Budget.parse(value, unit, data.num_users, data.num_items, 64)


def most_frequent(labels, near) -> list:
    """In the order in which they first occur."""
    counts = Counter(labels[y] for y in near)
    return [label for label, count in counts.items() if count == max(counts.values())]


def plain_propagation(graph, seed, most_rows) -> list:
    around, labels = neighbours(graph), list(range(graph.num_nodes))
    rng = np.random.default_rng(seed)
    for _ in range(100):
        order, draws = rng.permutation(graph.num_nodes), rng.random(graph.num_nodes)
        for x in order:
            if rows(graph, labels) <= most_rows:
                return labels
            if around[x]:
                ties = most_frequent(labels, around[x])
                labels[x] = ties[int(draws[x] * len(ties))]
        if all(labels[x] in most_frequent(labels, near) for x, near in around.items() if near):
            break
    return labels


@pytest.mark.parametrize("most_rows", [0, 6, 13, 20, 25])
@pytest.mark.parametrize("seed", range(6))
def test_propagation_is_the_plain_one(seed, most_rows):
    graph = random_graph(seed)
    labels, _ = propagate(graph, seed, most_rows)
    assert labels.tolist() == plain_propagation(graph, seed, most_rows)


def objective(graph, labels) -> Fraction:
    """By its definition, in exact arithmetic."""
    users, items = labels[: graph.num_users], labels[graph.num_users :]
    density = Fraction(graph.num_edges, graph.num_users * graph.num_items)
    degrees = [Counter(graph.users.tolist()), Counter(graph.items.tolist())]
    total = Fraction(0)
    for label in set(users) & set(items):
        own_users = [x for x, own in enumerate(users) if own == label]
        own_items = [x for x, own in enumerate(items) if own == label]
        inside = sum(
            users[user] == items[item] == label
            for user, item in zip(graph.users.tolist(), graph.items.tolist(), strict=True)
        )
        excess = Fraction(inside, len(own_users) * len(own_items)) - density
        volumes = sum(degrees[0][x] for x in own_users) * sum(degrees[1][x] for x in own_items)
        total += inside * excess - Fraction(volumes, graph.num_edges) * excess**2
    return total


def changed(labels, old, new) -> list:
    return [new if label == old else label for label in labels]


def plain_moves(graph, seed, most_rows) -> list:
    around, labels = neighbours(graph), list(range(graph.num_nodes))
    rng = np.random.default_rng(seed)
    for _ in range(100):
        before = list(labels)
        for x in rng.permutation(graph.num_nodes):
            if rows(graph, labels) <= most_rows:
                return labels
            options = {label: [*labels[:x], label, *labels[x + 1 :]] for label in {labels[y] for y in around[x]}}
            best = min(options, key=lambda label: (-objective(graph, options[label]), label), default=None)
            if best is not None and objective(graph, options[best]) > objective(graph, labels):
                labels = options[best]
        if labels == before:
            break
    return labels


def plain_merge(graph, labels, most_rows) -> list:
    labels = np.unique(labels, return_inverse=True)[1].tolist()
    while rows(graph, labels) > most_rows:
        linked = {
            tuple(sorted((labels[user], labels[graph.num_users + item])))
            for user, item in zip(graph.users.tolist(), graph.items.tolist(), strict=True)
        }
        pairs = [pair for pair in linked if pair[0] != pair[1]]
        if not pairs:
            break
        now = objective(graph, labels)
        gains = {pair: objective(graph, changed(labels, pair[1], pair[0])) - now for pair in pairs}
        pairs.sort(key=lambda pair: (-gains[pair], pair))
        best = {}
        for pair in pairs:
            for label in pair:
                best.setdefault(label, pair)
        for pair in (pair for pair in pairs if best[pair[0]] == best[pair[1]] == pair):
            if rows(graph, labels) > most_rows:
                labels = changed(labels, pair[1], pair[0])
        labels = np.unique(labels, return_inverse=True)[1].tolist()
    return labels


@pytest.mark.parametrize("most_rows", [0, 5, 9, 14, 20])
@pytest.mark.parametrize("seed", range(4))
def test_excess_density_is_the_plain_one(seed, most_rows):
    graph = random_graph(seed, 10, 8, 0.25)
    labels, _, _ = excess_density(graph, seed, most_rows)
    expected = plain_merge(graph, plain_moves(graph, seed, most_rows), most_rows)
    assert labels.tolist() == np.unique(expected, return_inverse=True)[1].tolist()


@pytest.mark.parametrize("method", [LabelPropagation, Ebmd])
@pytest.mark.parametrize("value", [0.2, 0.5, 0.9, 1.0])
def test_budgets_are_met_to_the_row(method, value, planted):
    budget = budget_of(planted, value)
    assignment = method().assign(planted.train, budget, stream(0, "assign"))
    assert budget.rows() - 1 <= assignment.users.num_rows + assignment.items.num_rows <= budget.rows()
    assert assignment.details["tries"] == 1


@pytest.mark.parametrize(
    ("method", "unit", "secondary"),
    [
        (LabelPropagation, "parameters", False),
        (LabelPropagation, "parameters", True),
        (LabelPropagation, "bytes", True),
        (Ebmd, "parameters", False),
        (Ebmd, "parameters", True),
    ],
)
def test_beauty_fills_the_papers_budget(method, unit, secondary, beauty):
    budget = budget_of(beauty, 8267, unit)
    assignment = method(method.Config(secondary=secondary)).assign(beauty.train, budget, stream(0, "assign"))
    assert 0.98 <= budget.share(code_ledger(assignment, 64)) <= 1
    assert assignment.users.codes_per_id == 1 + secondary


def test_unmatched_propagation_ends_where_no_label_is_more_frequent(planted):
    method = LabelPropagation(LabelPropagation.Config(matched=False))
    small, large = (
        method.assign(planted.train, budget_of(planted, value), stream(0, "assign")) for value in (0.1, 0.9)
    )
    np.testing.assert_array_equal(small.labels, large.labels)
    around = neighbours(planted.train)
    assert all(small.labels[x] in most_frequent(small.labels, near) for x, near in around.items() if near)


@pytest.mark.parametrize("method", [LabelPropagation, Ebmd])
def test_a_budget_below_the_end_is_refused_at_once(method, two_bicliques, monkeypatch):
    runs = []
    module = __import__(method.__module__, fromlist=["_"])
    name = "propagate" if method is LabelPropagation else "excess_density"
    solve = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: runs.append(arguments) or solve(*arguments))
    with pytest.raises(UserError, match="budget of 24 parameters is below the least that this method reaches"):
        method().assign(two_bicliques, Budget(24, "parameters", 8), stream(0, "assign"))
    assert len(runs) == 1
