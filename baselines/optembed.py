"""OptEmbed: ids without an embedding by learned thresholds, and sizes of groups of ids, chosen on one supernet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment
from baco.embedding.tables import EmbeddingTables, FinalEmbeddings
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.registry import register_method
from baco.rng import stream
from baco.validation import Validated, setting
from baselines.sizes import LARGEST_DIM, affordable_size, allocate, assign_by_rank, groups_by_rank, sizes_by_rank
from baselines.support.size_search import SearchedTables, score

log = logging.getLogger(__name__)

THRESHOLD_RATE = 0.01  # of the protocol's learning rate, which is one for entries a few times as large
MUTATION = 0.1  # the part of a genome's numbers that a mutation draws anew, as published


class Step(torch.autograd.Function):
    """1 where x is positive, else 0, with the gradient of the authors' long-tailed estimator.

    That is 2 - 4 |x| for |x| up to 0.4, then 0.4 for |x| up to 1, then 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (distance,) = (x.abs() for x in ctx.saved_tensors)
        slope = (2 - 4 * distance).clamp(min=0.4)
        return gradient * slope * (distance <= 1)


class Supernet(CodebookTables):
    """The full model's rows V while they learn to be cut to any size.

    In each step an id has the first k entries of its row, with k uniform in 1..dim and drawn anew for each id, and none
    where the mean |V| of the row is below the threshold t of its side. For both sides, alpha exp(-t) is added to the
    loss.

    Parameters
    ----------
    epochs : int
        Of the training, in the end of which sizes are whole.
    rng : numpy.random.Generator
        Draws the sizes.
    """

    sizes: Tensor

    def __init__(self, train: Biadjacency, dim: int, alpha: float, epochs: int, rng: np.random.Generator):
        super().__init__(Assignment.of_own_rows(train.num_users, train.num_items), dim)
        self.dim, self.alpha, self.epochs, self.rng = dim, alpha, epochs, rng
        self.thresholds = nn.Parameter(torch.zeros(2))  # t
        self.register_buffer("sizes", torch.empty(train.num_nodes, 1, dtype=torch.int32))
        self.on_step_end()
        self.finished = False

    def shared_rows(self) -> tuple[Tensor, ...]:
        columns = torch.arange(self.dim, device=self.sizes.device)
        sides = self.rows_of_codebooks()
        sizes = self.sizes.split([len(rows) for rows in sides])
        return tuple(
            rows * Step.apply(norms(rows) - threshold) * (columns < size)
            for rows, threshold, size in zip(sides, self.thresholds, sizes, strict=True)
        )

    def auxiliary_loss(self) -> Tensor:
        return self.alpha * (-self.thresholds).exp().sum()

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return [
            {"params": self.rows_of_codebooks(), "lr": lr, "weight_decay": weight_decay},
            {"params": [self.thresholds], "lr": THRESHOLD_RATE * lr, "weight_decay": 0.0},
        ]

    def on_step_end(self) -> None:
        self.sizes.copy_(torch.as_tensor(self.rng.integers(1, self.dim + 1, self.sizes.shape)))

    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> None:
        self.finished = epoch + 1 >= self.epochs
        if self.finished:
            self.sizes.fill_(self.dim)

    def selectable(self) -> bool:
        return self.finished


def norms(rows: Tensor) -> Tensor:
    """(n, 1): the mean |V| of each row; the published norm, the sum, depends on the width."""
    return rows.abs().mean(1, keepdim=True)


class Genomes:
    """What evolution works on: for each side a number of (0, 1) for the threshold, and one for each group of ids.

    A side's ids stand in groups of equal number by their frequency. The threshold is that part of the learned one; ids
    below it have no embedding. The sizes of all others are in proportion to the numbers of their groups, as far as
    1..largest allows, and spend the budget exactly.

    Parameters
    ----------
    supernet : Supernet
        Trained.
    total : int
        Sum of all sizes.
    groups : int
        Of each side.
    """

    def __init__(self, supernet: Supernet, train: Biadjacency, total: int, groups: int):
        self.total, self.largest, self.groups = total, supernet.dim, groups
        with torch.no_grad():
            self.norms = [norms(rows)[:, 0].cpu().numpy() for rows in supernet.rows_of_codebooks()]
        self.thresholds = supernet.thresholds.detach().cpu().numpy()
        degrees = train.user_degrees, train.item_degrees
        self.members = [assign_by_rank(groups_by_rank(len(side), groups), side) for side in degrees]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(2, 1 + groups)."""
        return 1 - rng.random((2, 1 + self.groups))

    def sizes(self, genome: np.ndarray) -> np.ndarray:
        """(num_users + num_items,) int64, 0 for ids without an embedding."""
        margins = [
            norm - part * max(threshold, 0)
            for norm, threshold, part in zip(self.norms, self.thresholds, genome[:, 0], strict=True)
        ]
        for margin in margins:
            margin[margin.argmax()] = np.inf  # a side is never without embeddings
        joint = np.concatenate(margins)
        least = max(2, -(-self.total // self.largest))  # ids, which the budget takes to be spent
        kept = np.sort(np.argsort(-joint, kind="stable")[: max(least, np.count_nonzero(joint > 0))])
        shares = np.concatenate([side[1:][members] for side, members in zip(genome, self.members, strict=True)])[kept]
        sizes = np.zeros(len(joint), np.int64)
        sizes[kept] = assign_by_rank(allocate(shares, self.total, self.largest), shares)
        return sizes


def evolve(
    fitness: Callable[[np.ndarray], float],
    draw: Callable[[], np.ndarray],
    population: int,
    generations: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """The fittest genome of all that were tried, and its fitness.

    The first generation is drawn. Half of each other are mutations, half crossings, of the better half of all so far.
    """
    tried: list[tuple[float, np.ndarray]] = []
    born = [draw() for _ in range(population)]
    for _ in range(generations):
        tried = sorted([*tried, *((fitness(genome), genome) for genome in born)], key=lambda one: one[0], reverse=True)
        tried = tried[: -(-population // 2)]
        parents = [genome for _, genome in tried]
        born = [crossed(parents, rng) if child % 2 else mutated(parents, draw, rng) for child in range(population)]
    return parents[0], tried[0][0]


def mutated(parents: list[np.ndarray], draw: Callable[[], np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A parent of which some numbers are drawn anew."""
    genome, other = parents[rng.integers(len(parents))], draw()
    return np.where(rng.random(genome.shape) < MUTATION, other, genome)


def crossed(parents: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The first numbers of a parent and the last ones of another."""
    first, second = (parents[place] for place in rng.integers(len(parents), size=2))
    last = np.arange(first.size) >= rng.integers(1, first.size)
    return np.where(last.reshape(first.shape), second, first)


@register_method("optembed")
class OptEmbed(Compressor):
    """OptEmbed (Lyu et al., CIKM 2022, arXiv 2208.04482): which ids have an embedding, and how long it is.

    A supernet learns thresholds and rows that can be cut (`Supernet`). On it, without more training, evolution searches
    for sizes (`Genomes`) by their validation score, the mean of recall and NDCG at 5, 10 and 20. The embeddings of the
    best sizes are trained. Parameters: the budget, to the float.

    Deviations: it is made for click-through rates, with a size for each field; users and items would be two, so groups
    of ids by frequency are the fields here (`groups=1`: two). Sizes are scaled to the budget (published: there is
    none). The search may lower the learned thresholds, since under a cosine score the loss of MF does not hold them
    back. Norms are means, so that the estimator suits all widths. Parents are the best of all generations (published:
    of the last). The last training starts from new values (published: those of the supernet).
    """

    label = "OptEmbed"
    has_start = True

    @dataclass(frozen=True)
    class Config(Validated):
        """Settings.

        Attributes
        ----------
        population, generations : int
            How many sizes are tried in each generation, and how many generations there are.
        groups : int
            Groups of ids of each side.
        alpha : float
            The weight of the term that raises thresholds.
        """

        population: int = setting(20, at_least=2)
        generations: int = setting(20, at_least=1)
        groups: int = setting(8, at_least=1)
        alpha: float = setting(1e-4, at_least=0)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> SearchedTables:
        """Tables of one size for all, from which `search` takes what they cost."""
        if budget.dim >= LARGEST_DIM:
            raise UserError(f"dim={budget.dim}: a byte tells a size below {LARGEST_DIM}, or none; lower dim")
        total = affordable_size(budget, train.num_nodes)
        sizes = sizes_by_rank(train.joint_degrees, np.ones(train.num_nodes), total, budget.dim)
        return SearchedTables.from_joint_sizes(sizes, train.num_users, budget.dim)

    def search(self, tables: EmbeddingTables, runner: Runner) -> SearchedTables:
        assert isinstance(tables, SearchedTables)  # those of `fit`
        config, train, rng = self.config, runner.train, stream(runner.seed, "search")
        supernet = runner.initialize(Supernet(train, tables.dim, config.alpha, runner.max_epochs, rng))
        runner.fit(supernet)
        genomes = Genomes(supernet, train, len(tables.values), config.groups)
        weights = torch.cat([rows.detach() for rows in supernet.rows_of_codebooks()]).flatten()

        def cut(genome: np.ndarray) -> SearchedTables:
            return SearchedTables.from_joint_sizes(genomes.sizes(genome), train.num_users, tables.dim)

        @torch.no_grad()
        def fitness(genome: np.ndarray) -> float:
            candidate = cut(genome).to(runner.device)
            candidate.values.copy_(weights[candidate.positions])
            return score(runner, candidate)

        best, value = evolve(fitness, lambda: genomes.draw(rng), config.population, config.generations, rng)
        log.info(
            "%s: thresholds %s; the best sizes are worth %.2f %% on the supernet and leave %d of %d ids without any",
            self.name,
            genomes.thresholds.round(3).tolist(),
            100 * value,
            np.count_nonzero(genomes.sizes(best) == 0),
            train.num_nodes,
        )
        log.debug("%s: the best genome is %s", self.name, best.round(3).tolist())
        return runner.initialize(cut(best))
