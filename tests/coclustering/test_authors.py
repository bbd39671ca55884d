"""The two container orders that the reference profile reproduces, against the real containers."""

import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.coclustering.cocluster import Settings, cocluster
from baco.coclustering.solvers import authors
from baco.coclustering.solvers.authors import BUCKET_COUNTS, EMPTY, NONE
from baco.graph import Biadjacency

keys = st.lists(st.integers(0, 3000), min_size=1, max_size=700, unique=True)


def unordered_set_order(values: list[int]) -> list[int]:
    """Iteration order of the emulated std::unordered_set after inserting values."""
    before = np.full(BUCKET_COUNTS[6], EMPTY, np.int64)
    successor = np.empty(max(values) + 1, np.int64)
    first, growth = NONE, 0
    for size, value in enumerate(values):
        if size == BUCKET_COUNTS[growth]:
            growth += 1
            first = authors._rehash(first, BUCKET_COUNTS[growth], before, successor)
        first = authors._insert(value, first, BUCKET_COUNTS[growth], before, successor)
    order = []
    while first != NONE:
        order.append(int(first))
        first = successor[first]
    return order


def test_a_node_may_have_more_neighbours_than_a_million():
    size = 1_500_000
    star = Biadjacency.from_pairs(np.arange(size), np.zeros(size, int), size, 1)
    labels = cocluster(star, 0.0, 0, Settings(profile="reference", num_rounds=1)).labels
    assert len(labels) == size + 1 and labels.min() >= 0 and labels.max() <= size


@pytest.fixture(scope="module")
def cpp_order(tmp_path_factory):
    """A compiled program that inserts its arguments into a std::unordered_set and prints them in iteration order."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to compare with the real std::unordered_set")
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "order.cpp").write_text(
        "#include <cstdlib>\n#include <iostream>\n#include <unordered_set>\n"
        "int main(int n, char** v) { std::unordered_set<long> s; for (int i = 1; i < n; ++i) s.insert(std::atol(v[i]));"
        " for (long x : s) std::cout << x << ' '; }\n"
    )
    subprocess.run(["g++", "-O1", "-o", folder / "order", folder / "order.cpp"], check=True)

    def order(values: list[int]) -> list[int]:
        printed = subprocess.run([folder / "order", *map(str, values)], capture_output=True, text=True, check=True)
        return [int(value) for value in printed.stdout.split()]

    return order


@given(keys)
def test_iteration_order_of_the_c_plus_plus_set(cpp_order, values):
    assert unordered_set_order(values) == cpp_order(values)


@given(st.lists(keys, min_size=1, max_size=3))
def test_iteration_order_of_the_python_set(users):
    """Each user's items carry distinct labels of equal score, so the first in the set's order must win."""
    labels = np.concatenate(users).astype(np.int32)
    indptr = np.cumsum([0] + [len(values) for values in users])
    num_labels = 3002
    own = np.full(len(users), num_labels - 1, np.int32)
    second = authors._second_labels(
        indptr,
        np.arange(len(labels), dtype=np.int32),
        own,
        labels,
        np.ones(num_labels, np.bool_),
        np.zeros(len(users), np.float32),
        np.zeros(num_labels, np.float32),
        np.zeros(num_labels, np.float32),
        max(len(values) for values in users),
    )
    expected = []
    for values in users:
        python_set = set()
        for value in values:
            python_set.add(value)
        expected.append(next(iter(python_set)))
    assert second.tolist() == expected


def test_second_labels_leave_the_labels_alone(sparse_graph):
    found = cocluster(sparse_graph, 0.5, 2025, Settings(profile="reference"))
    without = cocluster(sparse_graph, 0.5, 2025, Settings(profile="reference", secondary=False))
    np.testing.assert_array_equal(found.labels, without.labels)
    users = found.labels[: sparse_graph.num_users]
    np.testing.assert_array_equal(without.second, users)
    assert np.isin(found.second, users).all()
    assert (found.second != users).any()
