"""Quantization of trained rows: what a codebook becomes when it is stored in fewer bits than float32.

A quantizer packs the (n, dim) rows of one codebook into arrays and unpacks them again, row by row, with every row on
whole bytes of its own, so that a server can read a single one. `HalfQuantizer` stores the upper halves of floats, and
`UniformQuantizer` small integers and one or two numbers per row that scale them. `ProductQuantizer` stores, for parts
of a row, which of a few learned vectors is nearest, `RefinedQuantizer` the same and more for some rows,
`RotatedProductQuantizer` the same after a rotation, and `ResidualQuantizer` of which learned vectors a row is the sum.
None looks at data other than the rows and their weights. `conf/quantize` has the settings of the first three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from baco.embedding.bits import bits_and_ranks, code_dtype, pack_bits, packed_bytes, running_sums, unpack_bits
from baco.embedding.cost import FLOAT_BYTES, RowFormat
from baco.errors import SettingError, UserError
from baco.files import from_json_array, json_array
from baco.validation import Limits, Validated, setting

CHUNK = 4096  # rows at a time: temporaries that stay in the cache
LARGEST = 3e4  # magnitude of an entry: scales and offsets are float16
SHRINKAGES = (1.0, 0.8, 0.6, 0.4)  # of a row's range, from which the search for its best grid starts
REFINEMENTS = 8  # twice as many lower the squared error by 1 % at 4 bits
KMEANS_ITERATIONS = 25
ROTATIONS = 8  # twice as many lower the squared error by 2 % at most
MOST_CODE_BITS = 12  # 4096 centroids
USUAL_BITS = 8  # the most of codes whose size is left to the budget: a byte


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
        whole = np.ascontiguousarray(rows, np.float32).view(np.uint32)
        odd = whole >> 16 & 1
        return {"upper": (whole + 0x7FFF + odd >> 16).astype(np.uint16)}  # a carry goes into the exponent, as it should

    def unpack(self, arrays: dict[str, np.ndarray], dim: int) -> np.ndarray:
        return (arrays["upper"].astype(np.uint32) << 16).view(np.float32)


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
        largest = np.abs(rows).max()
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
        levels = unpack_bits(arrays["levels"], self.bits, dim).astype(np.float32)
        scale = arrays["scale"].astype(np.float32)[:, None]
        if self.symmetric:
            return (levels - self.top // 2) * scale
        return levels * scale + arrays["offset"].astype(np.float32)[:, None]

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


class CodeQuantizer(RowByRow, Validated):
    """Rows replaced by codes that choose among learned centroids: what product and residual quantization share.

    Attributes
    ----------
    bits : int
        Of a code; a field of each subclass.
    """

    bits: int
    name: ClassVar[str]
    of_rows: ClassVar[tuple[str, ...]] = ("codes",)
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def label(self) -> str:
        raise NotImplementedError

    @property
    def num_codes(self) -> int:
        """Codes of a row."""
        raise NotImplementedError

    @property
    def num_centroids(self) -> int:
        """Rows of the matrix of centroids."""
        return 2**self.bits

    def format(self, dim: int) -> RowFormat:
        floats = self.num_centroids * dim
        return RowFormat(self.num_codes - 1, packed_bytes(self.num_codes, self.bits), floats, FLOAT_BYTES * floats)

    def learn(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """What `decode` makes the best of (n, dim) rows of.

        'centroids', (num_centroids, dim) float32: k-means centres, from k-means++ seeds, and zeros beyond the number of
        distinct points; 'codes', (n, num_codes) of `code_dtype`; and whatever else a subclass names.
        """
        raise NotImplementedError

    def decode(self, learned: dict[str, np.ndarray]) -> np.ndarray:
        """(n, dim) float32: the rows that stand for those that were learned from."""
        raise NotImplementedError

    def pack(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        return self.pack_codes(self.learn(rows, rng, weights))

    def unpack(self, arrays: dict[str, np.ndarray], dim: int) -> np.ndarray:
        return self.decode(self.unpack_codes(arrays))

    def pack_codes(self, learned: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was learned, in as many bits as it needs."""
        return learned | {"codes": pack_bits(learned["codes"], self.bits)}

    def unpack_codes(self, packed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inverse of `pack_codes`."""
        return packed | {"codes": unpack_bits(packed["codes"], self.bits, self.num_codes)}

    def cluster(
        self, points: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(2^bits, width) float32 centres of (n, width) points, and the (n,) centre of each point."""
        from baco.numerics.kmeans import kmeans, kmeans_seeds  # whoever only unpacks needs no compiler

        points, size = np.ascontiguousarray(points, np.float64), 2**self.bits
        seeds = kmeans_seeds(points, min(len(points), size), rng, weights)
        labels, _ = kmeans(points, seeds, weights=weights, most_iterations=KMEANS_ITERATIONS)
        masses = np.bincount(labels, weights, size)
        centers = np.zeros((size, points.shape[1]), np.float32)
        for column, values in enumerate(points.T):
            sums = np.bincount(labels, values if weights is None else weights * values, size)
            centers[:, column] = np.divide(sums, masses, out=np.zeros(size), where=masses > 0)
        return centers, labels


@dataclass(frozen=True)
class ProductQuantizer(CodeQuantizer):
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

    @property
    def num_codes(self) -> int:
        return self.blocks

    def format(self, dim: int) -> RowFormat:
        if self.blocks > dim:
            raise SettingError("blocks", self.blocks, f"is more than the embedding width dim={dim}")
        return super().format(dim)

    def block_of_column(self, dim: int) -> np.ndarray:
        """(dim,) int64, ascending: the block of each column."""
        return np.arange(dim) * self.blocks // dim

    def learn(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        dim = rows.shape[1]
        self.format(dim)  # refuses too many blocks
        centroids = np.empty((self.num_centroids, dim), np.float32)
        codes: np.ndarray = np.empty((len(rows), self.blocks), code_dtype(self.bits))
        blocks = self.block_of_column(dim)
        for block in range(self.blocks):
            columns = np.flatnonzero(blocks == block)
            centroids[:, columns], codes[:, block] = self.cluster(rows[:, columns], rng, weights)
        return {"centroids": centroids, "codes": codes}

    def decode(self, learned: dict[str, np.ndarray]) -> np.ndarray:
        centroids, codes = learned["centroids"], learned["codes"].astype(np.int64)
        return np.take_along_axis(centroids, codes[:, self.block_of_column(centroids.shape[1])], axis=0)


@dataclass(frozen=True)
class RefinedQuantizer(Validated):
    """Product codes for all rows, and for those that matter most also product codes of what the first ones leave.

    That is residual quantization of two levels, the second for some rows only. (MGQE, Kang et al., WWW 2020, gives
    frequent ids more codes, too.) A bit for each row that might be refined tells which are. Parameters by the paper's
    rule: those of product quantization, fine_blocks per refined row, and dim * 2^fine_bits per codebook.

    Attributes
    ----------
    blocks, bits, fine_blocks, fine_bits : int
        Of the codes of all rows, and of the others; see `ProductQuantizer`.
    refined : int
        How many rows are: those of the largest weights, the first among equals.
    among : int
        How many rows, the first of the codebook, they are chosen from.
    """

    blocks: int = setting(16, at_least=1)
    bits: int = setting(8, at_least=1, at_most=MOST_CODE_BITS)
    fine_blocks: int = setting(8, at_least=1)
    fine_bits: int = setting(8, at_least=1, at_most=MOST_CODE_BITS)
    refined: int = setting(0, at_least=0)
    among: int = setting(0, at_least=0)
    name: ClassVar[str] = "refined"

    @property
    def label(self) -> str:
        return f"{self.base.label} + {self.fine_blocks}x{self.fine_bits}"

    @property
    def base(self) -> ProductQuantizer:
        return ProductQuantizer(self.blocks, self.bits)

    @property
    def fine(self) -> ProductQuantizer:
        return ProductQuantizer(self.fine_blocks, self.fine_bits)

    def format(self, dim: int) -> RowFormat:
        base, fine = self.base.format(dim), self.fine.format(dim)
        return replace(
            base,
            table_parameters=base.table_parameters + fine.table_parameters + self.refined * self.fine_blocks,
            table_bytes=base.table_bytes + fine.bytes(self.refined) + packed_bytes(self.among, 1),
        )

    def pack(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The weights, of the first rows at least, choose those that are refined; k-means has none."""
        weights = np.zeros(self.among) if weights is None else weights
        chosen = np.zeros(self.among, np.bool_)
        chosen[np.argsort(-weights[: self.among], kind="stable")[: self.refined]] = True
        base = self.base.pack(rows, rng)
        left = (rows - self.base.unpack(base, rows.shape[1]))[: self.among][chosen]
        fine = {f"fine_{part}": array for part, array in self.fine.pack(left, rng).items()}
        return base | fine | {"chosen": np.packbits(chosen)}

    def unpack(self, arrays: dict[str, np.ndarray], dim: int) -> np.ndarray:
        rows = self.base.unpack(arrays, dim)
        chosen = np.flatnonzero(np.unpackbits(arrays["chosen"], count=self.among))
        rows[chosen] += self.fine.unpack(_fine_parts(arrays), dim)
        return rows

    def reader(self, arrays: dict[str, np.ndarray], dim: int) -> Callable[[np.ndarray], np.ndarray]:
        base, fine = self.base.reader(arrays, dim), self.fine.reader(_fine_parts(arrays), dim)
        chosen, marks = arrays["chosen"], running_sums(np.bitwise_count(arrays["chosen"]))

        def read(numbers: np.ndarray) -> np.ndarray:
            rows, within = base(numbers), np.flatnonzero(numbers < self.among)
            refined, places = bits_and_ranks(numbers[within], chosen, marks)
            rows[within[refined]] += fine(places[refined])
            return rows

        return read


def _fine_parts(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {part.removeprefix("fine_"): array for part, array in arrays.items() if part.startswith("fine_")}


@dataclass(frozen=True)
class RotatedProductQuantizer(ProductQuantizer):
    """Product quantization of rotated rows: rows X are stored as the product codes of X R, for an orthogonal R that is
    learned with them (Ge, He, Ke, Sun, CVPR 2013, "Optimized product quantization").

    Parameters by the paper's rule: those of product quantization, and dim * dim for the rotation of each codebook.

    The rotation starts from the principal axes of the rows, dealt out to the blocks so that their products of variances
    are about equal (the paper's parametric solution). Then product codes and the rotation that suits them best, by an
    orthogonal Procrustes problem, take turns (its non-parametric one). k-means begins anew each time, where the authors
    go on with one of its iterations.
    """

    name: ClassVar[str] = "rotated"

    @property
    def label(self) -> str:
        return f"O{super().label}"

    def format(self, dim: int) -> RowFormat:
        plain, floats = super().format(dim), dim * dim
        return replace(
            plain,
            table_parameters=plain.table_parameters + floats,
            table_bytes=plain.table_bytes + FLOAT_BYTES * floats,
        )

    def learn(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        points = rows.astype(np.float64)
        weighted = points if weights is None else points * weights[:, None]
        rotation = self.principal_axes(weighted.T @ points)
        for _ in range(ROTATIONS):
            coded = super().decode(super().learn(points @ rotation, rng, weights))
            left, _, right = np.linalg.svd(weighted.T @ coded)
            rotation = left @ right
        learned = super().learn(points @ rotation, rng, weights)
        return learned | {"rotation": rotation.T.astype(np.float32)}

    def decode(self, learned: dict[str, np.ndarray]) -> np.ndarray:
        return super().decode(learned) @ learned["rotation"]

    def principal_axes(self, moments: np.ndarray) -> np.ndarray:
        """(dim, dim): the eigenvectors of the rows' second moments, in the columns of the blocks they are dealt to.

        The largest goes first, each into the block with the smallest product of eigenvalues that has room.
        """
        values, vectors = np.linalg.eigh(moments)
        logs = np.log(np.maximum(values, np.finfo(np.float64).eps * values.max() + np.finfo(np.float64).tiny))
        logs -= logs.min()  # an axis more never makes a product smaller
        room, sums = np.bincount(self.block_of_column(len(values))), np.zeros(self.blocks)
        blocks = np.empty(len(values), np.int64)
        for axis in np.argsort(-values, kind="stable"):
            block = np.argmin(np.where(room > 0, sums, np.inf))
            blocks[axis] = block
            room[block] -= 1
            sums[block] += logs[axis]
        return vectors[:, np.argsort(blocks, kind="stable")]


@dataclass(frozen=True)
class ResidualQuantizer(CodeQuantizer):
    """Rows as sums of one centroid of each level, chosen one after the other: each level's 2^bits centroids are those
    of k-means of what the levels before leave (Juang, Gray, ICASSP 1982; Chen, Guan, Wang, Sensors 2010).

    The centroids of all levels stand one below the other in one (levels * 2^bits, dim) matrix. Parameters by the
    paper's rule: levels * 2^bits * dim per codebook and levels - 1 per row.

    Attributes
    ----------
    levels : int
    bits : int
        Of a code.
    """

    levels: int = setting(8, at_least=1)
    bits: int = setting(8, at_least=1, at_most=MOST_CODE_BITS)
    name: ClassVar[str] = "residual"

    @property
    def label(self) -> str:
        return f"RQ {self.levels}x{self.bits}"

    @property
    def num_codes(self) -> int:
        return self.levels

    @property
    def num_centroids(self) -> int:
        return self.levels * 2**self.bits

    @property
    def starts(self) -> np.ndarray:
        """(levels,) int64: where the centroids of each level begin."""
        return np.arange(self.levels) << self.bits

    def learn(
        self, rows: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        rest, levels = rows.astype(np.float64), []
        codes: np.ndarray = np.empty((len(rows), self.levels), code_dtype(self.bits))
        for level in range(self.levels):
            centers, codes[:, level] = self.cluster(rest, rng, weights)
            rest -= centers[codes[:, level]]
            levels.append(centers)
        return {"centroids": np.concatenate(levels), "codes": codes}

    def decode(self, learned: dict[str, np.ndarray]) -> np.ndarray:
        centroids, codes = learned["centroids"], learned["codes"]
        rows = centroids[codes[:, 0]]
        for level in range(1, self.levels):
            rows += centroids[self.starts[level] + codes[:, level]]
        return rows


Choice = TypeVar("Choice", bound=CodeQuantizer)


def finest_within(choices: Iterable[Choice], cost: Callable[[Choice], int], limit: float) -> Choice | None:
    """The quantizer with the most bits per row whose cost is within a limit, with fewer codes among equals.

    So ordered, the distortion of k-means falls: by a factor of four for each bit per dimension, and a little by longer
    codes. None where none fits.
    """
    fitting = (choice for choice in choices if cost(choice) <= limit)
    return max(fitting, key=lambda choice: (choice.num_codes * choice.bits, choice.bits), default=None)


QUANTIZERS: dict[str, type] = {
    cls.name: cls
    for cls in (
        HalfQuantizer,
        UniformQuantizer,
        ProductQuantizer,
        RefinedQuantizer,
        RotatedProductQuantizer,
        ResidualQuantizer,
    )
}


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
    quantizer = quantizer_of(header)
    if quantizer is None:
        return arrays
    unpacked = {name: array for name, array in arrays.items() if name.rpartition(".")[0] not in header["widths"]}
    for name, width in header["widths"].items():
        own = {part.removeprefix(f"{name}."): array for part, array in arrays.items() if part.startswith(f"{name}.")}
        unpacked[name] = quantizer.unpack(own, width)
    return unpacked | {"header": json_array(header["header"])}


def quantizer_of(header: dict) -> Quantizer | None:
    """What packed the rows of an export, from its header; None where they are in float32.

    Raises
    ------
    UserError
        When the quantizer is unknown.
    """
    if "quantizer" not in header:
        return None
    settings = dict(header["quantizer"])
    name = settings.pop("name")
    if name not in QUANTIZERS:
        raise UserError(f"the export uses the quantizer '{name}', which this version does not know")
    return QUANTIZERS[name](**settings)


def half_above(values: np.ndarray) -> np.ndarray:
    """The smallest float16 numbers that are at least the given float64 ones, in float64."""
    halves = values.astype(np.float16)
    halves = np.where(halves < values, np.nextafter(halves, np.float16(np.inf)), halves)
    return halves.astype(np.float64)
