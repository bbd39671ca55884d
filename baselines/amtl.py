"""AMTL: embedding sizes by a learned function of the frequency."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, one_hot

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import SIDES, Assignment
from baco.embedding.tables import EmbeddingTables, FinalEmbeddings
from baco.graph import Biadjacency
from baco.registry import register_method
from baselines.sizes import affordable_size, allocate, assign_by_rank, sizes_by_rank
from baselines.support.size_search import SearchedTables

HIDDEN = 32
NETWORK_RATE = 0.1  # of the protocol's learning rate, which is one for rows
WINDOW = 4.0  # deviation of the sizes whose probabilities carry a gradient


class AdaptiveTables(CodebookTables):
    """The full model's rows, of which a mask keeps the first entries: as many as two networks say of the frequency.

    With features f of an id's frequency, its size is where a h(f) + (1 - a) g(f) says: h is for frequent ids, and g for
    rare ones. Gradients go through a softmax over all sizes (`Sizer`). The square of the part by which the sum of the
    sizes misses the budget is added to the loss.

    Parameters
    ----------
    total : int
        What the sizes of all ids should sum to.
    epochs : int
        Of the training.
    """

    inherits = False

    def __init__(self, train: Biadjacency, dim: int, total: int, epochs: int):
        super().__init__(Assignment.of_own_rows(train.num_users, train.num_items), dim)
        self.user_sizer, self.item_sizer = Sizer(train.user_degrees, dim), Sizer(train.item_degrees, dim)
        self.total, self.epochs = total, epochs
        self.finished = False

    @property
    def sizers(self) -> tuple[Sizer, Sizer]:
        return self.user_sizer, self.item_sizer

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        super().reset_parameters(std, generator)
        for sizer in self.sizers:
            sizer.reset_parameters(self.total / sum(len(sizer.classes) for sizer in self.sizers), generator)

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = (sizer.masks() for sizer in self.sizers)
        return self.users.rows * users, self.items.rows * items

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return super().lookup(side, ids) * self.sizers[SIDES.index(side)].masks(ids)

    def shared_rows(self) -> tuple[Tensor, ...]:
        return self()

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return [
            {"params": [self.users.rows, self.items.rows], "lr": lr, "weight_decay": weight_decay},
            *({"params": list(one.parameters()), "lr": NETWORK_RATE * lr, "weight_decay": 0.0} for one in self.sizers),
        ]

    def auxiliary_loss(self) -> Tensor:
        """Two-sided, so that no part of the budget is left."""
        users, items = (sizer.total() for sizer in self.sizers)
        return ((users + items) / self.total - 1).square()

    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> None:
        self.finished = epoch + 1 >= self.epochs

    def selectable(self) -> bool:
        return self.finished

    @torch.no_grad()
    def sizes(self) -> np.ndarray:
        """(num_users + num_items,) float32, before they are rounded and made to fit the budget."""
        return torch.cat([sizer.places()[sizer.classes] for sizer in self.sizers]).cpu().numpy()


class Sizer(nn.Module):
    """The sizes of the ids of one side. What has the same frequency has the same size, so it works on frequencies.

    The size k has the logit -(k - place)^2 / (2 WINDOW^2), so that the nearest one has the largest: a small step of the
    networks is a small step of the size.
    """

    features: Tensor
    of_frequent: Tensor
    counts: Tensor
    classes: Tensor
    candidates: Tensor

    def __init__(self, degrees: np.ndarray, dim: int):
        super().__init__()
        self.dim = dim
        distinct, classes, counts = np.unique(degrees, return_inverse=True, return_counts=True)
        logs = np.log1p(degrees)
        standardised = (np.log1p(distinct) - logs.mean()) / max(logs.std(), 1e-6)
        ranks = np.arange(1, len(distinct) + 1) / len(distinct)
        features = torch.as_tensor(np.stack([standardised, ranks], axis=1), dtype=torch.float32)
        self.register_buffer("features", features)  # (frequencies, 2)
        self.register_buffer("of_frequent", features[:, 0].sigmoid())  # a
        self.register_buffer("counts", torch.as_tensor(counts, dtype=torch.float32))  # ids of each frequency
        self.register_buffer("classes", torch.as_tensor(classes))  # (n,): which one
        self.register_buffer("candidates", torch.arange(1, dim + 1, dtype=torch.float32))
        self.frequent, self.rare = Network(), Network()

    def reset_parameters(self, size: float, generator: torch.Generator) -> None:
        """Networks of random weights, which give all ids about the same size."""
        part = min(max((size - 1) / max(1, self.dim - 1), 0.01), 0.99)
        first = math.log(part / (1 - part))
        for network in (self.frequent, self.rare):
            network.reset_parameters(first, generator)

    def places(self) -> Tensor:
        """(frequencies,) in (1, dim)."""
        a = self.of_frequent
        outputs = a * self.frequent(self.features) + (1 - a) * self.rare(self.features)
        return 1 + (self.dim - 1) * outputs.sigmoid()

    def masks(self, ids: Tensor | None = None) -> Tensor:
        """(n, dim), or (len(ids), dim) for some ids only: ones as far as the size goes, then zeros.

        Their gradient is that of the probability of a size as large.
        """
        logits = -(self.candidates - self.places()[:, None]).square() / (2 * WINDOW**2)
        probabilities = logits.softmax(1)
        chosen = one_hot(logits.argmax(1), self.dim) + probabilities - probabilities.detach()
        of_frequencies = chosen.flip(1).cumsum(1).flip(1)
        return embedding(self.classes if ids is None else self.classes[ids], of_frequencies)

    def total(self) -> Tensor:
        """The sum of the sizes of all ids, before they are rounded."""
        return self.counts @ self.places()


class Network(nn.Module):
    """From (m, 2) features to (m,) numbers, by a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.hidden_bias = nn.Parameter(torch.zeros(2, HIDDEN)), nn.Parameter(torch.zeros(HIDDEN))
        self.last, self.last_bias = nn.Parameter(torch.zeros(HIDDEN)), nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        return (features @ self.hidden + self.hidden_bias).relu() @ self.last + self.last_bias

    def reset_parameters(self, first: float, generator: torch.Generator) -> None:
        """Random weights, whose numbers are all about the first one."""
        for weights, deviation in ((self.hidden, 0.7), (self.last, 0.02)):
            weights.copy_(torch.randn(weights.shape, generator=generator) * deviation)
        self.hidden_bias.zero_()
        self.last_bias.fill_(first)


@register_method("amtl")
class Amtl(Compressor):
    """Adaptively masked twins (AMTL: Yan et al., CIKM 2021, arXiv 2108.11513): sizes by a function of the frequency.

    Two networks learn the sizes while the full model trains (`AdaptiveTables`). These are then scaled by one factor to
    the budget, as in `power`, and the embeddings trained. Parameters: the budget, to the float.

    Re-derived from the abstract and summaries. Ours: the term of the budget, without which larger sizes are always
    better; networks of one hidden layer for each side, which give the place of the largest logit (published: all
    logits, which on Beauty with that term fell to the size 1 for all ids at once); a second training under the sizes
    (published: none).
    """

    label = "AMTL"
    has_start = True

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> SearchedTables:
        """Tables of one size for all, from which `search` takes what they cost."""
        total = affordable_size(budget, train.num_nodes)
        sizes = sizes_by_rank(train.joint_degrees, np.ones(train.num_nodes), total, budget.dim)
        return SearchedTables.from_joint_sizes(sizes, train.num_users, budget.dim)

    def search(self, tables: EmbeddingTables, runner: Runner) -> SearchedTables:
        assert isinstance(tables, SearchedTables)  # those of `fit`
        train, total = runner.train, len(tables.values)
        masked = runner.initialize(AdaptiveTables(train, tables.dim, total, runner.max_epochs))
        runner.fit(masked)
        shares = masked.sizes()
        sizes = assign_by_rank(allocate(shares, total, tables.dim), shares)
        return runner.initialize(SearchedTables.from_joint_sizes(sizes, train.num_users, tables.dim))
