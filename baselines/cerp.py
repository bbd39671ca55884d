"""CERP: embeddings as sums of two rows, of which entries are pruned by thresholds that are learned with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baco.compressors.budget import Budget, split_rows
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner
from baco.embedding.codes import Assignment, Codes
from baco.embedding.cost import FLOAT_BYTES
from baco.embedding.rules import QuotientAndRemainder, Rule
from baco.embedding.tables import EmbeddingTables, FinalEmbeddings
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.registry import register_method
from baco.validation import setting
from baselines.hashing import ShareSides, bytes_of_hashes
from baselines.pep import MaskedTables, ThresholdedTables, learn_mask
from baselines.pruning import Selection, bitmap_bytes

SHARPNESS = 100.0  # eta of the regulariser, as in the authors' program: it acts on entries below about 0.02
HALVINGS = 10  # of the regulariser's weight in a training


class ComplementaryTables(ThresholdedTables):
    """Thresholded rows whose sums should have few zeros: what one row of an id has lost, the other should have.

    To the loss of each step is added -gamma |tanh(eta E(x))|^2, the mean over all ids. The weight gamma halves ten
    times until the training ends.
    """

    def __init__(self, assignment: Assignment, dim: int, most: int, ramp: int, gamma: float):
        super().__init__(assignment, dim, most, ramp, scaled=True)
        self.gamma = self.first_gamma = gamma

    def auxiliary_loss(self) -> Tensor | None:
        if self.first_gamma == 0:
            return None
        return -self.gamma * torch.tanh(SHARPNESS * torch.cat(self())).square().sum(1).mean()

    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> None:
        super().on_epoch_end(epoch, final_embeddings)
        self.gamma = self.first_gamma * 2 ** (-HALVINGS * (epoch + 1) / self.ramp)


@register_method("cerp")
class Cerp(Compressor):
    """Compositional embedding with regularised pruning (CERP: Liang et al., ICDM 2023, arXiv 2309.03518).

    Two codebooks P and Q of b rows: E(x) = P[h(x) mod b] + Q[h(x) div (n / b)], for n ids (`QuotientAndRemainder`).
    Their entries are pruned by learned thresholds as in `pep`, with a regulariser that makes the two masks complement
    each other (`ComplementaryTables`); then the entries that are left are trained again from their first values.
    Parameters: these, and num_users + num_items second codes.

    Deviations: those of `pep`; each side has codebooks of its own unless `share_sides` is set, which is published; a
    seeded affine map permutes ids (published: h(x) = x), and the ids of Q's rows differ by one at most in number, so
    that all rows are in use; the budget pays for second codes; b is what makes the budget the part 1 - sparsity of all
    codebooks (published: chosen by hand); the regulariser is the mean over all ids (published: the sum over those of
    the batch, with the weight 1), and halves with the length of the training (published: with each epoch).
    """

    label = "CERP"
    has_start = True

    @dataclass(frozen=True)
    class Config(ShareSides):
        """Settings.

        Attributes
        ----------
        sparsity : float
            The part of the codebooks' entries that is pruned; 0: none. Where codebooks would have more rows than there
            are ids, it is less.
        gamma : float
            The first weight of the regulariser, which begins about as large as the loss with the default.
        share_sides : bool
            Whether users and items have the same codebooks.
        """

        sparsity: float = setting(0.5, at_least=0, below=1)
        gamma: float = setting(0.01, at_least=0)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> MaskedTables:
        share, sizes = self.config.share_sides, (train.num_users, train.num_items)
        pairs = self._pairs_of_rows(budget, train.num_nodes)
        if share:
            rules: list[Rule] = [*QuotientAndRemainder.draw(1, *sizes, rng)]
            split = pairs, pairs
        else:
            rules = [QuotientAndRemainder.draw_own(size, rng) for size in sizes]
            split = split_rows(pairs, *sizes)
        ones = np.ones(2, np.float32)
        users, items = (
            Codes.from_rule(rule, size, 2 * own, ones) for rule, size, own in zip(rules, sizes, split, strict=True)
        )
        return MaskedTables(Assignment(users, items, shared=share), budget, Selection("both", 0), scaled=True)

    def _pairs_of_rows(self, budget: Budget, num_ids: int) -> int:
        """b, of both sides together."""
        row, left = (1 - self.config.sparsity) * budget.dim, budget.limit - num_ids
        if budget.unit == "bytes":  # a row has its values, most often a bitmap, and a byte that tells so
            row = FLOAT_BYTES * row + bitmap_bytes(budget.dim) + 1
            left = budget.limit - bytes_of_hashes(1, share_sides=True)
        pairs = int(left / (2 * row))
        if pairs < 2:
            raise UserError(
                f"the budget of {budget.limit:,} {budget.unit} buys cerp, beside second codes, less than two pairs of "
                "rows; raise the budget"
            )
        return min(pairs, num_ids)

    def search(self, tables: EmbeddingTables, runner: Runner) -> MaskedTables:
        assert isinstance(tables, MaskedTables)  # those of `fit`
        dim, most, gamma = tables.budget.dim, tables.most, self.config.gamma
        return learn_mask(tables, ComplementaryTables(tables.assignment, dim, most, runner.max_epochs, gamma), runner)
