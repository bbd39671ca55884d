"""Tensor trains: an embedding is a product of three cores, chosen by the digits of an id."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.cost import FLOAT_BYTES
from baco.embedding.rules import AffineHash
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.registry import register_method, register_tables
from baco.validation import Validated, setting
from baselines.support.composed import ORDER_BYTES, ORDERS, ComposedSide, ComposedTables, order_of_ids


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
    class Config(Validated):
        """order : 'permuted' or 'id', whose digits are taken."""

        order: str = setting("permuted", one_of=ORDERS)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> TensorTrainTables:
        sizes = train.num_users, train.num_items
        rest = max(0, budget.limit - (2 * ORDER_BYTES if budget.unit == "bytes" else 0))
        shares = rest * train.num_users // train.num_nodes, rest
        sides = []
        for size, share in zip(sizes, shares, strict=True):
            ranks = ranks_for(min(share, rest), size, budget)
            if ranks is None:
                raise UserError(
                    f"the budget of {budget.limit:,} {budget.unit} leaves ttrec {min(share, rest):,} for "
                    f"{size:,} ids, too little for a tensor train of rank 1; raise the budget"
                )
            rest -= cost_of_cores(ranks, size, budget)
            sides.append(TensorTrainSide(order_of_ids(self.config.order, size, rng), size, ranks, budget.dim))
        return TensorTrainTables(*sides)


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


@register_tables("TensorTrainTables")
class TensorTrainTables(ComposedTables):
    """`TensorTrain`'s tables."""

    Side = TensorTrainSide


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
