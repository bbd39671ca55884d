"""Quantizers that round each entry: the upper halves of floats, and small integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from baco.embedding.bits import pack_bits, packed_bytes, unpack_bits
from baco.embedding.cost import RowFormat
from baco.embedding.quantizer import RowByRow, in_pieces
from baco.errors import UserError
from baco.validation import Limits

CHUNK = 4096  # rows at a time: temporaries that stay in the cache
LARGEST = 3e4  # magnitude of an entry: scales and offsets are float16
SHRINKAGES = (1.0, 0.8, 0.6, 0.4)  # of a row's range, from which the search for its best grid starts
REFINEMENTS = 8  # twice as many lower the squared error by 1 % at 4 bits


@dataclass(frozen=True)
class HalfQuantizer(RowByRow):
    """Entries in bfloat16: the upper half of a float32, its sign, exponent and 7 bits of its fraction.

    They are rounded to the nearest, to the even one of two: none is off by more than 2^-8 of itself. Parameters by the
    paper's rule: dim per row, as in float32.
    """

    name: ClassVar[str] = "bfloat16"
    of_rows: ClassVar[tuple[str, ...]] = ("upper",)

    @property
    def label(self) -> str:
        return "bf16"

    def format(self, dim: int) -> RowFormat:
        return RowFormat(dim, 2 * dim)

    def pack(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        upper = np.empty(rows.shape, np.uint16)
        for start in range(0, len(rows), CHUNK):
            whole = np.ascontiguousarray(rows[start : start + CHUNK], np.float32).view(np.uint32)
            odd = whole >> 16 & 1
            upper[start : start + CHUNK] = whole + 0x7FFF + odd >> 16  # a carry goes into the exponent, as it should
        return {"upper": upper}

    def unpack(self, arrays: dict[str, np.ndarray], dim: int) -> np.ndarray:
        upper = arrays["upper"]
        return in_pieces(lambda piece: (upper[piece].astype(np.uint32) << 16).view(np.float32), len(upper), dim)


@dataclass(frozen=True)
class UniformQuantizer(RowByRow):
    """Each row as integers q of a few bits: offset + scale q, with a scale (and an offset) in float16 per row.

    Parameters by the paper's rule: dim + 1 per row, or dim + 2 with an offset. (Row-wise quantization of embedding
    tables: Guan et al., arXiv 1911.02079.)

    Attributes
    ----------
    bits : int
        1 to 8 per entry.
    symmetric : bool
        The grid is centred at zero and no offset is stored; an odd number of levels is used, 255 of 256.
    fitted : bool
        Scale and offset have the least squared error that alternating between them and q finds from several starts,
        so that a row's largest entries may be clipped. Otherwise the grid spans the row's entries, and no entry is off
        by more than half a scale. Normal rows of 64 entries have 15 % less squared error by it at 4 bits, 50 % at 2.
    """

    bits: int = 8
    symmetric: bool = True
    fitted: bool = False
    name: ClassVar[str] = "uniform"
    of_rows: ClassVar[tuple[str, ...]] = ("levels", "scale", "offset")

    def __post_init__(self):
        Limits(at_least=2 if self.symmetric else 1, at_most=8).check("bits", self.bits)

    @property
    def label(self) -> str:
        return f"int{self.bits}"

    @property
    def top(self) -> int:
        """The largest level; they count from 0."""
        return 2**self.bits - (2 if self.symmetric else 1)

    def format(self, dim: int) -> RowFormat:
        numbers = 1 if self.symmetric else 2
        return RowFormat(dim + numbers, packed_bytes(dim, self.bits) + 2 * numbers)

    def pack(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        largest = np.maximum(rows.max(), -rows.min())
        if not largest <= LARGEST:
            raise UserError(
                f"embeddings as large as {largest:g} cannot be quantized, the most is {LARGEST:g}; train without a "
                "quantizer or at a lower learning rate"
            )
        parts = [self._pack(rows[start : start + CHUNK].astype(np.float64)) for start in range(0, len(rows), CHUNK)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def pack_levels(self, levels: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> dict[str, np.ndarray]:
        """The same of (n, dim) levels, and (n,) scales and offsets, that are there already."""
        arrays = {"levels": pack_bits(levels, self.bits), "scale": scale.astype(np.float16)}
        return arrays if self.symmetric else arrays | {"offset": offset.astype(np.float16)}

    def unpack(self, arrays: dict[str, np.ndarray], dim: int) -> np.ndarray:
        packed, scales = arrays["levels"], arrays["scale"].astype(np.float32)[:, None]

        def rows(piece: slice) -> np.ndarray:
            levels = unpack_bits(packed[piece], self.bits, dim).astype(np.float32)
            if self.symmetric:
                return (levels - self.top // 2) * scales[piece]
            return levels * scales[piece] + arrays["offset"][piece].astype(np.float32)[:, None]

        return in_pieces(rows, len(packed), dim)

    def _pack(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        scale, offset = self._spanning(rows)
        if self.fitted:
            scale, offset = self._fitting(rows, scale, offset)
        return self.pack_levels(self._levels(rows, scale, offset), scale, offset)

    def _spanning(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) scales and offsets, float16 numbers in float64, of the narrowest grids that reach all entries.

        Rounded outwards: the offset first, then the scale with which it still reaches the largest entry.
        """
        if self.symmetric:
            scale = half_above(np.abs(rows).max(1) / (self.top // 2))
            return scale, -scale * (self.top // 2)
        offset = -half_above(-rows.min(1))
        return half_above((rows.max(1) - offset) / self.top), offset

    def _fitting(self, rows: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of the grids with the least squared error, rounded to the nearest."""
        best_scale, best_offset = scale, offset
        least = self._error(rows, scale, offset)
        for share in SHRINKAGES:
            s, o = scale * share, offset + scale * self.top * (1 - share) / 2
            for _ in range(REFINEMENTS):
                s, o = self._least_squares(rows, self._levels(rows, s, o), s)
            s = s.astype(np.float16).astype(np.float64)
            o = -s * (self.top // 2) if self.symmetric else o.astype(np.float16).astype(np.float64)
            error = self._error(rows, s, o)
            better = error < least
            least = np.where(better, error, least)
            best_scale, best_offset = np.where(better, s, best_scale), np.where(better, o, best_offset)
        return best_scale, best_offset

    def _least_squares(self, rows: np.ndarray, levels: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The scales and offsets that suit given levels best; the scale stays where all levels of a row are equal."""
        centre = self.top // 2 if self.symmetric else levels.mean(1)
        mean = 0 if self.symmetric else rows.mean(1)
        centred = levels - np.reshape(centre, (-1, 1))
        squares = (centred**2).sum(1)
        scale = np.divide((centred * rows).sum(1), squares, out=scale.copy(), where=squares > 0)
        return scale, mean - scale * centre

    def _levels(self, rows: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """(n, dim) float64: the nearest levels, whole numbers from 0 to `top`."""
        divisor = np.where(scale > 0, scale, 1)[:, None]  # a row of equal entries is all offset
        return np.rint((rows - offset[:, None]) / divisor).clip(0, self.top)

    def _error(self, rows: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """(n,) squared errors."""
        return ((self._levels(rows, scale, offset) * scale[:, None] + offset[:, None] - rows) ** 2).sum(1)


def half_above(values: np.ndarray) -> np.ndarray:
    """The smallest float16 numbers that are at least the given float64 ones, in float64."""
    halves = values.astype(np.float16)
    halves = np.where(halves < values, np.nextafter(halves, np.float16(np.inf)), halves)
    return halves.astype(np.float64)
