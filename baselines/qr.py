"""Quotient and remainder: an embedding is composed of a row for each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from baco.compressors.budget import Budget, split_rows
from baco.compressors.compressor import Compressor
from baco.embedding.rules import AffineHash
from baco.errors import SettingError, UserError
from baco.graph import Biadjacency
from baco.registry import register_method, register_tables
from baco.validation import Validated, setting
from baselines.support.composed import ORDER_BYTES, ORDERS, ComposedSide, ComposedTables, order_of_ids

OPERATIONS = ("product", "sum", "concat")


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
    class Config(Validated):
        """How embeddings are composed.

        operation : 'product', 'sum' or 'concat'.
        order : 'permuted' or 'id', the order in which ids are grouped.
        """

        operation: str = setting("product", one_of=OPERATIONS)
        order: str = setting("permuted", one_of=ORDERS)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> QuotientRemainderTables:
        operation = self.config.operation
        if operation == "concat" and budget.dim % 2:
            raise SettingError("operation", operation, f"needs an even dim, not dim={budget.dim}")
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
                    f"the budget of {budget.limit:,} {budget.unit} buys qr, beside second codes, {side_rows} "
                    f"rows for {size:,} ids, but it needs about {math.ceil(2 * math.sqrt(size)):,}; raise the budget"
                )
            order = order_of_ids(self.config.order, size, rng)
            sides.append(QuotientRemainderSide(order, size, int(fitting[-1]), operation, budget.dim))
        return QuotientRemainderTables(*sides)


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


@register_tables("QuotientRemainderTables")
class QuotientRemainderTables(ComposedTables):
    """`QuotientRemainder`'s tables."""

    Side = QuotientRemainderSide


def row_width(operation: str, dim: int) -> int:
    """Of the rows of which an embedding is composed."""
    return dim // 2 if operation == "concat" else dim
