"""First values of tables that go on from others: rows that stand for the same keep their values."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array

from baco.embedding.codebook import CodebookTables
from baco.graph import Biadjacency


def continue_rows(tables: CodebookTables, old: CodebookTables, train: Biadjacency) -> tuple[int, int]:
    """Give tables the rows of others by their names; returns how many rows have been there, and how many are new.

    A new row begins at the mean of what its ids are linked to: the layer-0 embeddings of the ids that they interact
    with, as far as these have no new rows themselves. Where nobody has any of those, at the mean of all rows that
    were there.

    Parameters
    ----------
    tables, old : CodebookTables
        With one codebook, or two, both of them, and of one width.
    train : Biadjacency
        Of the ids of `tables`.
    """
    fresh = [_take_rows(*pair) for pair in zip(_named_rows(tables), _named_rows(old), strict=True)]
    sizes = [int(np.count_nonzero(own)) for own in fresh]
    means = _linked_means(tables, train, np.flatnonzero(np.concatenate(fresh)))
    parts = np.split(means, np.cumsum(sizes[:-1]))
    with torch.no_grad():
        for rows, own, part in zip(tables.shared_rows(), fresh, parts, strict=True):
            found = torch.as_tensor(part)
            found[torch.isnan(found).any(1)] = rows[torch.as_tensor(~own)].mean(0)
            rows[torch.as_tensor(own)] = found
    return sum(map(len, fresh)) - sum(sizes), sum(sizes)


def _named_rows(tables: CodebookTables) -> list[tuple[torch.Tensor, np.ndarray]]:
    """The rows of each codebook and their names."""
    assert tables.assignment is not None
    sides = tables.assignment.users, tables.assignment.items
    return [(rows, codes.row_names) for rows, codes in zip(tables.shared_rows(), sides, strict=False)]


@torch.no_grad()
def _take_rows(new: tuple[torch.Tensor, np.ndarray], old: tuple[torch.Tensor, np.ndarray]) -> np.ndarray:
    """Copy the rows of an old codebook that a new one has; (num_rows,) bool, which the old one did not have."""
    (rows, names), (old_rows, old_names) = new, old
    _, places, old_places = np.intersect1d(names, old_names, assume_unique=True, return_indices=True)
    rows.zero_()
    rows[torch.as_tensor(places)] = old_rows[torch.as_tensor(old_places)]
    fresh = np.ones(len(names), bool)
    fresh[places] = False
    return fresh


def _linked_means(tables: CodebookTables, train: Biadjacency, fresh: np.ndarray) -> np.ndarray:
    """(len(fresh), dim) float32: the mean of what the ids of each of these rows are linked to; NaN where it is nothing.

    Rows are numbered over both codebooks, as in `pooling`.
    """
    with torch.no_grad():
        embeddings = torch.cat(tables()).numpy()
    pooling = tables.pooling()
    uses = (eye_array(train.num_nodes, format="csr") if pooling is None else pooling)[:, fresh] != 0
    uses = csr_array(uses, dtype=np.float32)
    known = (np.diff(uses.indptr) == 0).astype(np.float32)
    indptr, near = train.joint
    adjacency = csr_array((np.ones(len(near), np.float32), near, indptr), shape=(train.num_nodes, train.num_nodes))
    holders = np.flatnonzero(known == 0)
    uses, links = uses[holders], adjacency[holders]
    sums, counts = uses.T @ (links @ (known[:, None] * embeddings)), uses.T @ (links @ known)
    with np.errstate(invalid="ignore"):
        return (sums / counts[:, None]).astype(np.float32)
