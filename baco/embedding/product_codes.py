"""Quantizers that replace rows by codes: product quantization and its kin, and residual quantization."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from baco.embedding.bits import bits_and_ranks, code_dtype, pack_bits, packed_bytes, running_sums, unpack_bits
from baco.embedding.cost import FLOAT_BYTES, RowFormat
from baco.embedding.quantizer import RowByRow, in_pieces
from baco.errors import SettingError
from baco.validation import Validated, setting

KMEANS_ITERATIONS = 25
ROTATIONS = 8  # twice as many lower the squared error by 2 % at most
MOST_CODE_BITS = 12  # 4096 centroids
USUAL_BITS = 8  # the most of codes whose size is left to the budget: a byte


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
        centroids, codes = learned["centroids"], learned["codes"]
        blocks = self.block_of_column(centroids.shape[1])

        def rows(piece: slice) -> np.ndarray:
            return np.take_along_axis(centroids, codes[piece].astype(np.int64)[:, blocks], axis=0)

        return in_pieces(rows, len(codes), centroids.shape[1])


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

        def rows(piece: slice) -> np.ndarray:
            found = centroids[codes[piece, 0]]
            for level in range(1, self.levels):
                found += centroids[self.starts[level] + codes[piece, level]]
            return found

        return in_pieces(rows, len(codes), centroids.shape[1])


Choice = TypeVar("Choice", bound=CodeQuantizer)


def finest_within(choices: Iterable[Choice], cost: Callable[[Choice], int], limit: float) -> Choice | None:
    """The quantizer with the most bits per row whose cost is within a limit, with fewer codes among equals.

    So ordered, the distortion of k-means falls: by a factor of four for each bit per dimension, and a little by longer
    codes. None where none fits.
    """
    fitting = (choice for choice in choices if cost(choice) <= limit)
    return max(fitting, key=lambda choice: (choice.num_codes * choice.bits, choice.bits), default=None)
