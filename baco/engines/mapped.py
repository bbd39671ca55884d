"""From a log to neighbours in files, for compiled solvers: what stays in memory is an entry for each node.

The engine numbers the ids and hands out the pairs in any order. They are written to a file as they come, and counted.
Then each row of a side takes its neighbours out of it, a block of rows at a time, so that what is written at random
stays in memory. Users' rows come of the pairs, and are sorted; items' rows come of the users' rows, and ascend by
themselves. Time is O(E) for logs of up to `BLOCK` interactions, and a pass over the pairs for each block beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numba import njit, prange
from tqdm import tqdm

from baco.engines.engine import Engine
from baco.engines.log import PAIRS, number_ids
from baco.files import array_in_file, temporary_file
from baco.graph import Biadjacency, Neighbors

BLOCK = 2**28  # neighbours that are written at random at a time, 1 GiB
PIECE = 2**22  # pairs that are read at once, 32 MiB


def mapped_graph(engine: Engine, log: str, user: str = "user", item: str = "item") -> Biadjacency:
    """The distinct pairs of a log; their neighbours lie in files, 4 bytes for each and both sides.

    While it is built there is a file of 8 bytes for each row of the log. The numbers of nodes are those of
    `log.number_ids`, whose tables the engine keeps.

    Raises
    ------
    UserError
        When the log cannot be read, is empty, or lacks a column or an id; when the disk is full.
    """
    with numbered_pairs(engine, log, user, item) as pairs:
        by_user = pairs.by_user()
    return with_items(by_user, pairs.num_items)


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of a log in a file, in any order and with repeats.

    Attributes
    ----------
    file : BinaryIO
        Two int32 for each row of the log, the numbers of its user and its item.
    user_counts : (num_users,) int64
        Rows of each user.
    num_items : int
    """

    file: BinaryIO
    user_counts: np.ndarray
    num_items: int

    def by_user(self) -> Neighbors:
        """The items of each user, in a file."""
        indptr, indices = _rows(self.user_counts, _scatter_pairs, self._pieces)
        _sort(indptr, indices)
        return Neighbors(indptr, indices[: _drop_repeats(indptr, indices)])

    def _pieces(self) -> Iterator[tuple[np.ndarray]]:
        self.file.seek(0)
        while len(piece := np.fromfile(self.file, np.int32, 2 * PIECE)):
            yield (piece.reshape(-1, 2),)


@contextmanager
def numbered_pairs(engine: Engine, log: str, user: str, item: str) -> Iterator[Pairs]:
    """Number the ids of a log (`log.number_ids`) and write its pairs to a file, which lasts as long as the block."""
    num_users, num_items, rows = number_ids(engine, log, user, item)
    counts = np.zeros(num_users, np.int64)
    with temporary_file() as file:
        with tqdm(desc="reading", total=rows, unit="row", delay=5, disable=None, leave=False) as progress:
            for users, items in engine.blocks(PAIRS):
                file.write(np.stack([users, items - num_users], axis=1).data)
                _count(users, counts)
                progress.update(len(users))
        yield Pairs(file, counts, num_items)


def with_items(by_user: Neighbors, num_items: int) -> Biadjacency:
    """The graph with the items of each user, and the users of each item in another file."""
    counts = np.zeros(num_items, np.int64)
    _count(by_user.indices, counts)
    return Biadjacency.from_neighbors(by_user, Neighbors(*_rows(counts, _scatter_rows, lambda: [by_user])))


def _rows(
    counts: np.ndarray, scatter: Callable[..., None], pieces: Callable[[], Iterable[tuple[np.ndarray, ...]]]
) -> tuple[np.ndarray, np.ndarray]:
    """The pointers and, in a file, the contents of rows of given sizes, (n,) int64, filled by `scatter` of each piece.

    All pieces are gone through for each block of rows.
    """
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = array_in_file(indptr[-1], np.int32)
    first = 0
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(indptr, indptr[first] + BLOCK, side="right")) - 1)
        places = indptr[first:last].copy()
        for piece in pieces():
            scatter(*piece, first, last, places, indices)
        first = last
    return indptr, indices


@njit(cache=True)
def _count(ids, counts):
    for x in ids:
        counts[x] += 1


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


@njit(cache=True, parallel=True)
def _sort(indptr, indices):
    """Put each row in ascending order."""
    for x in prange(len(indptr) - 1):
        indices[indptr[x] : indptr[x + 1]].sort()


@njit(cache=True)
def _drop_repeats(indptr, indices):
    """Keep the first of equal neighbours in each sorted row; how many are left. Both arrays change."""
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
