"""Embeddings composed of few parameters by the digits of an id: quotient and remainder, tensor trains."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from baco.compressors.budget import Budget, split_rows
from baco.compressors.compressor import Compressor
from baco.embedding.codes import SIDES
from baco.embedding.cost import FLOAT_BYTES, Ledger
from baco.embedding.quantizers import unpack_export
from baco.embedding.rules import AffineHash
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError, unknown
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.registry import register_method

OPERATIONS = ("product", "sum", "concat")
ORDERS = ("permuted", "id")
ORDER_BYTES = 16  # of one side: a multiplier and an offset


def order_of_ids(order: str, num_ids: int, rng: np.random.Generator) -> AffineHash:
    """The positions of ids whose digits are taken: a random permutation, or the ids themselves."""
    if order == "permuted":
        return AffineHash.draw(1, num_ids, rng)
    return AffineHash(np.array([1]), np.array([0]))


@register_method("qr")
class QuotientRemainder(Compressor):
    """Complementary partitions of the ids by quotient and remainder (Shi et al., KDD 2020, arXiv 1909.02107).

    The ids of a side stand in k groups of consecutive ones; an embedding is composed of a row for the group and one for
    the place within it, by their product, sum or concatenation. Two ids never share both.
    Parameters: dim (k + ceil(n / k)) for n ids, half as many for concatenation, plus n second codes.

    Deviations: groups of two sizes that differ by one, instead of equal ones and a last one, so that k can be any
    number and the budget is filled; second codes are paid from the budget; ids are permuted by a seeded affine map
    first, since their order is no information that a method should have (`order=id` is published); first values are
    normal, times random signs under the product: the published ones, all positive, do not suit dot products.
    """

    label = "QR"

    @dataclass(frozen=True)
    class Config:
        """How embeddings are composed.

        operation : 'product', 'sum' or 'concat'.
        order : 'permuted' or 'id', the order in which ids are grouped.
        """

        operation: str = "product"
        order: str = "permuted"

        def __post_init__(self):
            for key, choices in (("operation", OPERATIONS), ("order", ORDERS)):
                if getattr(self, key) not in choices:
                    raise unknown(f"method.{key}", getattr(self, key), choices)

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> QuotientRemainderTables:
        operation = self.config.operation
        if operation == "concat" and budget.dim % 2:
            raise UserError(f"method.operation=concat needs an even dim, not dim={budget.dim}")
        sizes = train.num_users, train.num_items
        narrow = replace(budget, dim=row_width(operation, budget.dim))
        row = narrow.row_format()  # each side has two codebooks, and `rows` knows of one
        rows = narrow.rows(
            extra_parameters=train.num_nodes + 2 * row.table_parameters,
            extra_bytes=2 * ORDER_BYTES + 2 * row.table_bytes,
        )
        sides = []
        for size, side_rows in zip(sizes, (0, 0) if rows < 2 else split_rows(rows, *sizes), strict=True):
            groups = np.arange(1, size + 1)
            fitting = groups[groups - -size // groups <= side_rows]
            if not fitting.size:
                raise UserError(
                    f"the budget of {budget.limit:,} {budget.unit} buys method=qr, beside second codes, {side_rows} "
                    f"rows for {size:,} ids, but it needs about {math.ceil(2 * math.sqrt(size)):,}; raise budget="
                )
            order = order_of_ids(self.config.order, size, rng)
            sides.append(QuotientRemainderSide(order, size, int(fitting[-1]), operation, budget.dim))
        return QuotientRemainderTables(*sides)


@register_method("ttrec")
class TensorTrain(Compressor):
    """Tensor trains (TT-Rec: Yin et al., MLSys 2021, arXiv 2101.11714).

    An id is written with three digits, in the number systems p_1 p_2 p_3 >= n, and dim = q_1 q_2 q_3; entry
    (j_1, j_2, j_3) of its embedding is G_1[i_1, j_1] G_2[i_2, j_2] G_3[i_3, j_3], a row times a matrix times a column.
    Parameters: p_1 q_1 r_1 + p_2 q_2 r_1 r_2 + p_3 q_3 r_2 for each side; digits are computed and cost nothing.

    The ranks r_1 and r_2 fill the budget, of which each side has a part in proportion to its number of ids. All
    embeddings come from two matrix products. Deviations: ids are permuted by a seeded affine map first, as in `qr`
    (`order=id` is published); first values are normal, of one standard deviation for all cores.
    """

    label = "TT-Rec"

    @dataclass(frozen=True)
    class Config:
        """order : 'permuted' or 'id', whose digits are taken."""

        order: str = "permuted"

        def __post_init__(self):
            if self.order not in ORDERS:
                raise unknown("method.order", self.order, ORDERS)

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> TensorTrainTables:
        sizes = train.num_users, train.num_items
        rest = max(0, budget.limit - (2 * ORDER_BYTES if budget.unit == "bytes" else 0))
        shares = rest * train.num_users // train.num_nodes, rest
        sides = []
        for size, share in zip(sizes, shares, strict=True):
            ranks = ranks_for(min(share, rest), size, budget)
            if ranks is None:
                raise UserError(
                    f"the budget of {budget.limit:,} {budget.unit} leaves method=ttrec {min(share, rest):,} for "
                    f"{size:,} ids, too little for a tensor train of rank 1; raise budget="
                )
            rest -= cost_of_cores(ranks, size, budget)
            sides.append(TensorTrainSide(order_of_ids(self.config.order, size, rng), size, ranks, budget.dim))
        return TensorTrainTables(*sides)


class ComposedSide(nn.Module):
    """The ids of one side, whose embeddings are composed of the parameters `factors`, each (rows, width).

    Parameters
    ----------
    order : AffineHash
        One hash, from the ids to their positions.
    num_ids : int
    """

    codes_per_id: ClassVar[int]  # as far as they are paid for

    def __init__(self, order: AffineHash, num_ids: int):
        super().__init__()
        self.order = order
        self.num_ids = num_ids
        self.factors = nn.ParameterList()

    def positions(self) -> np.ndarray:
        """(n,) int64, a permutation of the ids."""
        return self.order.evaluate(self.num_ids, self.num_ids).index[:, 0].astype(np.int64)

    @property
    def num_floats(self) -> int:
        return sum(factor.numel() for factor in self.factors)

    def settings(self) -> dict:
        """Plain values from which, with the order and the number of ids, the constructor makes the same again."""
        raise NotImplementedError

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        """Draw first values with which the entries of embeddings have the standard deviation `std`."""
        raise NotImplementedError


class ComposedTables(EmbeddingTables):
    """A composed side for users and one for items."""

    Side: ClassVar[type[ComposedSide]]

    def __init__(self, users: ComposedSide, items: ComposedSide):
        super().__init__()
        self.users, self.items = users, items

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users(), self.items()

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.users.reset_parameters(std, generator)
        self.items.reset_parameters(std, generator)

    def ledger(self) -> Ledger:
        floats = self.users.num_floats + self.items.num_floats
        extra_codes = (self.Side.codes_per_id - 1) * (self.users.num_ids + self.items.num_ids)
        return Ledger(
            parameters=floats + extra_codes,
            bytes=FLOAT_BYTES * floats + 2 * ORDER_BYTES,
            training_floats=floats,
            extra_codes=extra_codes,
        )

    def quantizable(self) -> dict[str, nn.Parameter]:
        return {
            f"{side}/factor{number}": factor
            for side in SIDES
            for number, factor in enumerate(getattr(self, side).factors, 1)
        }

    def export(self) -> dict[str, np.ndarray]:
        arrays = {name: factor.detach().cpu().numpy() for name, factor in self.quantizable().items()}
        header = {}
        for name in SIDES:
            side: ComposedSide = getattr(self, name)
            header[name] = {"num_ids": side.num_ids} | side.settings()
            arrays |= {f"{name}.{key}": array for key, array in side.order.arrays().items()}
        return {"header": json_array(header)} | arrays

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> ComposedTables:
        """The tables whose `export` these arrays are."""
        arrays, sides = unpack_export(arrays), []
        for name, settings in from_json_array(arrays["header"]).items():
            order = AffineHash(arrays[f"{name}.multipliers"], arrays[f"{name}.offsets"])
            sides.append(cls.Side(order, **settings))
        tables = cls(*sides)
        with torch.no_grad():
            for name, factor in tables.quantizable().items():
                factor.copy_(torch.as_tensor(arrays[name]))
        return tables


class QuotientRemainderSide(ComposedSide):
    """Rows of groups, and rows of places within a group; position x is in group floor(x k / n)."""

    codes_per_id = 2

    def __init__(self, order: AffineHash, num_ids: int, num_groups: int, operation: str, dim: int):
        super().__init__(order, num_ids)
        self.num_groups, self.operation, self.dim = num_groups, operation, dim
        positions = self.positions()
        groups = positions * num_groups // num_ids
        places = positions - -(-groups * num_ids // num_groups)
        width = row_width(operation, dim)
        self.factors.extend(torch.zeros(rows, width) for rows in (num_groups, -(-num_ids // num_groups)))
        self.register_buffer("codes", torch.as_tensor(np.stack([groups, places]).astype(np.int32)))

    def settings(self) -> dict:
        return {"num_groups": self.num_groups, "operation": self.operation, "dim": self.dim}

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        groups, places = (torch.randn(rows.shape, generator=generator) for rows in self.factors)
        if self.operation == "product":
            groups, places = groups * std, places.sign()
        else:
            scale = std / math.sqrt(2) if self.operation == "sum" else std
            groups, places = groups * scale, places * scale
        self.factors[0].copy_(groups)
        self.factors[1].copy_(places)

    def forward(self) -> Tensor:
        """(n, dim)."""
        groups, places = (embedding(codes, rows) for codes, rows in zip(self.codes, self.factors, strict=True))
        if self.operation == "product":
            return groups * places
        return groups + places if self.operation == "sum" else torch.cat([groups, places], 1)


class QuotientRemainderTables(ComposedTables):
    """`QuotientRemainder`'s tables."""

    Side = QuotientRemainderSide


class TensorTrainSide(ComposedSide):
    """Three cores, core k with a row of r_(k-1) q_k r_k numbers for each value of the digit k."""

    codes_per_id = 1

    def __init__(self, order: AffineHash, num_ids: int, ranks: tuple[int, int], dim: int):
        super().__init__(order, num_ids)
        self.ranks, self.dim = tuple(ranks), dim
        widths = core_widths(ranks, dim)
        self.factors.extend(torch.zeros(base, width) for base, width in zip(three_digits(num_ids), widths, strict=True))
        self.register_buffer("codes", torch.as_tensor(self.positions().astype(np.int32)))

    def settings(self) -> dict:
        return {"ranks": self.ranks, "dim": self.dim}

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        scale = (std / math.sqrt(math.prod(self.ranks))) ** (1 / 3)  # an entry is a sum of r_1 r_2 products of three
        for core in self.factors:
            core.copy_(torch.randn(core.shape, generator=generator) * scale)

    def forward(self) -> Tensor:
        """(n, dim)."""
        (p1, p2, p3), (q1, q2, q3), (r1, r2) = (len(core) for core in self.factors), three_factors(self.dim), self.ranks
        first, second, third = self.factors
        second = second.view(p2, r1, q2 * r2).transpose(0, 1).reshape(r1, p2 * q2 * r2)
        third = third.view(p3, r2, q3).transpose(0, 1).reshape(r2, p3 * q3)
        products = (first.view(p1 * q1, r1) @ second).view(p1 * q1 * p2 * q2, r2) @ third
        everything = products.view(p1, q1, p2, q2, p3, q3).permute(0, 2, 4, 1, 3, 5).reshape(p1 * p2 * p3, self.dim)
        return embedding(self.codes, everything)


class TensorTrainTables(ComposedTables):
    """`TensorTrain`'s tables."""

    Side = TensorTrainSide


def row_width(operation: str, dim: int) -> int:
    """Of the rows of which an embedding is composed."""
    return dim // 2 if operation == "concat" else dim


def three_digits(count: int) -> tuple[int, int, int]:
    """About equal p_1, p_2, p_3 whose product is `count` or little more."""
    first = math.ceil(round(count ** (1 / 3), 9))
    second = math.ceil(math.sqrt(-(-count // first)))
    return first, second, -(-count // (first * second))


def three_factors(dim: int) -> tuple[int, int, int]:
    """q_1, q_2, q_3 whose product is `dim`, as equal as may be."""
    divisors = [q for q in range(1, dim + 1) if dim % q == 0]
    triples = [(a, b, dim // (a * b)) for a in divisors for b in divisors if dim % (a * b) == 0]
    return min(triples, key=lambda factors: (max(factors), factors[1]))


def core_widths(ranks: tuple[int, int], dim: int) -> tuple[int, int, int]:
    """How many numbers each value of a digit has in the three cores."""
    (first, second), q = ranks, three_factors(dim)
    return q[0] * first, first * q[1] * second, second * q[2]


def cost_of_cores(ranks: tuple[int, int], num_ids: int, budget: Budget) -> int:
    """What the cores of one side cost, in the budget's unit and as they are stored."""
    cost = 0
    for base, width in zip(three_digits(num_ids), core_widths(ranks, budget.dim), strict=True):
        row = budget.row_format(width)
        cost += row.parameters(base) if budget.unit == "parameters" else row.bytes(base)
    return cost


def ranks_for(amount: int, num_ids: int, budget: Budget) -> tuple[int, int] | None:
    """Ranks whose cores cost close to an amount of the budget's unit, and not more. None: not even rank 1 does."""
    p, q = three_digits(num_ids), three_factors(budget.dim)
    if budget.quantizer is None:
        return ranks_within(amount // (1 if budget.unit == "parameters" else FLOAT_BYTES), p, q)

    def too_dear(floats: int) -> bool:
        ranks = ranks_within(floats, p, q)
        return ranks is not None and cost_of_cores(ranks, num_ids, budget) > amount

    return ranks_within(bisect_left(range(8 * amount), True, key=too_dear) - 1, p, q)  # an entry has a bit at least


def ranks_within(floats: int, p: tuple[int, int, int], q: tuple[int, int, int]) -> tuple[int, int] | None:
    """Ranks r_1 and r_2, about equal, whose cores have close to the given number of floats, and not more.

    A rank above the number of rows of the outer core's matrix would add nothing. None: not even rank 1 fits.
    """
    ends, middle = (p[0] * q[0], p[2] * q[2]), p[1] * q[1]
    equal = int((math.sqrt(sum(ends) ** 2 + 4 * middle * floats) - sum(ends)) / (2 * middle))
    best, most = None, 0
    for first in range(max(1, min(equal, ends[0]) - 4), min(equal + 4, ends[0]) + 1):
        second = min((floats - ends[0] * first) // (middle * first + ends[1]), ends[1])
        cost = ends[0] * first + middle * first * second + ends[1] * second
        if second >= 1 and cost > most:
            best, most = (first, second), cost
    return best
