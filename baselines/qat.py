"""The full model, trained on as the integers that its rows will be stored in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import SIDES
from baco.embedding.cost import Ledger
from baco.embedding.quantized import QuantizedTables
from baco.embedding.rounding import UniformQuantizer
from baco.embedding.tables import EmbeddingTables
from baco.errors import SettingError
from baco.graph import Biadjacency
from baco.registry import register_method
from baco.validation import Validated, setting
from baselines.full import full_tables, trained_full
from baselines.integers import Int2, Int4, Int8

QUANTIZERS = {method.quantizer.bits: method.quantizer for method in (Int8, Int4, Int2)}
SMALLEST_STEP = 2.0**-14  # float16 has no smaller normal numbers


class Grids(nn.Module):
    """A grid for each row of one side: levels at a step and, unless they are centred at zero, from an offset.

    What is trained is the logarithm of the step, which Adam then changes in proportion, and the offset. Both act
    rounded to float16, as they are stored.
    """

    def __init__(self, quantizer: UniformQuantizer, num_rows: int):
        super().__init__()
        self.quantizer = quantizer
        self.log_steps = nn.Parameter(torch.zeros(num_rows, 1))
        self.offsets = None if quantizer.symmetric else nn.Parameter(torch.zeros(num_rows, 1))

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Take the grids on which the quantizer packs (n, dim) rows."""
        packed = self.quantizer.pack(rows.cpu().numpy(), np.random.default_rng(0))
        steps = torch.from_numpy(packed["scale"].astype(np.float32)[:, None])
        self.log_steps.copy_(steps.clamp_min(SMALLEST_STEP).log())
        if self.offsets is not None:
            self.offsets.copy_(torch.from_numpy(packed["offset"].astype(np.float32)[:, None]))

    def forward(self, rows: Tensor, ids: Tensor | None = None) -> Tensor:
        """(n, dim): the points of the grids, of all rows or of some ids', that are nearest to the rows.

        Their gradient is that of rows within a grid's range; of the step, of how far rounding and clipping go.
        """
        places, steps, first = self._places(rows, ids)
        return self._points(places.detach().round() + (places - places.detach()), steps, first)

    @torch.no_grad()
    def packed(self, rows: Tensor) -> dict[str, np.ndarray]:
        """What stands for `forward` of all rows."""
        places, steps, first = (part.cpu().numpy() for part in self._places(rows, None))
        return self.quantizer.pack_levels(places.round(), steps[:, 0], first[:, 0])

    def _points(self, levels: Tensor, steps: Tensor, first: Tensor) -> Tensor:
        """(n, dim): what levels stand for, as `unpack` of the quantizer has it."""
        return (levels - self.quantizer.top // 2) * steps if self.offsets is None else levels * steps + first

    def _places(self, rows: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(n, dim) places of the rows on their grids, between levels; (n, 1) steps, and where the first levels are."""
        log_steps = self.log_steps if ids is None else self.log_steps[ids]
        steps = as_half(log_steps.exp().clamp_min(SMALLEST_STEP))
        if self.offsets is None:
            first = -steps * (self.quantizer.top // 2)
        else:
            first = as_half(self.offsets if ids is None else self.offsets[ids])
        return ((rows - first) / steps).clamp(0, self.quantizer.top), steps, first


def as_half(values: Tensor) -> Tensor:
    """Float32 values rounded to float16, with the gradient of the values."""
    return values.detach().half().float() + (values - values.detach())


class GridTables(QuantizedTables):
    """The full model's tables, with grids that are trained and that the rows are packed on.

    Parameters
    ----------
    inner : CodebookTables
        A row for each id.
    users, items : Grids
        Of each side.
    """

    inner: CodebookTables

    def __init__(self, inner: CodebookTables, users: Grids, items: Grids):
        super().__init__(inner, users.quantizer, seed=0)
        self.users, self.items = users, items

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users(self.inner.users.rows), self.items(self.inner.items.rows)

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return getattr(self, side)(self.inner.lookup(side, ids), ids)

    def shared_rows(self) -> tuple[Tensor, ...]:
        return self()

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        super().reset_parameters(std, generator)
        self.fit_grids()

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """Those of the rows, and last that of the grids."""
        grids = [*self.users.parameters(), *self.items.parameters()]
        return [*super().param_groups(lr, weight_decay), {"params": grids, "lr": lr, "weight_decay": 0.0}]

    def ledger(self) -> Ledger:
        ledger = super().ledger()
        floats = sum(value.numel() for grids in (self.users, self.items) for value in grids.state_dict().values())
        return replace(ledger, training_floats=ledger.training_floats + floats)

    def fit_grids(self) -> None:
        """Choose grids that suit the rows as they are."""
        self.users.fit(self.inner.users.rows.detach())
        self.items.fit(self.inner.items.rows.detach())

    def _pack(self, arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        return {f"{side}/rows": getattr(self, side).packed(getattr(self.inner, side).rows) for side in SIDES}


class QuantizationAwareTables(GridTables):
    """Tables whose embeddings are those of the packed rows while these are trained, too.

    Parameters
    ----------
    inner : CodebookTables
    quantizer : UniformQuantizer
    rate : float
        The part of the protocol's learning rate at which rows and grids are trained.
    """

    def __init__(self, inner: CodebookTables, quantizer: UniformQuantizer, rate: float):
        super().__init__(inner, *(Grids(quantizer, len(side.rows)) for side in (inner.users, inner.items)))
        self.rate = rate

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return super().param_groups(lr * self.rate, weight_decay)

    def take_over(self, full: CodebookTables) -> None:
        """Start from the rows of a trained full model, on the grids on which they are packed best."""
        self.inner.load_state_dict(full.state_dict())
        self.fit_grids()
        self.learned = True


@dataclass(frozen=True)
class Bits(Validated):
    """bits : of an entry, 8, 4 or 2."""

    bits: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in QUANTIZERS:
            raise SettingError("bits", self.bits, "must be 8, 4 or 2")

    @property
    def quantizer(self) -> UniformQuantizer:
        """That of `int8`, `int4` or `int2`."""
        return QUANTIZERS[self.bits]


@register_method("qat")
class QuantizationAwareTraining(Compressor):
    """The full model, trained on as integers of 8, 4 or 2 bits with learned steps, in the formats of `int8`, `int4` and
    `int2` (LSQ: Esser et al., ICLR 2020, arXiv 1902.08153; a step per row of an embedding table: Li et al., AAAI 2023,
    arXiv 2212.05735).

    With levels q = clip(round((x - offset) / step)) of a float32 row x, an embedding is step q + offset. Rounding has
    the gradient of the identity (straight through), so that x, step and offset are all trained. As in LSQ, this is a
    second training, of the same length, that starts from the trained model as `int8`, `int4` or `int2` would pack it.
    Parameters: (dim + 1) * (num_users + num_items) at 8 bits, dim + 2 instead of dim + 1 at 4 and 2. What it saves is
    bytes; training needs the memory of the full model and more.

    Deviations: steps are trained by their logarithms, and the published scaling of their gradients, which Adam undoes,
    is left out; 4 and 2 bits have an offset; rows are kept in float32 while they train (Li et al. hold integers and
    train from scratch: `alpt`).
    """

    label = "QAT"
    has_budget = False
    has_start = True

    @dataclass(frozen=True)
    class Config(Bits):
        """rate : the part of the protocol's learning rate at which the second training goes."""

        rate: float = setting(0.1, above=0)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> QuantizationAwareTables:
        inner = full_tables(train, budget.dim)
        return QuantizationAwareTables(inner, self.config.quantizer, self.config.rate)

    def search(self, tables: EmbeddingTables, runner: Runner) -> EmbeddingTables:
        """Train the full model, and let the tables that `fit` has made go on from it."""
        assert isinstance(tables, QuantizationAwareTables)  # those of `fit`
        full, _ = trained_full(runner, tables.inner.users.rows.shape[1])
        tables.take_over(full)
        return tables
