"""What is placed: the rows of embedding tables, how often each is looked up, and which are looked up together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import block_array, csr_array, diags_array

from baco.embedding.codes import SIDES, Assignment, Codes
from baco.embedding.cost import RowFormat
from baco.graph import Biadjacency


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of all tables, those of the users first. An interaction looks up every row of its user and of its item.

    Attributes
    ----------
    graph : Biadjacency
        The interactions.
    users, items : (num_users, n) and (num_items, n) csr_array of int64
        1 where an id has a row; each has one at least.
    tables : dict of str to int
        The rows of each table: of `users` and `items`, or of the one table of `both`.
    row : RowFormat
        All rows have one.
    groups : (n,) int64
        The co-cluster of each row.
    """

    graph: Biadjacency
    users: csr_array
    items: csr_array
    tables: dict[str, int]
    row: RowFormat
    groups: np.ndarray

    @classmethod
    def of(cls, graph: Biadjacency, assignment: Assignment, row: RowFormat, labels: np.ndarray) -> Rows:
        """The rows that codes name; `Assignment.of_own_rows` has those of the full model.

        Parameters
        ----------
        labels : (num_nodes,) integers, users first
            Co-clusters of the ids. A row belongs to the one that most of its look-ups are for.
        """
        sizes = assignment.rows_of_codebooks
        count, shift = sum(sizes), 0 if assignment.shared else sizes[0]
        users = _incidence(assignment.users, 0, count)
        items = _incidence(assignment.items, shift, count)
        names = ("both",) if assignment.shared else SIDES
        groups = _majority(users, items, labels, graph.joint_degrees)
        return cls(graph, users, items, dict(zip(names, sizes, strict=True)), row, groups)

    @property
    def count(self) -> int:
        """n."""
        return len(self.groups)

    @cached_property
    def lookups(self) -> np.ndarray:
        """(n,) int64: how often an epoch over the interactions reads each row."""
        return self.users.T @ self.graph.user_degrees + self.items.T @ self.graph.item_degrees

    @property
    def common_bytes(self) -> int:
        """What the row format has for each table as a whole: every device needs it."""
        return len(self.tables) * self.row.table_bytes

    def joint_lookups(self) -> csr_array:
        """(n, n) symmetric int64: how many interactions look up two rows, for the user and for the item."""
        joint = self.users.T @ self.graph.to_matrix().astype(np.int64) @ self.items
        joint = joint + joint.T - 2 * diags_array(joint.diagonal(), dtype=np.int64)
        return csr_array(joint)

    def share_apart(self, device: np.ndarray) -> float:
        """The share of interactions whose rows do not all lie on one device: an all-to-all has to carry these."""
        user, item = (_home(side, device) for side in (self.users, self.items))
        of_users, of_items = user[self.graph.users], item[self.graph.items]
        return float(np.mean((of_users != of_items) | (of_users < 0)))


def _incidence(codes: Codes, shift: int, count: int) -> csr_array:
    """(num_ids, count): 1 where an id has a row, which is its code and `shift`."""
    ends = np.arange(0, codes.index.size + 1, codes.codes_per_id) if codes.ends is None else codes.ends
    ones = np.ones(codes.index.size, np.int64)
    matrix = csr_array((ones, codes.index.ravel().astype(np.int64) + shift, ends), shape=(codes.num_ids, count))
    matrix.sum_duplicates()
    matrix.data[:] = 1  # an id that repeats a code looks it up once
    return matrix


def _majority(users: csr_array, items: csr_array, labels: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """(n,) int64: of each row the label that most look-ups are for; rows of no id get labels of their own."""
    distinct, numbers = np.unique(labels, return_inverse=True)
    nodes = block_array([[users], [items]], format="csr")
    ids = np.repeat(np.arange(len(labels)), np.diff(nodes.indptr))
    ballots = np.maximum(degrees, 1)[ids]
    votes = csr_array((ballots, (nodes.indices, numbers[ids])), shape=(nodes.shape[1], len(distinct)))
    rows = np.repeat(np.arange(votes.shape[0]), np.diff(votes.indptr))
    order = np.lexsort((votes.data, rows))  # within each row the one with the most votes comes last
    groups = len(distinct) + np.arange(votes.shape[0])
    groups[rows[order]] = votes.indices[order]  # of several values for one place NumPy keeps the last
    return groups


def _home(ids: csr_array, device: np.ndarray) -> np.ndarray:
    """(num_ids,) the device that has all rows of an id, or -1 where there is none."""
    devices = device[ids.indices]
    lowest, highest = (reduce.reduceat(devices, ids.indptr[:-1]) for reduce in (np.minimum, np.maximum))
    return np.where(lowest == highest, lowest, -1)
