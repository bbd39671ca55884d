"""k-means against Lloyd's algorithm without short cuts."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.numerics.kmeans import fill_empty, kmeans, kmeans_seeds


def points_of(seed, n=300, d=4, places=None):
    """Normal points; with `places`, on a lattice, so that equal points and equal distances abound."""
    points = np.random.default_rng(seed).standard_normal((n, d))
    return points if places is None else np.round(points * places) / places


def plain_kmeans(points, seeds):
    centers, labels = points[seeds].copy(), None
    while True:
        distances = sum((points[:, j, None] - centers[None, :, j]) ** 2 for j in range(points.shape[1]))
        previous, labels = labels, distances.argmin(1)
        if previous is not None and (previous == labels).all():
            return labels, distances.min(1)
        for c in np.unique(labels):
            total = np.zeros(points.shape[1])
            for point in points[labels == c]:
                total += point
            centers[c] = total / (labels == c).sum()


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 4), st.sampled_from([None, 1, 4]))
def test_equals_plain_lloyd(seed, k, d, places):
    points = points_of(seed, d=d, places=places)
    seeds = kmeans_seeds(points, k, np.random.default_rng(seed))
    labels, distances = kmeans(points, seeds)
    expected, expected_distances = plain_kmeans(points, seeds)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(distances, expected_distances)


def test_threads_do_not_change_a_label():
    points = points_of(0, n=2000)
    available = numba.get_num_threads()
    try:
        results = []
        for threads in (1, available):
            numba.set_num_threads(threads)
            results.append(kmeans(points, kmeans_seeds(points, 200, np.random.default_rng(0)))[0])
    finally:
        numba.set_num_threads(available)
    np.testing.assert_array_equal(*results)


@given(st.integers(0, 20), st.integers(1, 300))
def test_seeds_are_distinct_values_and_as_many_as_there_are(seed, k):
    points = points_of(seed, d=2, places=1)
    seeds = kmeans_seeds(points, k, np.random.default_rng(seed))
    distinct = len(np.unique(points, axis=0))
    assert len(seeds) == min(k, distinct)
    assert len(np.unique(points[seeds], axis=0)) == len(seeds)


def test_seeds_are_drawn_by_squared_distance():
    """The second of two seeds is point 1, 2 or 3, at distances 1, 2 and 3 from point 0, with odds of 1 : 4 : 9."""
    points = np.array([[0.0], [1.0], [2.0], [3.0]])
    counts = np.zeros(4)
    for seed in range(4000):
        first, second = kmeans_seeds(points, 2, np.random.default_rng(seed))
        counts[second] += first == 0
    np.testing.assert_allclose(counts / counts.sum(), np.array([0, 1, 4, 9]) / 14, atol=0.05)


@given(st.integers(0, 50), st.integers(1, 40))
def test_empty_clusters_get_the_farthest_points(seed, k):
    rng = np.random.default_rng(seed)
    labels, distances = rng.integers(k, size=60).astype(np.int32) // 3 * 2, rng.random(60)
    k = max(k, labels.max() + 1)
    before = labels.copy()
    fill_empty(labels, distances, k)
    assert len(np.unique(labels)) == k
    assert (labels != before).sum() == k - len(np.unique(before)), "nobody else moves"
    moved = distances[labels != before]
    multiple = np.bincount(labels, minlength=k)[labels] > 1
    assert not moved.size or not multiple.any() or distances[multiple & (labels == before)].max() <= moved.min()


def test_one_point_and_no_dimension_are_no_trouble():
    for points in (np.zeros((1, 2)), np.zeros((5, 0))):
        labels, distances = kmeans(points, kmeans_seeds(points, 1, np.random.default_rng(0)))
        assert (labels == 0).all() and distances == pytest.approx(0)
