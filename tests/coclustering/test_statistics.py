import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.coclustering.baco import Baco
from baco.coclustering.cocluster import Settings, cocluster
from baco.coclustering.statistics import cluster_statistics, gini
from baco.compressors.budget import Budget
from baco.graph import Biadjacency
from baco.runs.assignment_cache import cached_assignment


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_gini_is_half_the_relative_mean_difference(sizes):
    sizes = np.array(sizes)
    expected = np.abs(sizes[:, None] - sizes).mean() / (2 * sizes.mean())
    assert gini(sizes) == pytest.approx(expected, abs=1e-12)


def test_statistics_of_a_small_graph_counted_by_hand():
    graph = Biadjacency.from_pairs(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 2, 2]), 3, 4)
    labels = np.array([5, 5, 9, 5, 9, 9, 2])  # users 0, 1, item 0 | user 2, items 1, 2 | item 3
    assert cluster_statistics(graph, labels) == {
        "count": 3,
        "largest": 3,
        "singletons": 1,
        "gini": pytest.approx(2 / 3 * ((1 / 3 - 1 / 7) + (2 / 3 - 4 / 7) + 0)),
        "internal_share": pytest.approx(3 / 5),
        "accl": pytest.approx(2 / 3),
    }


def test_one_cluster_has_no_links_between_clusters(two_bicliques):
    statistics = cluster_statistics(two_bicliques, np.zeros(12, np.int32))
    assert statistics["accl"] == 0 and statistics["internal_share"] == 1 and statistics["gini"] == 0


def test_the_authors_clusters_of_beauty(beauty):
    clusters = cocluster(beauty.train, 0.1308, 2025, Settings(profile="reference"))
    statistics = cluster_statistics(beauty.train, clusters.labels)
    assert statistics["internal_share"] * beauty.train.num_edges == pytest.approx(94_877)
    assert statistics["gini"] == pytest.approx(0.738, abs=5e-4)
    assert statistics["count"] == 4469


def test_an_assignment_keeps_its_clusters_and_their_statistics(planted, tmp_path):
    budget = Budget.parse(0.4, "parameters", planted.num_users, planted.num_items, 16)
    made, _ = cached_assignment(Baco(), planted.train, budget, 0, tmp_path)
    read, _ = cached_assignment(Baco(), planted.train, budget, 0, tmp_path)
    assert read.details == made.details
    np.testing.assert_array_equal(read.labels, made.labels)
    clusters = cocluster(planted.train, made.details["resolution"], made.details["solver_seed"])
    assert made.details["clusters"] == cluster_statistics(planted.train, clusters.labels)
