"""Embeddings of different sizes: the allocation of a budget to ids, the tables, and the rules that need no search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.cost import FLOAT_BYTES, Ledger
from baco.embedding.tables import Embeddings, EmbeddingTables, add_scaled
from baco.errors import UserError
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.registry import register_method, register_tables
from baco.validation import Validated, setting

LARGEST_DIM = 256  # sizes and positions are stored as one byte each
SMALLEST_SHARE = 1e-100  # of the largest: what is below has the size 1 anyway
HALVINGS = 80


def affordable_size(budget: Budget, num_ids: int) -> int:
    """What the sizes of all ids may sum to: as many floats as the budget buys beside one byte per id for its size.

    Under a budget of parameters sizes are free, as the first codes of ids are.

    Raises
    ------
    UserError
        When the budget is below one float per id, or the embeddings are too wide for sizes of one byte.
    """
    if budget.dim > LARGEST_DIM:
        raise UserError(f"dim={budget.dim} is more than {LARGEST_DIM}, the largest size that one byte per id tells")
    price = 1 + FLOAT_BYTES if budget.unit == "bytes" else 1
    if budget.limit < price * num_ids:
        least = f"{price * num_ids:,}"
        raise UserError(
            f"the budget of {budget.limit:,} {budget.unit} is below one float per id, {least}; raise the budget"
        )
    floats = (budget.limit - num_ids) // FLOAT_BYTES if budget.unit == "bytes" else budget.limit
    return min(floats, num_ids * budget.dim)


def allocate(shares: np.ndarray, total: int, largest: int) -> np.ndarray:
    """(n,) int64 sizes, descending, that sum to `total`: in proportion to the shares as far as 1..`largest` allows.

    The k-th size is that of the k-th largest share. With the one factor for which the sum of clip(factor * share, 1,
    largest) is `total`, sizes are those values rounded down, and what is left over goes, one each, to the largest
    fractional parts.

    Parameters
    ----------
    shares : (n,) positive floats, in any order
    total : int, of [n, n * largest]

    Raises
    ------
    ValueError
        When no sizes sum to `total`.
    """
    num_ids = len(shares)
    if not num_ids <= total <= num_ids * largest:
        raise ValueError(f"{num_ids} sizes of 1..{largest} cannot sum to {total}")
    ascending = np.sort(shares)
    ascending = np.maximum(ascending / ascending[-1], SMALLEST_SHARE)
    sums = np.concatenate([[0], np.cumsum(ascending)])

    def filled(factor: float) -> float:
        small, open_end = ascending.searchsorted([1 / factor, largest / factor])
        return small + factor * (sums[open_end] - sums[small]) + largest * (num_ids - open_end)

    low, high = 1.0, largest / ascending[0]
    for _ in range(HALVINGS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if filled(middle) > total else (middle, high)
    exact = np.clip(low * ascending[::-1], 1, largest)
    sizes = np.floor(exact).astype(np.int64)
    growing = np.flatnonzero(sizes < largest)
    by_fraction = growing[np.argsort((sizes - exact)[growing], kind="stable")]
    sizes[by_fraction[: total - sizes.sum()]] += 1
    return np.sort(sizes)[::-1]


def assign_by_rank(sizes: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """(n,): descending sizes dealt out to ids by descending degree; the lower id comes first among equals."""
    dealt = np.empty_like(sizes)
    dealt[np.argsort(-degrees, kind="stable")] = sizes
    return dealt


def groups_by_rank(num_ids: int, groups: int) -> np.ndarray:
    """(n,): the group of each rank in frequency, the most frequent ids in the first; groups differ by one at most."""
    return np.arange(num_ids) * min(groups, num_ids) // num_ids


def sizes_by_rank(degrees: np.ndarray, shares: np.ndarray, total: int, largest: int) -> np.ndarray:
    """(n,) sizes of ids by their rank in frequency: the k-th most frequent has that of the k-th largest share.

    All rules that follow the frequency are this one with shares of their own.
    """
    return assign_by_rank(allocate(shares, total, largest), degrees)


Sized = TypeVar("Sized", bound="SizedTables")


@register_tables("SizedTables")
class SizedTables(EmbeddingTables):
    """Each id has an embedding of a size of its own, followed by zeros up to the common width.

    All floats lie in one buffer, in the order of ids, users first; nothing else is trained. Parameters: the sum of the
    sizes. A server stores one byte more per id, its size.

    Parameters
    ----------
    user_sizes, item_sizes : (n,) integers of [1, dim]
        Also 0, for ids without an embedding, where `dim` is below 256.
    dim : int
    """

    positions: Tensor
    inherits = True

    def __init__(self, user_sizes: np.ndarray, item_sizes: np.ndarray, dim: int):
        super().__init__()
        self.num_ids = len(user_sizes), len(item_sizes)
        self.dim = dim
        sizes = np.concatenate([user_sizes, item_sizes])
        self.values = nn.Parameter(torch.zeros(int(sizes.sum())))
        positions = np.flatnonzero(np.arange(dim) < sizes[:, None])  # in the zero-padded rows of all ids, flattened
        self.register_buffer("positions", torch.as_tensor(positions))

    @classmethod
    def from_joint_sizes(cls: type[Sized], sizes: np.ndarray, num_users: int, dim: int) -> Sized:
        """Tables of the (num_users + num_items,) sizes of all ids, users first."""
        user_sizes, item_sizes = np.split(sizes, [num_users])
        return cls(user_sizes, item_sizes, dim)

    @property
    def sizes(self) -> np.ndarray:
        """(num_users + num_items,) int64."""
        return np.bincount(self.positions.cpu().numpy() // self.dim, minlength=sum(self.num_ids))

    def shared_rows(self) -> tuple[Tensor]:
        padded = self.values.new_zeros(sum(self.num_ids) * self.dim).scatter_(0, self.positions, self.values)
        return (padded.view(-1, self.dim),)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.shared_rows()[0].split(self.num_ids)

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.values.copy_(torch.randn(self.values.shape, generator=generator) * std)

    @torch.no_grad()
    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        """Add to each id's values the first entries of its embedding, as many as it has."""
        added = np.concatenate(embeddings(self.dim)).ravel()[self.positions.cpu().numpy()]
        of_users = int(self.sizes[: self.num_ids[0]].sum())
        add_scaled(self.values[:of_users], added[:of_users], rms)
        add_scaled(self.values[of_users:], added[of_users:], rms)

    @torch.no_grad()
    def inherit(self, users: np.ndarray, items: np.ndarray) -> None:
        """Give each id the first entries of its embedding, as many as it has."""
        padded = torch.as_tensor(np.concatenate([users, items]).ravel(), device=self.values.device)
        self.values.copy_(padded[self.positions])

    def ledger(self) -> Ledger:
        floats = len(self.values)
        return Ledger(parameters=floats, bytes=FLOAT_BYTES * floats + sum(self.num_ids), training_floats=floats)

    def export(self) -> dict[str, np.ndarray]:
        header = {"num_users": self.num_ids[0], "dim": self.dim}
        return {
            "header": json_array(header),
            "sizes": (self.sizes - 1).astype(np.uint8),  # 0 wraps around to 255
            "values": self.values.detach().cpu().numpy(),
        }

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> SizedTables:
        """The tables whose `export` these arrays are."""
        header = from_json_array(arrays["header"])
        sizes = arrays["sizes"].astype(np.int64) + 1
        sizes[sizes > header["dim"]] = 0
        tables = cls.from_joint_sizes(sizes, header["num_users"], header["dim"])
        with torch.no_grad():
            tables.values.copy_(torch.as_tensor(arrays["values"]))
        return tables


@register_method("su")
class EqualSizes(Compressor):
    """All embeddings of one size; the most frequent ids get one float more until the budget is spent.

    The baseline SU of Qu et al. (WSDM 2024): a smaller model of the same kind. Parameters: the budget, to the float.
    """

    label = "SU"
    has_start = True

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> SizedTables:
        return by_frequency(train, budget, np.ones(train.num_nodes))


@register_method("sr")
class RandomSizes(Compressor):
    """Sizes drawn uniformly, whatever the id: the baseline SR of Qu et al. (WSDM 2024).

    Parameters: the budget, to the float.
    """

    label = "SR"
    has_start = True

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> SizedTables:
        total = affordable_size(budget, train.num_nodes)
        sizes = rng.permutation(allocate(1 - rng.random(train.num_nodes), total, budget.dim))
        return SizedTables.from_joint_sizes(sizes, train.num_users, budget.dim)


@register_method("power")
class PowerSizes(Compressor):
    """Sizes in proportion to a power of the frequency: mixed dimensions (Ginart et al., ISIT 2021, arXiv 1909.11810).

    Parameters: the budget, to the float.

    Deviations: every id has its own size, where the authors give blocks of ids one; short embeddings are padded with
    zeros, where the authors multiply them by a matrix per block; the budget fixes the largest size.
    """

    label = "Mixed dimensions"
    has_start = True

    @dataclass(frozen=True)
    class Config(Validated):
        """exponent : of the frequency; 0 is `su`."""

        exponent: float = setting(0.3, at_least=0, at_most=10)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> SizedTables:
        return by_frequency(train, budget, np.maximum(train.joint_degrees, 1.0) ** self.config.exponent)


def by_frequency(train: Biadjacency, budget: Budget, shares: np.ndarray) -> SizedTables:
    """The tables of one allocation over users and items together, which grows with the frequency."""
    sizes = sizes_by_rank(train.joint_degrees, shares, affordable_size(budget, train.num_nodes), budget.dim)
    return SizedTables.from_joint_sizes(sizes, train.num_users, budget.dim)
