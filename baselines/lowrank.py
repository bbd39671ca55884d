"""Low-rank embeddings: short ones, and a matrix per side that makes them wide."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.codes import SIDES
from baco.embedding.cost import FLOAT_BYTES, Ledger
from baco.embedding.tables import Embeddings, EmbeddingTables
from baco.errors import UserError
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.registry import register_method, register_tables
from baselines.sizes import SizedTables, affordable_size, sizes_by_rank

PROJECTION_RATE = 0.01  # of the protocol's learning rate, which is one for rows; every step moves all of a matrix


@register_tables("ProjectedTables")
class ProjectedTables(EmbeddingTables):
    """Short embeddings E, (n, width), of both sides, and for each side a matrix P, (width, dim); layer 0 is E P.

    Parameters: those of the short embeddings, plus 2 * width * dim.

    Both matrices start with the same random orthonormal rows. The first scores are then those of the short embeddings,
    which start as those of `su` do, at random or near the first coordinates of given ones.

    Parameters
    ----------
    short : SizedTables
    dim : int
        At least the width of the short embeddings.
    """

    def __init__(self, short: SizedTables, dim: int):
        super().__init__()
        self.short = short
        self.projections = nn.Parameter(torch.zeros(2, short.dim, dim))  # of users, and of items

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self.short()
        return users @ self.projections[0], items @ self.projections[1]

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return self.short.lookup(side, ids) @ self.projections[SIDES.index(side)]

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.short.reset_parameters(std, generator)
        _, width, dim = self.projections.shape
        columns, _ = torch.linalg.qr(torch.randn(dim, width, generator=generator))
        self.projections.copy_(columns.T)

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        self.short.start_near(embeddings, rms)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return [
            *self.short.param_groups(lr, weight_decay),
            {"params": [self.projections], "lr": PROJECTION_RATE * lr, "weight_decay": 0.0},
        ]

    def ledger(self) -> Ledger:
        short, own = self.short.ledger(), self.projections.numel()
        return Ledger(
            parameters=short.parameters + own,
            bytes=short.bytes + FLOAT_BYTES * own,
            training_floats=short.training_floats + own,
        )

    def export(self) -> dict[str, np.ndarray]:
        arrays = self.short.export()
        header = from_json_array(arrays["header"]) | {"width": self.short.dim, "dim": self.projections.shape[2]}
        return arrays | {"header": json_array(header), "projections": self.projections.detach().cpu().numpy()}

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> ProjectedTables:
        """The tables whose `export` these arrays are."""
        header = from_json_array(arrays["header"])
        short = SizedTables.from_export(arrays | {"header": json_array(header | {"dim": header["width"]})})
        tables = cls(short, header["dim"])
        with torch.no_grad():
            tables.projections.copy_(torch.as_tensor(arrays["projections"]))
        return tables


@register_method("lowrank")
class LowRank(Compressor):
    """Short embeddings of one width for all ids, made wide by a learned matrix per side: both tables have a low rank.

    The width is the largest whose embeddings and matrices fit. Of what is left, 2 * dim buy one more row of both
    matrices, and the most frequent ids get one float more, as in `su`, until the budget is spent; where less is left
    than those rows and one float cost, it stays unused. Parameters: the budget, but for 2 * dim floats at most.

    The usual way to a smaller table (ALBERT: Lan et al., ICLR 2020, arXiv 1909.11942, factorises that of words so).
    """

    label = "Low rank"
    has_start = True

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> ProjectedTables:
        floats, num_ids = affordable_size(budget, train.num_nodes), train.num_nodes
        row = 2 * budget.dim  # of the matrices of both sides
        full_width, rest = divmod(floats, num_ids + row)
        width = full_width + (rest > row)
        if full_width == 0:
            raise UserError(
                f"the budget of {budget.limit:,} {budget.unit} buys {floats:,} floats, below the {num_ids + row:,} of "
                "embeddings of width 1 and their two matrices; raise the budget"
            )
        total = min(floats - width * row, width * num_ids)
        sizes = sizes_by_rank(train.joint_degrees, np.ones(num_ids), total, width)
        return ProjectedTables(SizedTables.from_joint_sizes(sizes, train.num_users, width), budget.dim)
