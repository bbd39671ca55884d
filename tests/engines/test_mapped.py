"""Neighbours in files are those in memory, and the files go."""

import errno
import os
import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baco.coclustering.cocluster import Settings, cocluster
from baco.engines import mapped
from baco.engines.mapped import mapped_graph
from baco.engines.on_duckdb import duckdb_engine
from baco.errors import UserError
from baco.files import array_in_file
from baco.graph import Biadjacency, Neighbors
from tests.coclustering.test_solvers import SCHEMES, graphs, random_graph, resolutions, seeds


@pytest.fixture
def log(tmp_path):
    """Pairs in no order, a third of them repeated, one user in half of them."""
    graph, rng = random_graph(40, 300), np.random.default_rng(0)
    users, items = (np.append(ids, ids[: graph.num_edges // 3]) for ids in (graph.users, graph.items))
    users[::2] = 3
    order = rng.permutation(len(users))
    frame = pd.DataFrame({"user": users[order], "item": [f"item {item:02d}" for item in items[order]]})
    frame.to_parquet(tmp_path / "log.parquet")
    return str(tmp_path / "log.parquet"), frame


@pytest.mark.parametrize("block", [1, 20, mapped.BLOCK])
def test_neighbours_in_files_are_those_in_memory(log, block, monkeypatch):
    """A block of 1 is smaller than any row; with 20 some rows share one."""
    path, frame = log
    users, items = (np.unique(frame[side], return_inverse=True)[1] for side in ("user", "item"))
    expected = Biadjacency.from_pairs(users, items, users.max() + 1, items.max() + 1)
    monkeypatch.setattr(mapped, "BLOCK", block)
    monkeypatch.setattr(mapped, "PIECE", 7)
    with duckdb_engine() as engine:
        found = mapped_graph(engine, path)
    for one, other in ((found.by_user, expected.by_user), (found.by_item, expected.by_item)):
        for array, wanted in zip(one, other, strict=True):
            assert array.dtype == wanted.dtype
            np.testing.assert_array_equal(array, wanted)
    assert (found.num_users, found.num_items, found.num_edges) == (*expected.to_matrix().shape, expected.num_edges)
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(found.joint_degrees, expected.joint_degrees)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """Room for more neighbours than int32 counts, hardly any of it on the disk: an array for each side."""
    folder = tmp_path_factory.mktemp("sparse")
    return [np.memmap(folder / side, np.int32, "w+", shape=(2**31 + 2000,)) for side in ("users", "items")]


@settings(max_examples=15)
@given(graphs(), resolutions, seeds, st.sampled_from(SCHEMES), st.sampled_from([2**31 - 7, 2**31, 2**31 + 1000]))
def test_solutions_do_not_depend_on_where_neighbours_lie(sparse, graph, resolution, seed, schemes, place):
    far = []
    for near, room in zip((graph.by_user, graph.by_item), sparse, strict=True):
        room[place : place + graph.num_edges] = near.indices
        far.append(Neighbors(near.indptr + place, np.asarray(room)))
    moved = Biadjacency.from_neighbors(*far)
    method = Settings(solver="alternating", user_weight=schemes[0], item_weight=schemes[1])
    found, expected = (cocluster(one, resolution, seed, method) for one in (moved, graph))
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.second, expected.second)
    assert found.objective == expected.objective


def test_neighbours_are_written_beyond_the_places_that_int32_numbers(sparse):
    graph, place = random_graph(40, 300), 2**31 - 7
    room = np.asarray(sparse[0])
    places = graph.by_item.indptr[:-1] + place
    mapped._scatter_rows(*graph.by_user, 0, graph.num_items, places, room)
    np.testing.assert_array_equal(places, graph.by_item.indptr[1:] + place)
    np.testing.assert_array_equal(room[place : place + graph.num_edges], graph.by_item.indices)


def test_files_have_no_names_and_a_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = array_in_file(3, np.int32)
    array[1] = 7
    assert array.tolist() == [0, 7, 0] and not list(tmp_path.iterdir())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"a temporary file cannot be written \(No space .*\); set TMPDIR"):
        array_in_file(10**9, np.int32)
    assert not list(tmp_path.iterdir())
