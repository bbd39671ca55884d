"""ALPT: rows that are integers after every step of the training, with learned steps between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.codebook import CodebookTables
from baco.embedding.rounding import UniformQuantizer
from baco.embedding.tables import Embeddings
from baco.graph import Biadjacency
from baco.registry import register_method
from baco.rng import torch_stream
from baco.validation import setting
from baselines.full import full_tables
from baselines.qat import Bits, Grids, GridTables


class StochasticGrids(Grids):
    """Grids on which rows are rounded up or down at random, so that their mean is the row.

    Attributes
    ----------
    unrounded : (num_rows, dim) float32
        What the rows were before they were last rounded.
    """

    unrounded: Tensor

    def __init__(self, quantizer: UniformQuantizer, num_rows: int, dim: int):
        super().__init__(quantizer, num_rows)
        self.register_buffer("unrounded", torch.zeros(num_rows, dim))

    def forward(self, rows: Tensor, ids: Tensor | None = None) -> Tensor:
        """(n, dim): the rows, which lie on the grids, themselves.

        Their gradient is that of the identity; of the steps and offsets, that of rounding `unrounded` to the nearest.
        """
        nearest = super().forward(self.unrounded if ids is None else self.unrounded[ids], ids)
        return rows + (nearest - nearest.detach())

    @torch.no_grad()
    def round(self, rows: Tensor, generator: torch.Generator) -> None:
        """Round all rows in place; those beyond a grid go to its end."""
        self.unrounded.copy_(rows)
        places, steps, first = self._places(rows, None)
        below = places.floor()
        up = torch.rand(places.shape, generator=generator, device=places.device) < places - below
        rows.copy_(self._points(below + up, steps, first))


class LowPrecisionTables(GridTables):
    """The full model's tables, whose rows lie on their grids before and after every step.

    Parameters
    ----------
    inner : CodebookTables
    quantizer : UniformQuantizer
    rate : float
        The part of the protocol's learning rate at which steps and offsets are trained.
    seed : int
        Of the rounding.
    """

    users: StochasticGrids
    items: StochasticGrids

    def __init__(self, inner: CodebookTables, quantizer: UniformQuantizer, rate: float, seed: int):
        super().__init__(inner, *(StochasticGrids(quantizer, *side.rows.shape) for side in (inner.users, inner.items)))
        self.rate, self.seed, self.num_roundings = rate, seed, 0

    def get_extra_state(self) -> dict:
        return {"num_roundings": self.num_roundings}

    def set_extra_state(self, state: dict) -> None:
        self.num_roundings = state["num_roundings"]

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        super().start_near(embeddings, rms)
        self.fit_grids()

    def fit_grids(self) -> None:
        super().fit_grids()
        self.on_step_end()

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        *rows, grids = super().param_groups(lr, weight_decay)
        return [*rows, grids | {"lr": lr * self.rate}]

    def on_step_end(self) -> None:
        self.num_roundings += 1
        rows = self.inner.users.rows.data, self.inner.items.rows.data
        generator = torch_stream(self.seed, f"rounding {self.num_roundings}", rows[0].device)
        for grids, own in zip((self.users, self.items), rows, strict=True):
            grids.round(own, generator)


@register_method("alpt")
class AdaptiveLowPrecisionTraining(Compressor):
    """The full model, trained as integers of 8, 4 or 2 bits with learned steps, in the formats of `int8`, `int4` and
    `int2` (Li et al., AAAI 2023, arXiv 2212.05735; from the abstract and the public programs).

    An embedding is its stored row: level times step (plus offset). A step of the optimiser moves it to w, which is then
    rounded stochastically on the new grid: to the level above with the probability that is its distance from the one
    below, in steps. What is too small to change a level so changes it now and then. Steps have the gradient of LSQ
    (Esser et al., ICLR 2020): the embedding's, times what rounding w to the nearest level adds to it per step. There is
    one training, from scratch.
    Parameters: (dim + 1) * (num_users + num_items) at 8 bits, dim + 2 instead of dim + 1 at 4 and 2. What it saves is
    bytes.

    Deviations: the gradient of steps is that of the next batch, w being kept for it (published: of a second pass over
    the same batch), and integers are held as the floats that they stand for. So this training needs more memory than
    the full model's, where the authors' needs less: it shows the recall, not what training saves. Steps are trained by
    their logarithms, without the published scaling of gradients, which Adam undoes; 4 and 2 bits have an offset; grids
    begin as those on which the first values are packed best.
    """

    label = "ALPT"
    has_budget = False
    has_start = True

    @dataclass(frozen=True)
    class Config(Bits):
        """rate : the part of the protocol's learning rate at which steps and offsets are trained."""

        bits: int = 8
        rate: float = setting(0.02, above=0)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> LowPrecisionTables:
        seed = int(rng.integers(2**31))
        return LowPrecisionTables(full_tables(train, budget.dim), self.config.quantizer, self.config.rate, seed)
