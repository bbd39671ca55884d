"""PEP: embeddings pruned by thresholds that are learned with them, then trained again under the mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment
from baco.embedding.cost import Ledger
from baco.embedding.tables import EmbeddingTables, FinalEmbeddings
from baco.graph import Biadjacency
from baco.registry import register_method
from baselines.pruning import PrunedTables, Selection, cubic

START = -15.0  # of the common part of the thresholds: they are 3e-7, as in the authors' program for one dataset


class ThresholdedTables(CodebookTables):
    """Codebooks V, of whose entries the thresholds are subtracted: sign(V) relu(|V| - exp(s + c)).

    s, an entry for each of V's, is trained; c is common to all. After each epoch c rises until only as many entries are
    left as the schedule says, which ends with the budget.

    Parameters
    ----------
    assignment, dim, scaled : as in `CodebookTables`
    most : int
        Entries that are left at the end.
    ramp : int
        Epochs until then.
    """

    common: Tensor
    inherits = False

    def __init__(self, assignment: Assignment, dim: int, most: int, ramp: int, scaled: bool = False):
        super().__init__(assignment, dim, scaled)
        self.own = nn.ParameterList(torch.zeros_like(rows) for rows in self.rows_of_codebooks())  # s
        self.register_buffer("common", torch.tensor(START))  # c
        self.most, self.ramp = most, ramp
        self.finished = False

    def shared_rows(self) -> tuple[Tensor, ...]:
        return tuple(
            rows.sign() * (rows.abs() - (own + self.common).exp()).relu()
            for rows, own in zip(self.rows_of_codebooks(), self.own, strict=True)
        )

    @torch.no_grad()
    def priorities(self) -> list[Tensor]:
        """(rows, dim) of each codebook: |V| / exp(s). An entry is not zero where it is above exp(c)."""
        return [rows.abs() / own.exp() for rows, own in zip(self.rows_of_codebooks(), self.own, strict=True)]

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


def learn_mask(tables: EmbeddingTables, thresholded: ThresholdedTables, runner: Runner) -> MaskedTables:
    """Train `thresholded`, and let the tables that `fit` has made start again as it did, but for what it has lost."""
    assert isinstance(tables, MaskedTables)
    runner.fit(runner.initialize(thresholded))
    tables.densify(None)
    tables = runner.initialize(tables)
    tables.keep_largest(thresholded.priorities())
    return tables


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
        return MaskedTables(Assignment.of_own_rows(train.num_users, train.num_items), budget, Selection("both", 0))

    def search(self, tables: EmbeddingTables, runner: Runner) -> MaskedTables:
        assert isinstance(tables, MaskedTables)  # those of `fit`
        dim, most = tables.budget.dim, tables.most
        return learn_mask(tables, ThresholdedTables(tables.assignment, dim, most, runner.max_epochs), runner)
