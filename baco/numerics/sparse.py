"""Sparse times dense: the one expensive product of training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from numba import njit, prange
from scipy.sparse import csr_array
from torch import Tensor

CHUNKS = 128  # of about equal work, shared out to the threads
PARTS = 16  # runs of chunks, where each needs memory of its own
ROW_WORK = 2  # what a row costs beside its entries, in entries


@dataclass(frozen=True, eq=False)
class Csr:
    """A sparse float32 matrix by rows, as compiled code walks it.

    Attributes
    ----------
    shape : (rows, columns)
    indptr : (rows + 1,) int64
    indices : (E,) int32
    values : (E,) float32
    chunks : (CHUNKS + 1,) int64
        Boundaries between runs of rows that cost about the same.
    """

    shape: tuple[int, int]
    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    chunks: np.ndarray
    _tensors: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_scipy(cls, matrix) -> Csr:
        """Any SciPy sparse matrix, whose memory it may share; entries that stand several times are added up."""
        matrix = csr_array(matrix)
        matrix.sum_duplicates()
        indptr = matrix.indptr.astype(np.int64, copy=False)
        indices, values = matrix.indices.astype(np.int32, copy=False), matrix.data.astype(np.float32, copy=False)
        return cls(matrix.shape, indptr, indices, values, even_chunks(np.diff(indptr)))

    def on(self, device: torch.device) -> Tensor:
        """The same matrix as a torch tensor on a device, built there once."""
        if device not in self._tensors:
            narrow = self.indptr.astype(np.int32) if len(self.indices) < 2**31 else self.indptr
            parts = (narrow, self.indices.astype(narrow.dtype), self.values)
            indptr, indices, values = (torch.as_tensor(part, device=device) for part in parts)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
                self._tensors[device] = torch.sparse_csr_tensor(
                    indptr, indices, values, self.shape, check_invariants=True
                )
        return self._tensors[device]


def beside(left: Csr, right: Csr) -> Csr:
    """[left | right], of two matrices with as many rows."""
    indptr = left.indptr + right.indptr
    indices, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    parts = [(one.indptr, one.indices, one.values) for one in (left, right)]
    _beside(*parts[0], *parts[1], left.shape[1], indptr, indices, values)
    shape = left.shape[0], left.shape[1] + right.shape[1]
    return Csr(shape, indptr, indices, values, even_chunks(np.diff(indptr)))


@njit(parallel=True, cache=True)
def _beside(
    left_indptr, left_indices, left_values, right_indptr, right_indices, right_values, shift, indptr, indices, values
):
    for row in prange(len(indptr) - 1):
        place = indptr[row]
        for edge in range(left_indptr[row], left_indptr[row + 1]):
            indices[place], values[place] = left_indices[edge], left_values[edge]
            place += 1
        for edge in range(right_indptr[row], right_indptr[row + 1]):
            indices[place], values[place] = right_indices[edge] + shift, right_values[edge]
            place += 1


def product_entries(left: csr_array, right: csr_array) -> int:
    """How many entries left @ right has if none of its sums is zero, without the memory that they would take."""
    chunks = even_chunks(np.diff(left.indptr))
    return int(_product_entries(left.indptr, left.indices, right.indptr, right.indices, right.shape[1], chunks))


@njit(parallel=True, cache=True)
def _product_entries(left_indptr, left_indices, right_indptr, right_indices, num_columns, chunks):
    total = 0
    for part in prange(PARTS):
        latest = np.full(num_columns, -1, np.int64)  # the row that had an entry in each column last
        for row in range(chunks[part * CHUNKS // PARTS], chunks[(part + 1) * CHUNKS // PARTS]):
            for edge in range(left_indptr[row], left_indptr[row + 1]):
                middle = left_indices[edge]
                for place in range(right_indptr[middle], right_indptr[middle + 1]):
                    column = right_indices[place]
                    total += latest[column] != row
                    latest[column] = row
    return total


def even_chunks(lengths: np.ndarray) -> np.ndarray:
    """(CHUNKS + 1,) int64: boundaries that cut rows of these lengths into runs of about equal work."""
    work = np.concatenate([[0], np.cumsum(lengths + ROW_WORK)])
    return np.searchsorted(work, np.linspace(0, work[-1], CHUNKS + 1)).astype(np.int64)


def multiply(
    matrix: Csr,
    x: np.ndarray,
    out: np.ndarray,
    factor: float = 1.0,
    rows: np.ndarray | None = None,
    slots: np.ndarray | None = None,
    shift: int = 0,
) -> None:
    """out = factor * matrix @ x, on all cores, with the same bits on any number of threads.

    Parameters
    ----------
    x, out : (_, dim) float32, contiguous
    rows : (r,) int32, optional
        The rows to compute; `out` then has r rows.
    slots : (s,) int32, optional
        Where x has the rows of the first s columns; -1 for a row of zeros, which x need not hold.
    shift : int
        With slots: how many rows nearer to the top x has the rows of all further columns.
    """
    lanes = (0,) * x.shape[1]
    chunks = matrix.chunks if rows is None else even_chunks(matrix.indptr[rows + 1] - matrix.indptr[rows])
    csr = matrix.indptr, matrix.indices, matrix.values
    _multiply(*csr, x, slots, shift, rows, np.float32(factor), chunks, out, lanes)


@njit(parallel=True, cache=True)
def _multiply(indptr, indices, values, x, slots, shift, rows, factor, chunks, out, lanes):
    """The width comes as the length of a tuple, which is a constant to the compiler: sums stay in vector registers.

    Each row is summed in one fixed order by one thread, so the number of threads does not change a bit.
    """
    dim = len(lanes)
    for chunk in prange(len(chunks) - 1):
        for place in range(chunks[chunk], chunks[chunk + 1]):
            row = np.int64(place) if rows is None else np.int64(rows[place])
            total = np.zeros(dim, np.float32)
            for edge in range(indptr[row], indptr[row + 1]):
                source = indices[edge]
                if slots is not None:
                    source = slots[source] if source < len(slots) else np.int32(source - shift)
                    if source < 0:
                        continue
                weight = values[edge]
                for k in range(dim):
                    total[k] += weight * x[source, k]
            for k in range(dim):
                out[place, k] = factor * total[k]
