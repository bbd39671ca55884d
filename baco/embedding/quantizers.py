"""Quantization of trained rows: what a codebook becomes when it is stored in fewer bits than float32.

A quantizer packs the (n, dim) rows of one codebook into arrays and unpacks them again, row by row, with every row on
whole bytes of its own, so that a server can read a single one. `UniformQuantizer` stores small integers and one or two
numbers per row that scale them; `ProductQuantizer` stores, for parts of a row, which of a few learned vectors is
nearest. Neither looks at data other than the rows. `conf/quantize` has their settings.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol

import numpy as np

from baco.embedding.bits import code_dtype, pack_bits, packed_bytes, unpack_bits
from baco.embedding.cost import FLOAT_BYTES, RowFormat
from baco.errors import SettingError, UserError
from baco.files import from_json_array, json_array
from baco.numerics.kmeans import kmeans, kmeans_seeds
from baco.validation import Limits, Validated, setting

CHUNK = 4096  # rows at a time: temporaries that stay in the cache
LARGEST = 3e4  # magnitude of an entry: scales and offsets are float16
SHRINKAGES = (1.0, 0.8, 0.6, 0.4)  # of a row's range, from which the search for its best grid starts
REFINEMENTS = 8  # twice as many lower the squared error by 1 % at 4 bits
KMEANS_ITERATIONS = 25
MOST_CODE_BITS = 12  # 4096 centroids


class Quantizer(Protocol):
    """A format of rows, and the way into it and out of it. A frozen dataclass of its settings."""

    name: ClassVar[str]

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


@dataclass(frozen=True)
class UniformQuantizer:
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
        largest = np.abs(rows).max()
        if not largest <= LARGEST:
            raise UserError(
                f"embeddings as large as {largest:g} cannot be quantized, the most is {LARGEST:g}; train without a "
                "quantizer or at a lower learning rate"
            )
        parts = [self._pack(rows[start : start + CHUNK].astype(np.float64)) for start in range(0, len(rows), CHUNK)]
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if self.symmetric:
            del arrays["offset"]
        return arrays

    def unpack(self, arrays: dict[str, np.ndarray], dim: int) -> np.ndarray:
        levels = unpack_bits(arrays["levels"], self.bits, dim).astype(np.float32)
        scale = arrays["scale"].astype(np.float32)[:, None]
        if self.symmetric:
            return (levels - self.top // 2) * scale
        return levels * scale + arrays["offset"].astype(np.float32)[:, None]

    def _pack(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        scale, offset = self._spanning(rows)
        if self.fitted:
            scale, offset = self._fitting(rows, scale, offset)
        levels = self._levels(rows, scale, offset)
        return {
            "levels": pack_bits(levels, self.bits),
            "scale": scale.astype(np.float16),
            "offset": offset.astype(np.float16),
        }

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


@dataclass(frozen=True)
class ProductQuantizer(Validated):
    """Rows cut into blocks, each replaced by the nearest of 2^bits centroids of its block (Jégou, Douze, Schmid,
    TPAMI 2011).

    The centroids of all blocks stand side by side in one (2^bits, dim) matrix, so that any number of blocks will do:
    their widths differ by one at most. Parameters by the paper's rule: dim * 2^bits per codebook and blocks - 1 per
    row, whose first code is free as an id's is.

    Attributes
    ----------
    blocks : int
        dim at most.
    bits : int
        Of a code.
    """

    blocks: int = setting(16, at_least=1)
    bits: int = setting(8, at_least=1, at_most=MOST_CODE_BITS)
    name: ClassVar[str] = "product"

    @property
    def label(self) -> str:
        return f"PQ {self.blocks}x{self.bits}"

    def format(self, dim: int) -> RowFormat:
        if self.blocks > dim:
            raise SettingError("blocks", self.blocks, f"is more than the embedding width dim={dim}")
        centroids = 2**self.bits * dim
        return RowFormat(self.blocks - 1, packed_bytes(self.blocks, self.bits), centroids, FLOAT_BYTES * centroids)

    def block_of_column(self, dim: int) -> np.ndarray:
        """(dim,) int64, ascending: the block of each column."""
        return np.arange(dim) * self.blocks // dim

    def learn(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Centroids (2^bits, dim) float32, by k-means with k-means++ seeds; and codes (n, blocks), of `code_dtype`.

        Centroids beyond the number of distinct parts of rows are zero.
        """
        dim = rows.shape[1]
        self.format(dim)  # refuses too many blocks
        centroids = np.zeros((2**self.bits, dim), np.float32)
        codes = np.empty((len(rows), self.blocks), code_dtype(self.bits))
        blocks = self.block_of_column(dim)
        for block in range(self.blocks):
            columns = np.flatnonzero(blocks == block)
            points = np.ascontiguousarray(rows[:, columns], np.float64)
            seeds = kmeans_seeds(points, min(len(points), len(centroids)), rng, weights)
            labels, _ = kmeans(points, seeds, weights=weights, most_iterations=KMEANS_ITERATIONS)
            masses = np.bincount(labels, weights, len(centroids))
            for column, values in zip(columns, points.T, strict=True):
                sums = np.bincount(labels, values if weights is None else weights * values, len(centroids))
                centroids[:, column] = np.divide(sums, masses, out=np.zeros(len(sums)), where=masses > 0)
            codes[:, block] = labels
        return centroids, codes

    def pack(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        centroids, codes = self.learn(rows, rng, weights)
        return {"centroids": centroids, "codes": pack_bits(codes, self.bits)}

    def unpack(self, arrays: dict[str, np.ndarray], dim: int) -> np.ndarray:
        codes = unpack_bits(arrays["codes"], self.bits, self.blocks)
        return np.take_along_axis(arrays["centroids"], codes[:, self.block_of_column(dim)].astype(np.int64), axis=0)


QUANTIZERS: dict[str, type] = {cls.name: cls for cls in (UniformQuantizer, ProductQuantizer)}


# Exports -------------------------------------------------------------------------------------------------------------


def pack_export(
    arrays: dict[str, np.ndarray], packed: dict[str, dict[str, np.ndarray]], quantizer: Quantizer
) -> dict[str, np.ndarray]:
    """An export of tables with some of its arrays, by their names, in packed form."""
    header = {
        "quantizer": {"name": quantizer.name} | asdict(quantizer),
        "widths": {name: arrays[name].shape[1] for name in packed},
        "header": from_json_array(arrays["header"]),
    }
    rest = {name: array for name, array in arrays.items() if name != "header" and name not in packed}
    parts = {f"{name}.{part}": array for name, own in packed.items() for part, array in own.items()}
    return {"header": json_array(header)} | rest | parts


def unpack_export(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An export with all its rows in float32, as `from_export` of its tables needs it. Without packed rows: itself.

    Raises
    ------
    UserError
        When the quantizer is unknown.
    """
    header = from_json_array(arrays["header"])
    if "quantizer" not in header:
        return arrays
    settings = dict(header["quantizer"])
    name = settings.pop("name")
    if name not in QUANTIZERS:
        raise UserError(f"the export uses the quantizer '{name}', which this version does not know")
    quantizer = QUANTIZERS[name](**settings)
    unpacked = {name: array for name, array in arrays.items() if name.rpartition(".")[0] not in header["widths"]}
    for name, width in header["widths"].items():
        own = {part.removeprefix(f"{name}."): array for part, array in arrays.items() if part.startswith(f"{name}.")}
        unpacked[name] = quantizer.unpack(own, width)
    return unpacked | {"header": json_array(header["header"])}


def half_above(values: np.ndarray) -> np.ndarray:
    """The smallest float16 numbers that are at least the given float64 ones, in float64."""
    halves = values.astype(np.float16)
    halves = np.where(halves < values, np.nextafter(halves, np.float16(np.inf)), halves)
    return halves.astype(np.float64)
