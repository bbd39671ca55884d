"""MEC: product codes that heed popularity, and centroids trained under them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, softplus

from baco.compressors.budget import Budget
from baco.embedding.bits import code_dtype
from baco.embedding.product_codes import CodeQuantizer, ProductQuantizer
from baco.graph import Biadjacency
from baco.registry import register_method
from baco.validation import setting
from baselines.pq import ProductSettings, ProductTables
from baselines.support.centroids import CentroidTables, FromFull, FromFullSettings

RARE = 1e-6  # added to frequencies in logarithms: an unused centroid has a finite gradient


@register_method("mec")
class Mec(FromFull):
    """Product codes of a full model, popularity-weighted and regularised, then centroids trained under the frozen codes
    (Wang et al., DASFAA 2025, arXiv 2502.15355).

    Parameters: 2 dim * 2^bits, plus (blocks - 1) codes per id.

    Deviations: written from the paper's objective, since its published program trains no encoder, its entropy term has
    no gradient, and its negatives are one code for the whole batch; codes are those of the trained rows themselves,
    without an encoder and a decoder; they start from k-means; and both sides are compressed, whatever their size.
    """

    label = "MEC"
    Tables = ProductTables

    @dataclass(frozen=True)
    class Config(ProductSettings, FromFullSettings):
        """The settings of product quantization, and those of the second stage, which learns the codes.

        code_epochs : passes over the rows.
        code_batch : rows in a step.
        code_rate : learning rate of Adam.
        balance : weight of the entropy of the codes' popularity-weighted frequencies.
        contrast : weight of the contrastive loss.
        """

        code_epochs: int = setting(10, at_least=0)
        code_batch: int = setting(8192, at_least=1)
        code_rate: float = setting(1e-4, above=0)
        balance: float = setting(1e-4, at_least=0)
        contrast: float = setting(2e-3, at_least=0)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> CentroidTables:
        return self.tables(train, budget, rng)

    def learn(
        self, quantizer: CodeQuantizer, rows: np.ndarray, degrees: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        assert isinstance(quantizer, ProductQuantizer)  # that of the tables
        config, popularity = self.config, np.maximum(1.0, np.floor(np.log2(np.maximum(1, degrees))))
        start = quantizer.learn(rows, rng, popularity)["centroids"]
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        objective = Objective(quantizer, torch.from_numpy(start), config.balance, config.contrast)
        x, weights = torch.from_numpy(rows), torch.from_numpy(popularity).float()
        objective.set_temperatures(x)
        optimizer = torch.optim.Adam([objective.centroids], config.code_rate)
        for _ in range(config.code_epochs):
            for ids in torch.randperm(len(x), generator=generator).split(config.code_batch):
                optimizer.zero_grad()
                objective(x[ids], weights[ids], generator).backward()
                optimizer.step()
        codes: np.ndarray = objective.codes(x).numpy().astype(code_dtype(quantizer.bits))
        return {"centroids": objective.centroids.detach().numpy(), "codes": codes}


class Objective:
    """What the second stage minimises over the centroids, of one side: with r_n the popularity of id n,

        sum r_n |x_n - y_n|^2 / sum r_n  +  balance * mean over blocks of (log 2^bits - H(p))
                                         +  contrast * mean of log(1 + e^(cos(x_n, z_n) - cos(x_n, y_n)))

    where y_n are the nearest centroids, z_n the same with a random one in a random block, and p the frequencies of a
    block's centroids, weighted by r; their gradient is that of softmax(-|x_n - centroid|^2 / temperature) in place of
    the nearest (straight through).

    Parameters
    ----------
    quantizer : ProductQuantizer
    centroids : (2^bits, dim) float32
    balance, contrast : float
    """

    def __init__(self, quantizer: ProductQuantizer, centroids: Tensor, balance: float, contrast: float):
        self.centroids = centroids.clone().requires_grad_()
        blocks = torch.from_numpy(quantizer.block_of_column(centroids.shape[1]))
        self.block_of_column = blocks
        self.columns = [torch.nonzero(blocks == block)[:, 0] for block in range(quantizer.blocks)]
        self.balance, self.contrast = balance, contrast
        self.temperatures = [1.0] * quantizer.blocks

    @torch.no_grad()
    def set_temperatures(self, x: Tensor) -> None:
        """The mean squared distance to the nearest centroid, block by block."""
        for block in range(len(self.columns)):
            nearest = self.distances(x, block).min(1).values
            self.temperatures[block] = max(nearest.mean().item(), torch.finfo(x.dtype).tiny)

    def distances(self, x: Tensor, block: int) -> Tensor:
        """(n, 2^bits) squared distances of a block's part of (n, dim) rows to its centroids."""
        part, centroids = x[:, self.columns[block]], self.centroids[:, self.columns[block]]
        squares = (part**2).sum(1, keepdim=True) + (centroids**2).sum(1) - 2 * part @ centroids.T
        return squares.clamp_min(0)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """(n, blocks) int16: the nearest centroids."""
        return torch.stack([self.distances(x, block).argmin(1) for block in range(len(self.columns))], 1).short()

    def rows(self, codes: Tensor) -> Tensor:
        """(n, dim): what (n, blocks) codes stand for."""
        return torch.gather(self.centroids, 0, codes[:, self.block_of_column].long())

    def __call__(self, x: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
        codes = self.codes(x)
        y = self.rows(codes)
        share = weights / weights.sum()
        loss = (share * ((x - y) ** 2).sum(1)).sum()
        if self.balance:
            loss = loss + self.balance * self.imbalance(x, share, codes)
        if self.contrast:
            changed = torch.randint(len(self.columns), (len(x), 1), generator=generator)
            others = torch.randint(len(self.centroids), (len(x), 1), generator=generator)
            z = self.rows(codes.long().scatter(1, changed, others))
            loss = loss + self.contrast * softplus(cosine_similarity(x, z) - cosine_similarity(x, y)).mean()
        return loss

    def imbalance(self, x: Tensor, share: Tensor, codes: Tensor) -> Tensor:
        """The mean over blocks of log 2^bits - H(p)."""
        entropies = []
        for block, temperature in enumerate(self.temperatures):
            soft = share @ torch.softmax(-self.distances(x, block) / temperature, 1)
            hard = torch.bincount(codes[:, block], share, len(soft))
            p = soft + (hard - soft).detach()
            entropies.append(-(p * (p + RARE).log()).sum())
        return np.log(len(self.centroids)) - torch.stack(entropies).mean()
