"""Every solver against its slow twin, and the properties that the docstrings promise."""

import itertools

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from baco.coclustering.by_size import APART, JOINT
from baco.coclustering.cocluster import Settings, cocluster
from baco.coclustering.objective import internal_edges, objective, relabel, volumes
from baco.coclustering.secondary import secondary_user_clusters
from baco.coclustering.solvers import links as links_module
from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.solvers.asynchronous import asynchronous
from baco.coclustering.solvers.links import Groups, Links
from baco.coclustering.solvers.multilevel import merged, multilevel
from baco.coclustering.solvers.sized import count, multilevel_of_size, split_up, trimmed
from baco.coclustering.weights import node_weights
from baco.errors import UserError
from baco.graph import Biadjacency

from . import plain

SCHEMES = list(itertools.product(("one", "sqrt", "log", "degree"), ("one", "sqrt", "log", "degree", "published")))


@st.composite
def graphs(draw) -> Biadjacency:
    """Small graphs with at least one interaction; isolated nodes, single nodes and duplicates included."""
    num_users, num_items = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    pairs = draw(
        st.lists(st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1)), min_size=1, max_size=40)
    )
    users, items = np.array(pairs).T
    return Biadjacency.from_pairs(users, items, num_users, num_items)


resolutions = st.sampled_from([0.0, 0.05, 0.4, 1.0, 3.0, 50.0])
seeds = st.integers(0, 5)


def random_graph(size, num_edges) -> Biadjacency:
    """As many items as users, some of them more frequent than others."""
    users, items = (size * np.random.default_rng(0).random((2, num_edges)) ** 2).astype(int)
    return Biadjacency.from_pairs(users, items, size, size)


def ranks_of(graph, seed):
    return np.random.default_rng([seed, 1]).permutation(graph.num_nodes)


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_asynchronous_solver_equals_its_plain_twin(graph, resolution, seed, schemes):
    weights, ranks = node_weights(graph, *schemes), ranks_of(graph, seed)
    labels = asynchronous(graph, weights, resolution, 3, np.random.default_rng(seed), ranks)
    expected = plain.asynchronous(graph, weights, resolution, 3, np.random.default_rng(seed), ranks)
    np.testing.assert_array_equal(labels, expected)


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_alternating_solver_equals_its_plain_twin(graph, resolution, seed, schemes):
    weights, ranks = node_weights(graph, *schemes), ranks_of(graph, seed)
    labels = alternating(graph, weights, resolution, 8, ranks)
    np.testing.assert_array_equal(labels, plain.alternating(graph, weights, resolution, 8, ranks))


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_second_labels_equal_their_plain_twin(graph, resolution, seed, schemes):
    weights = node_weights(graph, *schemes)
    labels = np.random.default_rng(seed).integers(0, graph.num_nodes, graph.num_nodes).astype(np.int32)
    second = secondary_user_clusters(graph, labels, weights, resolution)
    np.testing.assert_array_equal(second, plain.secondary(graph, labels, weights, resolution))
    users = labels[: graph.num_users]
    assert np.isin(second, users).all(), "a second label is always held by a user"


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_objective_equals_the_sum_over_pairs(graph, resolution, seed, schemes):
    weights = node_weights(graph, *schemes)
    labels = np.random.default_rng(seed).integers(0, graph.num_nodes, graph.num_nodes)
    assert objective(graph, labels, weights, resolution) == pytest.approx(
        plain.objective(graph, labels, weights, resolution), rel=1e-9, abs=1e-9
    )


@given(graphs(), resolutions, seeds)
def test_a_moves_gain_is_the_difference_of_objectives(graph, resolution, seed):
    """Formula in the docstring of objective.py, on random moves."""
    weights, rng = node_weights(graph), np.random.default_rng(seed)
    labels = rng.integers(0, graph.num_nodes, graph.num_nodes)
    node, target = int(rng.integers(graph.num_nodes)), int(rng.integers(graph.num_nodes))
    around, penalty = plain.neighbours(graph), resolution / weights.normaliser
    gain = plain.score(graph, labels, weights, penalty, around, node, target) - plain.score(
        graph, labels, weights, penalty, around, node, labels[node]
    )
    moved = labels.copy()
    moved[node] = target
    difference = objective(graph, moved, weights, resolution) - objective(graph, labels, weights, resolution)
    assert gain == pytest.approx(difference, abs=1e-9)


@pytest.mark.parametrize("solver", ["asynchronous", "alternating", "multilevel"])
@pytest.mark.parametrize("schemes", [("degree", "published"), ("one", "one"), ("sqrt", "log")])
@pytest.mark.parametrize("resolution", [0.0, 0.3, 5.0])
def test_objective_never_falls(sparse_graph, solver, schemes, resolution):
    weights = node_weights(sparse_graph, *schemes)
    values = [objective(sparse_graph, np.arange(sparse_graph.num_nodes), weights, resolution)]
    for num_rounds in range(1, 9):
        settings = Settings(solver, "clean", num_rounds, *schemes)
        values.append(cocluster(sparse_graph, resolution, 0, settings).objective)
    assert (np.diff(values) >= -1e-9).all(), values
    assert values[-1] > values[0]


def test_alternating_stops_at_a_fixed_point(sparse_graph):
    weights, ranks = node_weights(sparse_graph), ranks_of(sparse_graph, 0)
    labels = alternating(sparse_graph, weights, 0.5, 1000, ranks)
    np.testing.assert_array_equal(labels, alternating(sparse_graph, weights, 0.5, 2000, ranks))
    around, penalty = plain.neighbours(sparse_graph), 0.5 / weights.normaliser
    for node in range(0, sparse_graph.num_nodes, 13):
        assert labels[node] == plain.best_label(sparse_graph, labels, weights, penalty, ranks, around, node)


@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES))
def test_multilevel_ends_where_neither_nodes_nor_co_clusters_gain(graph, resolution, seed, schemes):
    """Tried one by one: each node with each label next to it, each pair of co-clusters as one."""
    weights, ranks = node_weights(graph, *schemes), ranks_of(graph, seed)
    labels = multilevel(graph, weights, resolution, 100, ranks)
    best = objective(graph, labels, weights, resolution) + 1e-9
    around = plain.neighbours(graph)
    for node in range(graph.num_nodes):
        for label in {labels[y] for y in around[node]}:
            moved = labels.copy()
            moved[node] = label
            assert objective(graph, moved, weights, resolution) <= best
    for one, other in itertools.combinations(np.unique(labels), 2):
        assert objective(graph, np.where(labels == one, other, labels), weights, resolution) <= best


def test_multilevel_goes_beyond_single_moves_and_louvain(beauty):
    """The modularity of scikit-network's Louvain, and of single moves alone, at the resolution of the paper's size."""
    graph, resolution = beauty.train, 200.0
    weights = node_weights(graph, "degree", "degree")
    louvain = pytest.importorskip("sknetwork.clustering").Louvain
    for seed in range(2):
        ranks = ranks_of(graph, seed)
        ours = objective(graph, multilevel(graph, weights, resolution, 3, ranks), weights, resolution)
        moves = objective(graph, alternating(graph, weights, resolution, 50, ranks), weights, resolution)
        model = louvain(resolution, shuffle_nodes=True, random_state=seed, return_probs=False, return_aggregate=False)
        model.fit(csr_matrix(graph.to_matrix()), force_bipartite=True)
        labels = np.concatenate([model.labels_row_, model.labels_col_])
        assert ours > 1.05 * moves
        assert ours > 1.01 * objective(graph, labels, weights, resolution)


def test_volumes_may_multiply_beyond_64_bits():
    """Weights other than 1 and degrees come in units of 2**-20: two volumes of 3,000 make more than 2**63."""
    graph = random_graph(5000, 15_000)
    weights, ranks = node_weights(graph, "sqrt", "sqrt"), ranks_of(graph, 0)
    halves = (np.arange(graph.num_nodes) % 2).astype(np.int32)
    assert objective(graph, halves, weights, 20.0) > objective(graph, np.zeros_like(halves), weights, 20.0)
    np.testing.assert_array_equal(merged(graph, weights, 20.0, ranks, halves), halves)


@pytest.mark.parametrize("schemes", [("degree", "published"), ("one", "one"), ("sqrt", "log")])
@pytest.mark.parametrize("resolution", [0.3, 5.0, 40.0])
def test_a_node_is_passed_over_only_when_a_visit_would_change_nothing(schemes, resolution):
    """The alternating solver against rounds in which each node is visited."""
    graph, rounds = random_graph(1000, 8000), 30
    weights, ranks = node_weights(graph, *schemes), ranks_of(graph, 0)
    labels = np.arange(graph.num_nodes, dtype=np.int32)
    for _ in range(rounds):  # a call of one round knows no limits
        alternating(graph, weights, resolution, 1, ranks, labels)
    np.testing.assert_array_equal(alternating(graph, weights, resolution, rounds, ranks), labels)


@given(graphs(), seeds, st.sampled_from([1, 7, links_module.BLOCK]), st.sampled_from([0.0, 0.02, 0.1]))
def test_links_between_groups_are_sums_of_links(graph, seed, block, least):
    """Nodes into groups, and those into groups again, against a product of dense matrices."""
    dense = np.zeros((graph.num_nodes, graph.num_nodes), int)
    dense[graph.users, graph.num_users + graph.items] = 1
    dense, links, rng = dense + dense.T, None, np.random.default_rng(seed)
    for size in (6, 3):
        groups = Groups(rng.integers(size, size=len(dense), dtype=np.int32), *rng.integers(9, size=(2, size)))
        member = np.eye(size, dtype=int)[groups.of]
        dense = member.T @ dense @ member
        np.fill_diagonal(dense, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(links_module, "BLOCK", block)
            links = Links.of_nodes(graph, groups, least) if links is None else links.between(groups)
        if size == 6:
            joint = np.outer(groups.user_weight, groups.item_weight)
            dense[dense < least * (joint + joint.T)] = 0
        for group, (start, end) in enumerate(itertools.pairwise(links.indptr)):
            near = np.flatnonzero(dense[group])
            np.testing.assert_array_equal(links.neighbors[start:end], near)
            np.testing.assert_array_equal(links.counts[start:end], dense[group, near])


@given(graphs(), seeds)
def test_numbered_is_unique_with_its_inverse(graph, seed):
    labels = np.random.default_rng(seed).integers(graph.num_nodes, size=graph.num_edges)
    for mine, numpys in zip(relabel(labels, graph.num_nodes), np.unique(labels, return_inverse=True), strict=True):
        np.testing.assert_array_equal(mine, numpys)


@pytest.mark.parametrize("solver", ["asynchronous", "alternating", "multilevel"])
def test_threads_do_not_change_a_label(sparse_graph, solver):
    available = numba.get_num_threads()
    try:
        results = []
        for threads in {1, available}:
            numba.set_num_threads(threads)
            results.append(cocluster(sparse_graph, 0.5, 3, Settings(solver=solver)))
    finally:
        numba.set_num_threads(available)
    np.testing.assert_array_equal(results[0].labels, results[-1].labels)
    np.testing.assert_array_equal(results[0].second, results[-1].second)


@pytest.mark.parametrize("resolution", [0.1, 1.0])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("solver", ["asynchronous", "alternating"])
def test_bicliques_are_recovered_in_two_rounds(two_bicliques, solver, seed, resolution):
    found = cocluster(two_bicliques, resolution, seed, Settings(solver=solver, num_rounds=2))
    users, items = found.labels[:6].reshape(2, 3), found.labels[6:].reshape(2, 3)
    assert (users == users[:, :1]).all() and (items == items[:, :1]).all()
    np.testing.assert_array_equal(users[:, 0], items[:, 0])
    assert users[0, 0] != users[1, 0]
    np.testing.assert_array_equal(found.second, found.labels[:6])


def test_a_bridge_gives_its_user_the_only_second_code(two_bicliques):
    users, items = np.append(two_bicliques.users, 0), np.append(two_bicliques.items, 3)
    bridged = Biadjacency.from_pairs(users, items, 6, 6)
    found = cocluster(bridged, 1.0, 0, Settings(num_rounds=10))
    assert np.flatnonzero(found.second != found.labels[:6]).tolist() == [0]


def test_gamma_zero_is_plain_label_propagation(sparse_graph):
    weights = node_weights(sparse_graph)
    other = node_weights(sparse_graph, "one", "one")
    ranks = ranks_of(sparse_graph, 0)
    runs = [asynchronous(sparse_graph, w, 0.0, 4, np.random.default_rng(0), ranks) for w in (weights, other)]
    np.testing.assert_array_equal(*runs)
    labels, around = runs[0], plain.neighbours(sparse_graph)
    node = max(around, key=lambda x: len(around[x]))
    counts = np.bincount(labels[around[node]])
    assert internal_edges(sparse_graph, labels) > internal_edges(sparse_graph, np.arange(sparse_graph.num_nodes))
    assert counts.max() >= 1


def test_published_weights_are_barbers_modularity_at_another_resolution(sparse_graph):
    """baco_method.md, equation 2: gamma under published weights is gamma sqrt(E / n_V) under degree weights."""
    published, barber = node_weights(sparse_graph), node_weights(sparse_graph, "degree", "degree")
    gamma = 0.7
    other = gamma / published.normaliser * barber.normaliser
    assert other == pytest.approx(gamma * np.sqrt(sparse_graph.num_edges / sparse_graph.num_items))
    ranks = ranks_of(sparse_graph, 2)
    np.testing.assert_array_equal(
        alternating(sparse_graph, published, gamma, 5, ranks), alternating(sparse_graph, barber, other, 5, ranks)
    )


def test_barber_objective_is_barbers_modularity(sparse_graph):
    """F / E with degree weights and gamma 1, against the definition with the full matrix."""
    matrix = sparse_graph.to_matrix().toarray()
    labels = cocluster(sparse_graph, 1.0, 0, Settings(user_weight="degree", item_weight="degree")).labels
    users, items = labels[: sparse_graph.num_users], labels[sparse_graph.num_users :]
    expected = np.outer(matrix.sum(1), matrix.sum(0)) / matrix.sum()
    modularity = ((matrix - expected) * (users[:, None] == items[None, :])).sum() / matrix.sum()
    weights = node_weights(sparse_graph, "degree", "degree")
    assert objective(sparse_graph, labels, weights, 1.0) / sparse_graph.num_edges == pytest.approx(modularity, abs=1e-6)


def test_weights_are_normalised_per_side(sparse_graph):
    for user_scheme, item_scheme in SCHEMES:
        weights = node_weights(sparse_graph, user_scheme, item_scheme)
        raw = {"one": np.ones_like, "degree": lambda d: d, "sqrt": np.sqrt, "log": np.log1p, "published": lambda d: d}
        users = raw[user_scheme](sparse_graph.user_degrees)
        items = raw[item_scheme](sparse_graph.item_degrees)
        divisor = np.sqrt(users.sum() * (sparse_graph.num_items if item_scheme == "published" else items.sum()))
        product = np.outer(weights.users[:50], weights.items[:50]) / weights.normaliser
        np.testing.assert_allclose(product, np.outer(users[:50], items[:50]) / divisor, rtol=1e-5, atol=1e-12)


def test_volumes_are_sums_of_weights():
    labels, weights = np.array([2, 0, 2, 1]), np.array([5, 7, 11, 13])
    np.testing.assert_array_equal(volumes(labels, weights, 4), [7, 13, 16, 0])


def test_isolated_nodes_keep_their_own_label_and_have_no_second():
    graph = Biadjacency.from_pairs(np.array([0, 1]), np.array([0, 0]), 3, 2)
    for solver in ("asynchronous", "alternating"):
        found = cocluster(graph, 0.1, 0, Settings(solver=solver))
        assert found.labels[2] == 2 and found.labels[4] == 4 and found.second[2] == 2


def test_bad_settings_are_refused(two_bicliques):
    for keywords, message in [
        (
            {"solver": "asyncronous"},
            "^solver=asyncronous must be asynchronous, alternating or multilevel; did you mean 'asynchronous'",
        ),
        ({"profile": "authors"}, "^profile=authors must be clean or reference"),
        ({"num_rounds": 0}, "^num_rounds=0 must be 1 or more"),
        ({"profile": "reference", "solver": "alternating"}, "^profile=reference is the authors' program"),
    ]:
        with pytest.raises(UserError, match=message):
            Settings(**keywords)
    for resolution in (-1.0, np.nan, np.inf):
        with pytest.raises(UserError, match=r"^resolution=.* must be 0 or more"):
            cocluster(two_bicliques, resolution, 0)
    empty = Biadjacency.from_pairs(np.empty(0, int), np.empty(0, int), 2, 2)
    with pytest.raises(UserError, match="no interactions"):
        cocluster(empty, 1.0, 0)
    for schemes, message in [
        (("degrees", "one"), "did you mean 'degree'"),
        (("published", "one"), "user_weight 'published'"),
    ]:
        with pytest.raises(UserError, match=message):
            node_weights(two_bicliques, *schemes)


some_rows = st.sampled_from([JOINT, APART, (("users",),), (("items",),)])


def counted_nodes(graph, rows) -> list[np.ndarray]:
    """The nodes with interactions of each set of sides."""
    sides = np.repeat(["users", "items"], [graph.num_users, graph.num_items])
    return [np.flatnonzero(np.isin(sides, list(entry)) & (graph.joint_degrees > 0)) for entry in rows]


@given(graphs(), st.integers(1, 20), seeds, some_rows)
def test_a_number_of_co_clusters_is_met_where_links_allow(graph, size, seed, rows):
    weights, ranks = node_weights(graph, "sqrt", "sqrt"), ranks_of(graph, seed)
    counted = counted_nodes(graph, rows)
    labels, resolution = multilevel_of_size(graph, weights, size, 3, ranks, counted)
    assert resolution > 0 and labels.dtype == np.int32
    ends = np.stack([labels[graph.users], labels[graph.num_users :][graph.items]])
    held = np.any([np.isin(ends, labels[nodes]).all(axis=0) for nodes in counted], axis=0)
    between = (ends[0] != ends[1]) & held
    assert count(labels, counted) <= size or not between.any(), "what could still have joined was linked"
    assert count(labels, counted) > min(size, sum(map(len, counted))) - len(rows), "one more part may have two rows"


@given(graphs(), st.integers(1, 20), seeds, some_rows)
def test_trimming_joins_and_splitting_parts_no_more_than_asked_for(graph, size, seed, rows):
    rng = np.random.default_rng(seed)
    coarse, finer = (rng.integers(0, graph.num_nodes, graph.num_nodes).astype(np.int32) for _ in range(2))
    counted = counted_nodes(graph, rows)
    before, clusters = count(coarse, counted), len(np.unique(coarse))
    joined = trimmed(graph, node_weights(graph), 1.0, size, coarse, counted)
    assert count(joined, counted) > min(size, before) - len(rows)
    assert np.unique(np.stack([coarse, joined]), axis=1).shape[1] == clusters, "co-clusters join as a whole"
    parted = split_up(graph, size, coarse, finer, counted)
    most = max(before, min(size, sum(map(len, counted))))
    assert most - len(rows) < count(parted, counted) <= most
    assert np.unique(np.stack([coarse, parted]), axis=1).shape[1] == len(np.unique(parted)), "each is of one co-cluster"


@pytest.mark.parametrize("rows", [JOINT, APART, (("users",),)])
def test_a_number_of_co_clusters_is_met_with_any_number_of_threads(sparse_graph, rows):
    counted = counted_nodes(sparse_graph, rows)
    weights, ranks = node_weights(sparse_graph, "sqrt", "sqrt"), ranks_of(sparse_graph, 0)
    found, before = [], numba.get_num_threads()
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            found.append(multilevel_of_size(sparse_graph, weights, 60, 3, ranks, counted)[0])
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(*found)
    assert count(found[0], counted) == 60
