"""From a log to neighbours in files, for compiled solvers: what stays in memory is an entry for each node.

The engine numbers the ids and hands out the pairs in any order. They are written to a file as they come, and counted.
Then each row of a side takes its neighbours out of it, a block of rows at a time, so that what is written at random
stays in memory. Users' rows come of the pairs, and are sorted; items' rows come of the users' rows, and ascend by
themselves. Time is O(E) for logs of up to `BLOCK` interactions, and a pass over the pairs for each block beyond.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from baco.engines.engine import Engine
from baco.engines.log import PAIRS, number_ids
from baco.files import array_in_file
from baco.graph import Biadjacency, Neighbors

BLOCK = 2**28  # neighbours that are written at random at a time, 1 GiB


def mapped_graph(engine: Engine, log: str, user: str = "user", item: str = "item") -> Biadjacency:
    """The distinct pairs of a log; their neighbours lie in files, 4 bytes for each and both sides.

    While it is built there is a file of 8 bytes for each row of the log. The numbers of nodes are those of
    `log.number_ids`, whose tables the engine keeps.

    Raises
    ------
    UserError
        When the log cannot be read, is empty, or lacks a column or an id; when the disk is full.
    """
    num_users, num_items, rows = number_ids(engine, log, user, item)
    pairs = array_in_file((rows, 2), np.int32)
    counts = np.zeros(num_users, np.int64)
    place = 0
    for users, items in engine.blocks(PAIRS):
        _copy(users, items, num_users, pairs[place : place + len(users)], counts)
        place += len(users)
    by_user = _distinct(*_scattered(_scatter_pairs, (pairs,), counts))
    del pairs  # its file goes
    counts = np.zeros(num_items, np.int64)
    _count(by_user.indices, counts)
    return Biadjacency.from_neighbors(by_user, _scattered(_scatter_rows, by_user, counts))


def _scattered(scatter, source: tuple[np.ndarray, ...], counts: np.ndarray) -> Neighbors:
    """Rows of given sizes, (n,) int64, filled by `scatter` in the order of the source."""
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = array_in_file((indptr[-1],), np.int32)
    first = 0
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(indptr, indptr[first] + BLOCK, side="right")) - 1)
        scatter(*source, first, last, indptr[first:last].copy(), indices)
        first = last
    return Neighbors(indptr, indices)


@njit(cache=True)
def _copy(users, items, num_users, pairs, counts):
    """Write pairs, with items numbered from 0, and count them by user."""
    for edge in range(len(users)):
        pairs[edge, 0] = users[edge]
        pairs[edge, 1] = items[edge] - num_users
        counts[users[edge]] += 1


@njit(cache=True)
def _count(indices, counts):
    for index in indices:
        counts[index] += 1


@njit(cache=True)
def _scatter_pairs(pairs, first, last, places, indices):
    """Write the second of each pair to the row of the first, if that is one of [first, last).

    `places` has the next place of each of these rows.
    """
    for edge in range(len(pairs)):
        row = pairs[edge, 0]
        if first <= row < last:
            indices[places[row - first]] = pairs[edge, 1]
            places[row - first] += 1


@njit(cache=True)
def _scatter_rows(indptr, neighbors, first, last, places, indices):
    """The same for pairs of a neighbour and the row that it is in."""
    for x in range(len(indptr) - 1):
        for edge in range(indptr[x], indptr[x + 1]):
            row = neighbors[edge]
            if first <= row < last:
                indices[places[row - first]] = x
                places[row - first] += 1


def _distinct(indptr: np.ndarray, indices: np.ndarray) -> Neighbors:
    """Rows in ascending order and without what is in one twice. Both arrays change."""
    _sort(indptr, indices)
    return Neighbors(indptr, indices[: _drop_repeats(indptr, indices)])


@njit(cache=True, parallel=True)
def _sort(indptr, indices):
    for x in prange(len(indptr) - 1):
        indices[indptr[x] : indptr[x + 1]].sort()


@njit(cache=True)
def _drop_repeats(indptr, indices):
    """Keep the first of equal neighbours in each sorted row; how many are left."""
    place = start = 0
    for x in range(len(indptr) - 1):
        end = indptr[x + 1]
        for edge in range(start, end):
            if edge == start or indices[edge] != indices[edge - 1]:
                indices[place] = indices[edge]
                place += 1
        start = end
        indptr[x + 1] = place
    return place
