"""PEP: embeddings pruned by thresholds that are learned with them, then trained again under the mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import SIDES, Assignment
from baco.embedding.cost import Ledger
from baco.embedding.tables import EmbeddingTables, FinalEmbeddings
from baco.graph import Biadjacency
from baco.registry import register_method
from baselines.pruning import PrunedTables, Selection, cubic

START = -15.0  # of the common part of the thresholds: they are 3e-7, as in the authors' program for one dataset


class ThresholdedTables(CodebookTables):
    """The full model's rows V, of whose entries the thresholds are subtracted: sign(V) relu(|V| - exp(s + c)).

    s, an entry for each of V's, is trained; c is common to all. After each epoch c rises until only as many entries are
    left as the schedule says, which ends with the budget.

    Parameters
    ----------
    most : int
        Entries that are left at the end.
    ramp : int
        Epochs until then.
    """

    common: Tensor
    inherits = False

    def __init__(self, num_users: int, num_items: int, dim: int, most: int, ramp: int):
        super().__init__(Assignment.of_own_rows(num_users, num_items), dim)
        self.own = nn.ParameterList(torch.zeros(size, dim) for size in (num_users, num_items))  # s
        self.register_buffer("common", torch.tensor(START))  # c
        self.most, self.ramp = most, ramp
        self.finished = False

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = (self._thresholded(rows, own) for rows, own in self._sides())
        return users, items

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        rows, own = self._sides()[SIDES.index(side)]
        return self._thresholded(embedding(ids, rows), embedding(ids, own))

    def shared_rows(self) -> tuple[Tensor, ...]:
        return self()

    def _sides(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.users.rows, self.own[0]), (self.items.rows, self.own[1])]

    def _thresholded(self, rows: Tensor, own: Tensor) -> Tensor:
        return rows.sign() * (rows.abs() - (own + self.common).exp()).relu()

    @torch.no_grad()
    def priorities(self) -> tuple[Tensor, Tensor]:
        """(n, dim) of each side: |V| / exp(s). An entry is not zero where it is above exp(c)."""
        users, items = (rows.abs() / own.exp() for rows, own in self._sides())
        return users, items

    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> None:
        priorities = torch.cat(self.priorities()).flatten()
        left = cubic(epoch, self.ramp, len(priorities), self.most)
        if left < len(priorities):
            largest_gone = priorities.topk(left + 1, sorted=False).values.min()
            self.common.copy_(self.common.maximum(largest_gone.log()))
        self.finished = epoch + 1 >= self.ramp

    def selectable(self) -> bool:
        return self.finished


class MaskedTables(PrunedTables):
    """Pruned tables whose mask comes from a training of twice as many floats, weights and thresholds."""

    def ledger(self) -> Ledger:
        return replace(super().ledger(), training_floats=2 * self.kept.numel())


@register_method("pep")
class Pep(Compressor):
    """Plug-in embedding pruning (PEP: Liu et al., ICLR 2021, arXiv 2101.07577).

    Each entry of the full model has a threshold, learned with it, below which it is zero (`ThresholdedTables`). When
    the budget holds, the tables start again from their first values and are trained under the mask. Parameters: the
    weights that are left, which fill the budget.

    Deviations: thresholds are exp(s), which is the authors' sigmoid as long as they are small and also reaches weights
    above 1. They rise together along the schedule of `prune`, so that the budget holds at the end of the first
    training, whatever its learning rate and length; in the authors' program they do so by the weight decay of s, under
    Adam by about the learning rate with each step, and the mask is that of the first epoch below the wanted size.
    """

    label = "PEP"
    has_start = True

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> MaskedTables:
        return MaskedTables(train.num_users, train.num_items, budget, Selection("both", 0))

    def search(self, tables: EmbeddingTables, runner: Runner) -> MaskedTables:
        """Learn the mask, and give it to the tables that `fit` has made, with the first values of that training."""
        assert isinstance(tables, MaskedTables)  # those of `fit`
        sizes = len(tables.users), len(tables.items)
        thresholded = ThresholdedTables(*sizes, tables.budget.dim, tables.most, runner.max_epochs)
        runner.fit(runner.initialize(thresholded))
        tables.densify(None)
        tables = runner.initialize(tables)
        tables.keep_largest(thresholded.priorities())
        return tables
