"""Product codes that are trained end to end: DPQ, and MGQE, whose infrequent ids choose from fewer centroids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.embedding.bits import pack_bits, packed_bytes, unpack_bits
from baco.embedding.cost import Ledger
from baco.embedding.product_codes import CodeQuantizer, ProductQuantizer
from baco.graph import Biadjacency
from baco.registry import register_method, register_tables
from baco.validation import setting
from baselines.pq import ProductCodebook, ProductSettings, ProductTables
from baselines.support.centroids import CentroidMethod, centroid_ledger

CHUNK = 4096  # ids at a time: their distances to the centroids of a block stay in the cache
FEWER_BITS = 2  # of the codes of infrequent ids: a quarter of the centroids, as published


class TrainedCodebook(ProductCodebook):
    """Centroids, and a query for each id, whose parts choose the nearest centroids of their blocks as its codes.

    An embedding is made of these centroids; its gradient is also that of the query (straight through).
    """

    def __init__(self, quantizer: ProductQuantizer, num_ids: int, dim: int, rng: np.random.Generator):
        super().__init__(quantizer, num_ids, dim, rng)
        self.queries = nn.Parameter(torch.zeros(num_ids, dim))
        self.widths = np.bincount(quantizer.block_of_column(dim)).tolist()

    def forward(self, ids: Tensor | None = None) -> Tensor:
        queries = self.queries if ids is None else self.queries[ids]
        return super().forward(ids) + (queries - queries.detach())

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        super().reset_parameters(std, generator)
        self.queries.copy_(torch.randn(self.queries.shape, generator=generator) * std)
        self.encode()

    def distance(self) -> Tensor:
        """(): the mean squared difference between queries and their centroids, which draws the centroids only."""
        return (super().forward() - self.queries.detach()).square().mean()

    @torch.no_grad()
    def encode(self) -> None:
        """Choose the codes anew."""
        groups = list(self.groups())
        blocks = zip(self.queries.split(self.widths, 1), self.centroids.split(self.widths, 1), strict=True)
        for block, (queries, centroids) in enumerate(blocks):
            norms = centroids.square().sum(1)
            for group, size in groups:
                for ids in group.split(CHUNK):
                    distances = torch.addmm(norms[:size], queries[ids], centroids[:size].T, alpha=-2)
                    self.codes[ids, block] = distances.argmin(1).to(self.codes.dtype)

    def groups(self) -> Iterator[tuple[Tensor, int]]:
        """Ids, and how many of a block's centroids, the first ones, they may choose from."""
        yield torch.arange(len(self.codes), device=self.codes.device), len(self.centroids)


class GranularCodebook(ProductCodebook):
    """Product codes of which those of infrequent ids are in the first centroids only, and are stored in fewer bits."""

    stored = ("centroids", "codes", "frequent")
    frequent: Tensor

    def __init__(self, quantizer: ProductQuantizer, num_ids: int, dim: int, rng: np.random.Generator):
        super().__init__(quantizer, num_ids, dim, rng)
        self.register_buffer("frequent", torch.zeros(num_ids, dtype=torch.bool))  # (n,)

    def packed(self) -> dict[str, np.ndarray]:
        learned, bits = self.learned(), self.quantizer.bits
        codes, frequent = learned["codes"], learned["frequent"]
        return {
            "centroids": learned["centroids"],
            "frequent": np.packbits(frequent),
            "codes": pack_bits(codes[frequent], bits),
            "short_codes": pack_bits(codes[~frequent], short(bits)),
        }

    @staticmethod
    def unpacked(quantizer: CodeQuantizer, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        bits, count = quantizer.bits, quantizer.num_codes
        long_codes = unpack_bits(arrays["codes"], bits, count)
        short_codes = unpack_bits(arrays["short_codes"], short(bits), count)
        num_ids = len(long_codes) + len(short_codes)
        frequent = np.unpackbits(arrays["frequent"], count=num_ids).astype(bool)
        codes = np.empty((num_ids, count), long_codes.dtype)
        codes[frequent], codes[~frequent] = long_codes, short_codes
        return {"centroids": arrays["centroids"], "codes": codes, "frequent": frequent}


class TrainedGranularCodebook(TrainedCodebook, GranularCodebook):
    """Both."""

    def groups(self) -> Iterator[tuple[Tensor, int]]:
        yield self.frequent.nonzero()[:, 0], len(self.centroids)
        yield (~self.frequent).nonzero()[:, 0], 2 ** short(self.quantizer.bits)


class TrainedProductTables(ProductTables):
    """Product codes that follow queries while these are trained. Of what is exported the queries are no part.

    Parameters: dim * 2^bits per side, plus (blocks - 1) codes per id.

    Parameters
    ----------
    quantizer : ProductQuantizer
    num_users, num_items, dim : int
    rng : numpy.random.Generator
        Of the codes before the first values.
    pull : float
        The weight of `TrainedCodebook.distance` in the loss.
    """

    Codebook = TrainedCodebook
    users: TrainedCodebook
    items: TrainedCodebook

    def __init__(
        self,
        quantizer: ProductQuantizer,
        num_users: int,
        num_items: int,
        dim: int,
        rng: np.random.Generator,
        pull: float,
    ):
        super().__init__(quantizer, num_users, num_items, dim, rng)
        self.pull = pull

    def auxiliary_loss(self) -> Tensor | None:
        return self.pull * (self.users.distance() + self.items.distance()) if self.pull else None

    def on_step_end(self) -> None:
        self.users.encode()
        self.items.encode()

    def ledger(self) -> Ledger:
        ledger = super().ledger()
        centroids = len(self.users.centroids) + len(self.items.centroids)
        return replace(ledger, training_floats=ledger.training_floats + centroids * self.dim)


@register_tables("GranularTables")
class GranularTables(ProductTables):
    """Product codes of two lengths. Parameters: dim * 2^bits per side, plus (blocks - 1) codes per id."""

    Codebook = GranularCodebook
    users: GranularCodebook
    items: GranularCodebook

    def ledger(self) -> Ledger:
        frequent = [int(codebook.frequent.sum()) for codebook in (self.users, self.items)]
        return shortened(super().ledger(), self.quantizer, (len(self.users.codes), len(self.items.codes)), frequent)


class TrainedGranularTables(TrainedProductTables, GranularTables):
    """Both."""

    Codebook = TrainedGranularCodebook
    users: TrainedGranularCodebook
    items: TrainedGranularCodebook


@register_method("dpq")
class DifferentiableProductQuantization(CentroidMethod):
    """Product codes that are trained end to end (Chen, Li, Sun, ICML 2020, arXiv 1908.09756; its vector-quantization
    variant).

    While it trains, each id has a query q of full width. Its part in a block chooses the nearest of the block's 2^bits
    centroids, and the id's embedding is e = c + q - stop(q), for the chosen centroids c side by side: e equals c, and
    its gradient is that of c and of q. The mean of (c - stop(q))^2 is added to the loss. What a server gets are
    centroids and codes.
    Parameters: 2 dim * 2^bits, plus (blocks - 1) codes per id; training needs the memory of the full model.

    Deviations: centroids have the gradient of the loss as well (published: only that of the added term); no batch
    normalisation of distances; codes of all ids are chosen anew after each step.
    """

    label = "DPQ"

    @dataclass(frozen=True)
    class Config(ProductSettings):
        """pull : the weight of what draws centroids to the queries that choose them."""

        pull: float = setting(1.0, at_least=0)

    config: Config
    Tables = TrainedProductTables

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> TrainedProductTables:
        quantizer = self.quantizer_within(train, budget)
        assert isinstance(quantizer, ProductQuantizer)  # that of the tables
        return self.Tables(quantizer, train.num_users, train.num_items, budget.dim, rng, self.config.pull)


@register_method("mgqe")
class MultiGranularQuantizedEmbeddings(DifferentiableProductQuantization):
    """DPQ in which infrequent ids may choose only from the first quarter of each block's centroids (Kang et al., WWW
    2020, arXiv 2002.08530).

    Their codes are shorter, so that the same number of bytes buys more blocks; by the paper's rule, which counts codes
    of any length alike, it is as large as DPQ. Which ids are frequent is stored as a bit each.
    Parameters: 2 dim * 2^bits, plus (blocks - 1) codes per id; training needs the memory of the full model.

    Deviations: those of `dpq`.
    """

    label = "MGQE"

    @dataclass(frozen=True)
    class Config(DifferentiableProductQuantization.Config):
        """frequent : the part of each side's ids, those with the most interactions, that choose from all centroids."""

        frequent: float = setting(0.1, at_least=0, at_most=1)

    config: Config
    Tables = TrainedGranularTables

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> TrainedGranularTables:
        tables = super().fit(train, budget, rng)
        assert isinstance(tables, TrainedGranularTables)
        for codebook, degrees in (tables.users, train.user_degrees), (tables.items, train.item_degrees):
            order = np.argsort(-degrees, kind="stable")
            codebook.frequent[torch.from_numpy(order[: self.num_frequent(len(degrees))])] = True
        return tables

    def cost(self, quantizer: CodeQuantizer, train: Biadjacency, dim: int) -> Ledger:
        sizes = train.num_users, train.num_items
        return shortened(centroid_ledger(quantizer, *sizes, dim), quantizer, sizes, list(map(self.num_frequent, sizes)))

    def num_frequent(self, num_ids: int) -> int:
        """Of so many ids."""
        return round(self.config.frequent * num_ids)


def short(bits: int) -> int:
    """Bits of the codes of infrequent ids."""
    return max(1, bits - FEWER_BITS)


def shortened(ledger: Ledger, quantizer: CodeQuantizer, sizes: tuple[int, int], frequent: list[int]) -> Ledger:
    """The ledger of product codes of both sides with the codes of all but the frequent ids in fewer bits."""
    long_bytes, short_bytes = (packed_bytes(quantizer.num_codes, of) for of in (quantizer.bits, short(quantizer.bits)))
    saved = (sum(sizes) - sum(frequent)) * (long_bytes - short_bytes)
    return replace(ledger, bytes=ledger.bytes - saved + sum(packed_bytes(size, 1) for size in sizes))
