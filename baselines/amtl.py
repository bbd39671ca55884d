"""AMTL: embedding sizes by a learned function of the frequency."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import rankdata
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
PRICE_STEP = 0.1  # of the price, for each step in which sizes are over the budget by as much as it


class AdaptiveTables(CodebookTables):
    """The full model's rows, of which a mask keeps the first entries: as many as two networks say of the frequency.

    With features f of an id's frequency, the logits of its size are a h(f) + (1 - a) g(f): h is for frequent ids, and g
    for rare ones. The size k has the largest logit; gradients go through the softmax instead.

    Sizes over the budget have a price, which grows by their excess with each step and falls when they are below.

    Parameters
    ----------
    total : int
        What the sizes of all ids should sum to.
    epochs : int
        Of the training.
    """

    price: Tensor

    def __init__(self, train: Biadjacency, dim: int, total: int, epochs: int):
        super().__init__(Assignment.of_own_rows(train.num_users, train.num_items), dim)
        self.sizers = nn.ModuleList(Sizer(degrees, dim) for degrees in (train.user_degrees, train.item_degrees))
        self.register_buffer("price", torch.zeros(()))
        self.total, self.epochs = total, epochs
        self.finished = False

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        super().reset_parameters(std, generator)
        for sizer in self.sizers:
            sizer.reset_parameters(generator)

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
            {"params": list(self.sizers.parameters()), "lr": NETWORK_RATE * lr, "weight_decay": 0.0},
        ]

    def _excess(self) -> Tensor:
        """By how much the sizes are over the budget, in budgets."""
        return sum(sizer.total() for sizer in self.sizers) / self.total - 1

    def auxiliary_loss(self) -> Tensor:
        return self.price * self._excess()

    @torch.no_grad()
    def on_step_end(self) -> None:
        self.price.add_(PRICE_STEP * self._excess()).clamp_(min=0)

    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> None:
        self.finished = epoch + 1 >= self.epochs

    def selectable(self) -> bool:
        return self.finished

    @torch.no_grad()
    def sizes(self) -> np.ndarray:
        """(num_users + num_items,) of the networks, before they are made to fit the budget."""
        return torch.cat([sizer.masks().sum(1) for sizer in self.sizers]).cpu().numpy()


class Sizer(nn.Module):
    """The sizes of the ids of one side. What has the same frequency has the same size, so it works on frequencies."""

    features: Tensor
    of_frequent: Tensor
    counts: Tensor
    classes: Tensor

    def __init__(self, degrees: np.ndarray, dim: int):
        super().__init__()
        self.dim = dim
        distinct, classes, counts = np.unique(degrees, return_inverse=True, return_counts=True)
        logs = np.log1p(degrees)
        standardised = (np.log1p(distinct) - logs.mean()) / max(logs.std(), 1e-6)
        ranks = rankdata(distinct) / len(distinct)
        features = torch.as_tensor(np.stack([standardised, ranks], axis=1), dtype=torch.float32)
        self.register_buffer("features", features)  # (frequencies, 2)
        self.register_buffer("of_frequent", features[:, :1].sigmoid())  # a
        self.register_buffer("counts", torch.as_tensor(counts, dtype=torch.float32))  # ids of each frequency
        self.register_buffer("classes", torch.as_tensor(classes))  # (n,): which one
        self.frequent, self.rare = (
            nn.Sequential(
                nn.utils.skip_init(nn.Linear, 2, HIDDEN), nn.ReLU(), nn.utils.skip_init(nn.Linear, HIDDEN, dim)
            )
            for _ in range(2)
        )

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Networks of small random weights, whose largest size has half of the probability."""
        for network in (self.frequent, self.rare):
            for layer in (network[0], network[2]):
                shape = layer.weight.shape
                layer.weight.copy_(torch.randn(shape, generator=generator) / (10 * math.sqrt(shape[1])))
                layer.bias.zero_()
            network[2].bias[-1] = math.log(self.dim)

    def _chosen(self) -> Tensor:
        """(frequencies, dim) one at the size of each frequency; its gradient is that of the probabilities."""
        a = self.of_frequent
        probabilities = (a * self.frequent(self.features) + (1 - a) * self.rare(self.features)).softmax(1)
        hard = one_hot(probabilities.argmax(1), self.dim)
        return hard + probabilities - probabilities.detach()

    def masks(self, ids: Tensor | None = None) -> Tensor:
        """(n, dim), or (len(ids), dim) for some ids only: ones as far as the size goes, then zeros."""
        of_frequencies = self._chosen().flip(1).cumsum(1).flip(1)
        return embedding(self.classes if ids is None else self.classes[ids], of_frequencies)

    def total(self) -> Tensor:
        """The sum of the sizes of all ids."""
        sizes = torch.arange(1, self.dim + 1, dtype=torch.float32, device=self.counts.device)
        return self.counts @ (self._chosen() @ sizes)


@register_method("amtl")
class Amtl(Compressor):
    """Adaptively masked twins (AMTL: Yan et al., CIKM 2021, arXiv 2108.11513): sizes by a function of the frequency.

    Two networks learn the sizes while the full model trains (`AdaptiveTables`). These are then scaled by one factor to
    the budget, as in `power`, and the embeddings trained. Parameters: the budget, to the float.

    Re-derived from the abstract and summaries. Ours: the price of sizes, without which larger ones are always better;
    networks of one hidden layer for each side; a second training under the sizes (published: none).
    """

    label = "AMTL"
    has_start = True

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> SearchedTables:
        """Tables of one size for all, from which `search` takes what they cost."""
        total = affordable_size(budget, train.num_nodes)
        sizes = sizes_by_rank(train.joint_degrees, np.ones(train.num_nodes), total, budget.dim)
        return SearchedTables(*np.split(sizes, [train.num_users]), budget.dim)

    def search(self, tables: EmbeddingTables, runner: Runner) -> SearchedTables:
        assert isinstance(tables, SearchedTables)  # those of `fit`
        train, total = runner.train, len(tables.values)
        masked = runner.initialize(AdaptiveTables(train, tables.dim, total, runner.max_epochs))
        runner.fit(masked)
        shares = masked.sizes()
        sizes = assign_by_rank(allocate(shares, total, tables.dim), shares)
        return runner.initialize(SearchedTables(*np.split(sizes, [train.num_users]), tables.dim))
