"""BiMLPA against a slow version with dictionaries."""

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from baselines.bimlpa import KEPT, MOST_ROUNDS, SENT, bimlpa
from baselines.support.connected import ISOLATED
from tests.coclustering.test_solvers import graphs


def plain_bimlpa(graph, rng):
    """The community of each node as a frozen set of labels, users first, and the rounds of both phases."""
    users, items = defaultdict(list), defaultdict(list)
    for user, item in zip(graph.users.tolist(), graph.items.tolist(), strict=True):
        users[user].append(item)
        items[item].append(user)
    swapped = graph.num_users < graph.num_items
    red, blue = (items, users) if swapped else (users, items)
    num_red = max(graph.num_users, graph.num_items)

    def receive(neighbors, opposite_neighbors, opposite_sets, draws=None):
        received = {}
        for x, near in neighbors.items():
            sums = defaultdict(float)
            for y in near:
                heaviest = sorted(opposite_sets[y].items(), key=lambda pair: (-pair[1], pair[0]))[:SENT]
                for label, weight in heaviest:
                    sums[label] += weight / np.sqrt(len(opposite_neighbors[y]))
            most = max(sums.values())
            if draws is None:
                kept = {label: weight for label, weight in sums.items() if weight >= KEPT * most}
                total = sum(kept.values())
                received[x] = {label: weight / total for label, weight in kept.items()}
            else:
                ties = [label for label, weight in sums.items() if weight == most]
                received[x] = {ties[int(draws[x] * len(ties))]: 1.0}
        return received

    rng.integers(2**64, size=num_red, dtype=np.uint64)  # the keys of the sets
    red_sets, blue_sets = {x: {x: 1.0} for x in red}, {x: {} for x in blue}
    rounds = []
    for single in (False, True):
        rounds.append(0)
        for _ in range(MOST_ROUNDS):
            rounds[-1] += 1
            before = [{x: set(held) for x, held in sets.items()} for sets in (red_sets, blue_sets)]
            blue_sets = receive(blue, red, red_sets)
            red_sets = receive(red, blue, blue_sets, rng.random(num_red) if single else None)
            if before == [{x: set(held) for x, held in sets.items()} for sets in (red_sets, blue_sets)]:
                break
    user_sets, item_sets = (blue_sets, red_sets) if swapped else (red_sets, blue_sets)
    sets = [user_sets.get(x, ()) for x in range(graph.num_users)] + [
        item_sets.get(x, ()) for x in range(graph.num_items)
    ]
    return [frozenset(held) for held in sets], rounds


def check(graph, seed):
    labels, rounds = bimlpa(graph, np.random.default_rng(seed))
    expected, expected_rounds = plain_bimlpa(graph, np.random.default_rng(seed))
    assert rounds == expected_rounds
    assert len(set(zip(labels.tolist(), expected, strict=True))) == len(set(labels.tolist())) == len(set(expected))
    assert all((label == ISOLATED) == (not held) for label, held in zip(labels.tolist(), expected, strict=True))


@given(graphs(), st.integers(0, 5))
def test_equals_its_plain_twin_on_small_graphs(graph, seed):
    check(graph, seed)


def test_equals_its_plain_twin_where_labels_are_cut_off(sparse_graph, planted):
    assert max(sparse_graph.item_degrees) > SENT
    check(sparse_graph, 0)
    check(planted.train, 1)


def test_bicliques_are_two_communities(two_bicliques):
    labels, _ = bimlpa(two_bicliques, np.random.default_rng(0))
    for side in (labels[:6].reshape(2, 3), labels[6:].reshape(2, 3)):
        assert (side == side[:, :1]).all() and side[0, 0] != side[1, 0]
