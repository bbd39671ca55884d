"""What a quantizer of rows is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np

from baco.embedding.cost import RowFormat

PIECE = 2**14  # rows at a time, where temporaries would take more memory than all rows


class Quantizer(Protocol):
    """A format of rows, and the way into it and out of it. A frozen dataclass of its settings."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def label(self) -> str:
        """What tables and figures print."""

    def format(self, dim: int) -> RowFormat:
        """What rows of width `dim` cost; a UserError where the settings do not suit it."""

    def pack(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The arrays that stand for (n, dim) float32 rows; their bytes are `format(dim).bytes(n)`.

        `weights`, (n,) positive, tell how much the error of a row matters where rows are not packed one by one.
        """

    def unpack(self, arrays: dict[str, np.ndarray], dim: int) -> np.ndarray:
        """(n, dim) float32: the rows that packed arrays stand for."""

    def reader(self, arrays: dict[str, np.ndarray], dim: int) -> Callable[[np.ndarray], np.ndarray]:
        """From the numbers of some rows, (k,) int64, to these as `unpack` has them, without unpacking the others."""


class RowByRow:
    """Quantizers that have an entry for each row in some of their arrays, and the others for all rows in common.

    Attributes
    ----------
    of_rows : tuple of str
        The names of the first.
    """

    of_rows: ClassVar[tuple[str, ...]]

    def unpack(self, arrays: dict[str, np.ndarray], dim: int) -> np.ndarray:
        raise NotImplementedError

    def reader(self, arrays: dict[str, np.ndarray], dim: int) -> Callable[[np.ndarray], np.ndarray]:
        own = {part: array for part, array in arrays.items() if part in self.of_rows}
        return lambda numbers: self.unpack(arrays | {part: array[numbers] for part, array in own.items()}, dim)


def in_pieces(make: Callable[[slice], np.ndarray], num_rows: int, dim: int) -> np.ndarray:
    """(num_rows, dim) float32: what a function makes of each of some slices of rows, one after the other."""
    if num_rows <= PIECE:
        return make(slice(num_rows))
    rows = np.empty((num_rows, dim), np.float32)
    for start in range(0, num_rows, PIECE):
        piece = slice(start, start + PIECE)
        rows[piece] = make(piece)
    return rows
