"""The biadjacency: which user interacted with which item, as flat arrays that compiled code can walk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array, issparse

from baco.errors import UserError

MOST_NODES = 2**31 - 1  # that int32 numbers; there may be more pairs, which are counted in int64


class Neighbors(NamedTuple):
    """Compressed rows of one side: the neighbours of node x are `indices[indptr[x]:indptr[x + 1]]`, ascending."""

    indptr: np.ndarray  # (n + 1,) int64
    indices: np.ndarray  # (E,) int32


@dataclass(frozen=True, eq=False)
class Biadjacency:
    """A binary users x items matrix as a set of pairs, sorted by user, then item.

    Build it with `from_pairs` or `from_matrix`, which validate; the others trust their arguments.

    Attributes
    ----------
    num_users, num_items : int
        Sizes of the two sides, nodes without any interaction included.
    by_user : Neighbors
        The items of each user. No pair occurs twice.
    """

    num_users: int
    num_items: int
    by_user: Neighbors

    @classmethod
    def from_pairs(cls, users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> Biadjacency:
        """Build from two equally long integer arrays; a pair that occurs several times counts once.

        Raises
        ------
        UserError
            When a side is empty, both together have more nodes than int32 can number, the arrays differ in length, or
            an id is no integer of [0, n).
        """
        if num_users < 1 or num_items < 1:
            raise UserError(f"a biadjacency needs a user and an item at least; got {num_users} x {num_items}")
        if num_users + num_items > MOST_NODES:
            raise UserError(f"users and items may be {MOST_NODES} together; got {num_users} + {num_items}")
        users, items = np.asarray(users), np.asarray(items)
        if users.ndim != 1 or users.shape != items.shape:
            raise UserError(f"users and items must be two arrays of one length; got {users.shape} and {items.shape}")
        for side, ids, size in (("user", users, num_users), ("item", items, num_items)):
            if not np.issubdtype(ids.dtype, np.integer):
                raise UserError(f"{side} ids must be integers, not {ids.dtype}")
            if ids.size and (ids.min() < 0 or ids.max() >= size):
                wrong = int(np.flatnonzero((ids < 0) | (ids >= size))[0])
                raise UserError(f"{side} id {ids[wrong]} of pair {wrong} lies outside 0..{size - 1}")
        keys = users.astype(np.int64)
        keys *= num_items
        keys += items.astype(np.int64, copy=False)  # with uint64 the sum would be floating-point
        keys.sort()  # many times faster than np.unique, which hashes
        fresh = np.ones(len(keys), bool)
        np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
        keys = keys[fresh]
        users, items = (keys // num_items).astype(np.int32), (keys % num_items).astype(np.int32)
        return cls.from_sorted(users, items, num_users, num_items)

    @classmethod
    def from_sorted(cls, users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> Biadjacency:
        """From distinct pairs in order, two (E,) int32 arrays."""
        return cls(num_users, num_items, Neighbors(_row_pointers(users, num_users), items))

    @classmethod
    def from_neighbors(cls, by_user: Neighbors, by_item: Neighbors) -> Biadjacency:
        """From both directions of the same pairs."""
        graph = cls(len(by_user.indptr) - 1, len(by_item.indptr) - 1, by_user)
        vars(graph)["by_item"] = by_item  # where a cached property looks first
        return graph

    @classmethod
    def from_matrix(cls, matrix) -> Biadjacency:
        """Build from a SciPy sparse matrix or a dense array of shape (num_users, num_items); nonzero means 1."""
        kind = np.asarray(matrix).dtype if not issparse(matrix) else matrix.dtype
        if kind.kind not in "biuf":
            raise UserError(f"the interaction matrix must hold numbers, not {kind}")
        if kind == np.float16:  # of which SciPy makes no sparse matrix
            matrix = matrix.astype(np.float32)
        matrix = coo_array(matrix)
        if matrix.ndim != 2:
            raise UserError(f"the interaction matrix must have two dimensions, not the shape {matrix.shape}")
        if matrix.nnz and not np.isfinite(matrix.data).all():
            raise UserError("the interaction matrix holds NaN or infinite values; remove them first")
        if matrix.dtype.kind in "iu":
            matrix = matrix.astype(np.int64)  # 256 times an int8 of 1 is 0
        matrix = csr_array(matrix)  # sums repeated entries, and leaves the caller's as they are
        matrix.eliminate_zeros()
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        return cls.from_pairs(rows, matrix.indices, *matrix.shape)

    @cached_property
    def users(self) -> np.ndarray:
        """(E,) int32: the user of each pair."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.user_degrees)

    @property
    def items(self) -> np.ndarray:
        """(E,) int32: the item of each pair."""
        return self.by_user.indices

    @property
    def num_edges(self) -> int:
        return len(self.by_user.indices)

    @property
    def num_nodes(self) -> int:
        return self.num_users + self.num_items

    @cached_property
    def by_item(self) -> Neighbors:
        """The users of each item."""
        order = np.argsort(self.items, kind="stable")
        return Neighbors(_row_pointers(self.items, self.num_items), self.users[order])

    @property
    def joint(self) -> Neighbors:
        """The adjacency of the bipartite graph: users are the nodes 0..num_users-1, items follow. It is not kept."""
        users, items = self.by_user, self.by_item
        return Neighbors(
            np.concatenate([users.indptr, users.indptr[-1] + items.indptr[1:]]),
            np.concatenate([users.indices + np.int32(self.num_users), items.indices]),
        )

    @cached_property
    def user_degrees(self) -> np.ndarray:
        """(num_users,) int64."""
        return np.diff(self.by_user.indptr)

    @cached_property
    def item_degrees(self) -> np.ndarray:
        """(num_items,) int64."""
        return np.diff(self.by_item.indptr)

    @property
    def joint_degrees(self) -> np.ndarray:
        """(num_nodes,) int64, users first."""
        return np.concatenate([self.user_degrees, self.item_degrees])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the two sizes and the pairs."""
        digest = hashlib.sha256(np.array([self.num_users, self.num_items], "<i8").tobytes())
        for ids in (self.users, self.items):
            digest.update(ids.astype("<i4", copy=False).tobytes())
        return digest.hexdigest()

    def check_interactions(self) -> None:
        """Refuse a graph without interactions (`UserError`): there is nothing to cluster in it."""
        if self.num_edges == 0:
            raise UserError("the training split has no interactions; there is nothing to cluster")

    def to_matrix(self) -> csr_array:
        """(num_users, num_items) float32 matrix of ones, for libraries that take SciPy matrices."""
        values, indices = np.ones(self.num_edges, np.float32), self.by_user.indices
        return csr_array((values, indices, narrow(self.by_user.indptr)), shape=(self.num_users, self.num_items))

    def keys(self) -> np.ndarray:
        """(E,) int64, one ascending number for each pair, for set operations between biadjacencies of one shape."""
        return self.users.astype(np.int64) * self.num_items + self.items


def narrow(indptr: np.ndarray) -> np.ndarray:
    """Row pointers as int32 where they fit: SciPy's matrices have column numbers of the type of their row pointers."""
    return indptr.astype(np.int32) if indptr[-1] <= np.iinfo(np.int32).max else indptr


def _row_pointers(ids: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(ids, minlength=size))]).astype(np.int64)


SQUARE = Biadjacency.from_pairs(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 2, 2)  # to compile solvers with
