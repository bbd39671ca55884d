"""Magnitude pruning: tables of which only the largest weights are kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment
from baco.embedding.cost import FLOAT_BYTES, Ledger, code_ledger
from baco.embedding.tables import Embeddings, EmbeddingTables, FinalEmbeddings
from baco.errors import SettingError, UserError
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.registry import register_method, register_tables
from baco.validation import Validated, setting
from baselines.sizes import LARGEST_DIM


@dataclass(frozen=True)
class Selection:
    """Which weights are kept.

    Attributes
    ----------
    scope : str
        'both': the largest of users and items together; 'side': of each side, in proportion to its rows.
    protect : int
        The largest weights of each row that are kept whatever they are.
    """

    scope: str
    protect: int

    def keep(self, sides: Sequence[Tensor], count: int) -> Tensor:
        """(rows of all, dim) bool with `count` true entries, from the (rows, dim) weights of the codebooks."""
        if self.scope == "both":
            return self._keep(torch.cat([*sides]), count)
        users = round(count * len(sides[0]) / sum(map(len, sides)))
        return torch.cat([self._keep(side, part) for side, part in zip(sides, (users, count - users), strict=True)])

    def _keep(self, weights: Tensor, count: int) -> Tensor:
        priority = weights.abs()
        if self.protect:
            priority.scatter_(1, priority.topk(self.protect).indices, torch.inf)
        kept = torch.zeros(weights.numel(), dtype=torch.bool, device=weights.device)
        kept[priority.flatten().topk(count, sorted=False).indices] = True
        return kept.view_as(weights)


def cubic(epoch: int, ramp: int, size: int, most: int) -> int:
    """How many of `size` entries are left after an epoch, counted from 0, of `ramp` that prune them to `most`.

    The schedule of Zhu and Gupta: much goes at first, little when little is left.
    """
    return most + round((1 - min(1, (epoch + 1) / ramp)) ** 3 * (size - most))


@register_tables("PrunedTables")
class PrunedTables(CodebookTables):
    """Codebooks of which some entries are zero and are not stored. Parameters: the other entries, and extra codes.

    A server stores the values, and for each row the cheaper of a bitmap and one byte per position, with one byte that
    tells which.

    The entries that `ledger` and `export` speak of are those that fit the budget; all others are zero before training,
    and after it. `densify` lets all live again, for a training that prunes them.

    Parameters
    ----------
    assignment : Assignment
        A row for every id, but for methods that share rows.
    budget : Budget
    selection : Selection
    scaled : bool
        As in `CodebookTables`.

    Raises
    ------
    UserError
        When the budget is below what is protected, or the rows are too wide for positions of one byte.
    """

    kept: Tensor
    inherits = False

    def __init__(self, assignment: Assignment, budget: Budget, selection: Selection, scaled: bool = False):
        super().__init__(assignment, budget.dim, scaled)
        num_rows = sum(assignment.rows_of_codebooks)
        if budget.dim > LARGEST_DIM:
            raise UserError(f"dim={budget.dim} is more than {LARGEST_DIM}, the positions that one byte can tell")
        self.least = max(1, selection.protect * num_rows)  # entries that are kept
        self.cost_of_codes = code_ledger(assignment, 0)
        limit = budget.limit - budget.amount(self.cost_of_codes)
        cost = self.least
        if budget.unit == "bytes":
            protect = min(selection.protect, bitmap_bytes(budget.dim))
            listed = self.least if protect == 0 else num_rows * protect
            cost = FLOAT_BYTES * self.least + num_rows + listed
        if limit < cost:
            least = cost + budget.amount(self.cost_of_codes)
            raise UserError(
                f"the budget of {budget.limit:,} {budget.unit} is below the least that this method needs, {least:,}; "
                "raise the budget or lower protect"
            )
        affordable = (limit - num_rows) // FLOAT_BYTES if budget.unit == "bytes" else limit
        self.most = min(affordable, num_rows * budget.dim)  # with bytes, positions leave room for fewer
        self.budget, self.selection = budget, selection
        self.register_buffer("kept", torch.ones(num_rows, budget.dim, dtype=torch.bool))
        self.finished = True  # kept has its final size
        self.ramp: int | None = None
        self._prune(self._fitting())  # of equal weights: which ones does not matter yet

    def densify(self, ramp: int | None) -> None:
        """Keep all entries until pruned again: in `ramp` epochs, or (None) when the training has ended."""
        self.kept.fill_(True)
        self.finished, self.ramp = False, ramp

    def get_extra_state(self) -> dict:
        return {"finished": self.finished}

    def set_extra_state(self, state: dict) -> None:
        self.finished = state["finished"]

    @property
    def sides(self) -> list[Tensor]:
        """The weights of each codebook, without their gradient."""
        return [rows.detach() for rows in self.rows_of_codebooks()]

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        super().reset_parameters(std, generator)
        if self.finished:
            self._prune(self._fitting())

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        """The whole tables start there, of which what is pruned stays zero."""
        super().start_near(embeddings, rms)
        self.on_step_end()

    def selectable(self) -> bool:
        return self.finished or self.ramp is None

    def on_step_end(self) -> None:
        sides = self.sides
        for rows, kept in zip(sides, self.kept.split([len(rows) for rows in sides]), strict=True):
            rows.mul_(kept)

    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> None:
        """Prune along the cubic schedule."""
        if not self.finished and self.ramp is not None:
            if epoch + 1 >= self.ramp:
                self.on_training_end()
            else:
                self._prune(self.selection.keep(self.sides, cubic(epoch, self.ramp, self.kept.numel(), self.most)))

    def on_training_end(self) -> None:
        kept, self.finished = self.stored(), True
        self._prune(kept)

    def keep_largest(self, priorities: list[Tensor]) -> None:
        """Prune to the budget by the (rows, dim) priorities of the codebooks, none negative, not by the weights."""
        self._prune(self._fitting(priorities))
        self.finished = True

    def _prune(self, kept: Tensor) -> None:
        self.kept.copy_(kept)
        self.on_step_end()

    def _fitting(self, priorities: list[Tensor] | None = None) -> Tensor:
        """(rows of all, dim) bool: the most entries that the budget can hold, largest weights first."""
        sides, count = priorities or self.sides, self.most
        if self.budget.unit == "bytes":
            counts = range(self.least, self.most + 1)
            limit = self.budget.limit - self.cost_of_codes.bytes
            fits = bisect_right(counts, limit, key=lambda n: _bytes(self.selection.keep(sides, n)))
            count = counts[fits - 1]
        return self.selection.keep(sides, count)

    def stored(self) -> Tensor:
        """(rows of all, dim) bool: the entries that a server gets."""
        return self.kept if self.finished else self._fitting()

    def ledger(self) -> Ledger:
        stored = self.stored()
        return replace(
            self.cost_of_codes,
            parameters=int(stored.sum()) + self.cost_of_codes.parameters,
            bytes=_bytes(stored) + self.cost_of_codes.bytes,
            training_floats=stored.numel(),
        )

    def quantizable(self) -> dict[str, nn.Parameter]:
        return {}

    def export(self) -> dict[str, np.ndarray]:
        stored, rows = self.stored().cpu().numpy(), torch.cat(self.sides).cpu().numpy()
        layout = np.minimum(stored.sum(1), bitmap_bytes(self.budget.dim)).astype(np.uint8)
        listed = layout < bitmap_bytes(self.budget.dim)
        header, arrays = self.assignment.pack()
        return arrays | {
            "header": json_array(header | {"dim": self.budget.dim}),
            "layout": layout,  # of each row: so many positions, or a bitmap where those would not be shorter
            "positions": np.nonzero(stored[listed])[1].astype(np.uint8),
            "bitmaps": np.packbits(stored[~listed], axis=1),
            "values": rows[stored],
        }

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> PrunedTables:
        """The tables whose `export` these arrays are; their budget is what they hold."""
        header, layout, values = from_json_array(arrays["header"]), arrays["layout"], arrays["values"]
        dim = header["dim"]
        if "num_users" in header:  # an export from before rows could be shared
            assignment = Assignment.of_own_rows(header["num_users"], len(layout) - header["num_users"])
        else:
            assignment = Assignment.unpack(header, arrays)
        kept = np.zeros((len(layout), dim), np.bool_)
        listed = layout < bitmap_bytes(dim)
        kept[np.repeat(np.flatnonzero(listed), layout[listed]), arrays["positions"]] = True
        kept[~listed] = np.unpackbits(arrays["bitmaps"], axis=1, count=dim)
        rows = np.zeros(kept.shape, np.float32)
        rows[kept] = values
        budget = Budget(len(values) + code_ledger(assignment, 0).parameters, "parameters", dim)
        tables = cls(assignment, budget, Selection("both", 0))
        sides = tables.sides
        for side, part in zip(sides, torch.as_tensor(rows).split([len(side) for side in sides]), strict=True):
            side.copy_(part)
        tables.kept.copy_(torch.as_tensor(kept))
        return tables


def bitmap_bytes(dim: int) -> int:
    """Bytes of a row's bitmap."""
    return -(-dim // 8)


def _bytes(stored: Tensor) -> int:
    """Bytes of tables with these (n, dim) entries: values, layout, and positions or bitmaps."""
    counts = stored.sum(1)
    return int(FLOAT_BYTES * counts.sum() + len(counts) + counts.clamp(max=bitmap_bytes(stored.shape[1])).sum())


@register_method("prune")
class Prune(Compressor):
    """Magnitude pruning: train all weights, keep the largest.

    Weights are pruned while the tables train, along a cubic schedule (Zhu and Gupta, 2017, arXiv 1710.01878), and those
    left are trained on. `schedule=once` prunes the trained tables and stops there; `protect` weights of each row are
    kept then, a number that Tran et al. (2024, arXiv 2406.17335) choose on validation. Parameters: the weights that are
    left, which fill the budget.

    No state counts as the best one before the budget is met. Training needs the memory of the full model.
    """

    label = "Magnitude pruning"
    has_start = True

    @dataclass(frozen=True)
    class Config(Validated):
        """Settings.

        Attributes
        ----------
        schedule : str
            'gradual', or 'once', after training.
        until : float
            The part of the epochs after which gradual pruning is done.
        scope : str
            'both': the largest of users and items together; 'side': of each side, in proportion to its rows.
        protect : int
            The largest weights of each row that are kept whatever they are.
        """

        schedule: str = setting("gradual", one_of=("gradual", "once"))
        until: float = setting(0.75, above=0, at_most=1)
        scope: str = setting("both", one_of=("both", "side"))
        protect: int = setting(0, at_least=0)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> PrunedTables:
        if self.config.protect > budget.dim:
            raise SettingError("protect", self.config.protect, f"is more than dim={budget.dim}; lower it")
        selection = Selection(self.config.scope, self.config.protect)
        return PrunedTables(Assignment.of_own_rows(train.num_users, train.num_items), budget, selection)

    def search(self, tables: EmbeddingTables, runner: Runner) -> PrunedTables:
        """Nothing is searched: the tables become dense again, and learn how long the training is."""
        assert isinstance(tables, PrunedTables)  # those of `fit`
        epochs = max(1, int(self.config.until * runner.max_epochs))
        tables.densify(epochs if self.config.schedule == "gradual" else None)
        return runner.initialize(tables)
