"""Hashing: codes that need no clustering, from the id, its degree or a random projection of its interactions."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from baco.compressors.budget import Budget, split_rows
from baco.compressors.budget_search import fill_budget
from baco.compressors.compressor import CodeCompressor
from baco.embedding.codes import Assignment, Codes
from baco.embedding.rules import AffineHash, OwnRows, Rule, SaltedHash
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.registry import register_method
from baco.validation import Validated, setting
from baselines.support.sums import SumCompressor

PLANES = 32  # random hyperplanes of LSH, one bit each: more than any number of rows needs


@dataclass(frozen=True)
class ShareSides(Validated):
    """share_sides : whether users and items share one codebook (unified embedding, Coleman et al., NeurIPS 2023)."""

    share_sides: bool = False


@register_method("random")
class RandomHash(CodeCompressor):
    """One hash per id (feature hashing: Weinberger et al., ICML 2009).

    Rows are split between the sides in proportion to their numbers of ids, or `share_sides` makes one codebook of them,
    in which a user and an item may have the same row (arXiv 2305.12102). Parameters: dim * rows.

    Deviation from the published comparison, whose 'random' is id modulo rows: ids are permuted first, by a seeded
    affine map, so that the spread over seeds is that of the method. Both fill all rows evenly.
    """

    label = "Random"
    Config = ShareSides
    config: ShareSides

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        return hashed(train, budget, rng, num_hashes=1, share_sides=self.config.share_sides)


@register_method("double")
class DoubleHash(SumCompressor):
    """Two hashes per id into one codebook, the two rows summed (Zhang et al., RecSys 2020, arXiv 2007.14523).

    Of each side or, with `share_sides`, of both, as in `random`. Parameters: dim * rows + num_users + num_items.

    Deviations: the second codes are paid from the budget, where the published comparison counts them on top; affine
    permutations replace universal hashes, so that every row is used by as many ids as any other; first values are
    scaled (`scaled=false` is published).
    """

    label = "Double hashing"

    @dataclass(frozen=True)
    class Config(ShareSides, SumCompressor.Config):
        """Those of `random`, and of every sum."""

    config: Config

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        return hashed(train, budget, rng, num_hashes=2, share_sides=self.config.share_sides)


@dataclass(frozen=True)
class OwnShare(Validated):
    """own_share : the part of each side's rows that its most frequent ids have for themselves."""

    own_share: float = setting(0.5, at_least=0, below=1)


@register_method("frequency")
class FrequencyHash(CodeCompressor):
    """The most frequent ids have a row each, all others share the remaining rows by one hash.

    The frequency rule of Zhang et al. (RecSys 2020) with a single hash. Parameters: dim * rows.

    Deviation from the published comparison, which takes the id modulo the shared rows: the ids that share are permuted
    by a seeded affine map, as in `random`.
    """

    label = "Frequency hashing"
    Config = OwnShare
    config: OwnShare

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        return partly_hashed(train, budget, rng, num_hashes=1, own_share=self.config.own_share)


@register_method("hybrid")
class HybridHash(SumCompressor):
    """The most frequent ids have a row each, all others the sum of two shared ones (Zhang et al., RecSys 2020).

    Parameters: dim * rows + the number of ids that share.

    Deviations: an own row counts once, where the authors of the published comparison add it to itself; only ids that
    share pay for a second code, and the budget includes it; hashes and first values are those of `double`.
    """

    label = "Hybrid hashing"

    @dataclass(frozen=True)
    class Config(OwnShare, SumCompressor.Config):
        """Those of `frequency` and `double`."""

    config: Config

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        return partly_hashed(train, budget, rng, num_hashes=2, own_share=self.config.own_share)


def hashed(
    train: Biadjacency, budget: Budget, rng: np.random.Generator, *, num_hashes: int, share_sides: bool = False
) -> Assignment:
    """Sums of `num_hashes` rows for all ids, as many rows as the budget buys beside second codes."""
    codes = (num_hashes - 1) * train.num_nodes
    stored = bytes_of_hashes(num_hashes, share_sides)
    rows = rows_within(budget, train.num_nodes, lambda rows: (codes, stored), codebooks=2 - share_sides)
    return dealt(train, rows, rng, num_hashes, share_sides)


def dealt(
    train: Biadjacency, rows: int, rng: np.random.Generator, num_hashes: int, share_sides: bool = False
) -> Assignment:
    """All ids dealt out evenly to rows, once for each hash; rows are split in proportion to the sides, or shared."""
    sizes = train.num_users, train.num_items
    if share_sides:
        rules: list[Rule] = [*SaltedHash.draw(num_hashes, *sizes, rng)]
        split = rows, rows
    else:
        rules = [AffineHash.draw(num_hashes, size, rng) for size in sizes]
        split = split_rows(rows, *sizes)
    weights = np.ones(num_hashes, np.float32) if num_hashes > 1 else None
    users, items = (Codes.from_rule(*side, weights) for side in zip(rules, sizes, split, strict=True))
    return Assignment(users, items, shared=share_sides)


def bytes_of_hashes(num_hashes: int, share_sides: bool = False) -> int:
    """What a server stores to compute the hashes of both sides: 8 bytes for each number."""
    return 2 * 8 * (2 * num_hashes + share_sides)  # multipliers and offsets, and where sides share the number of nodes


def rows_within(budget: Budget, most: int, extras: Callable[[int], tuple[int, int]], codebooks: int = 2) -> int:
    """As many rows, 2 to `most`, as a budget buys.

    Parameters
    ----------
    extras : callable
        From a number of rows to the parameters and the bytes that are stored beside them.
        More rows never cost less in all.

    Raises
    ------
    UserError
        When it does not buy two.
    """

    def over_budget(rows: int) -> bool:
        parameters, stored = extras(rows)
        return rows > budget.rows(extra_parameters=parameters, extra_bytes=stored, codebooks=codebooks)

    if over_budget(2):
        raise UserError(
            f"the budget of {budget.limit:,} {budget.unit} does not buy two codebook rows beside the codes that are "
            "stored; raise the budget"
        )
    return 1 + bisect_left(range(2, most + 1), True, key=over_budget)


def partly_hashed(
    train: Biadjacency, budget: Budget, rng: np.random.Generator, *, num_hashes: int, own_share: float
) -> Assignment:
    """As many rows as the budget buys, split in proportion to the sides; the most frequent ids keep some of them.

    Parameters
    ----------
    num_hashes : int
        Codes of an id that shares its rows; they are summed.
    own_share : float
        Part of a side's rows that its ids of the largest degrees have for themselves; the lowest id wins among equals.
    """
    if own_share == 0:
        return hashed(train, budget, rng, num_hashes=num_hashes)
    sizes = train.num_users, train.num_items
    stored = bytes_of_hashes(num_hashes) + sum(-(-size // 8) for size in sizes)  # and a bit per id

    def own_rows(rows: int) -> int:
        return min(int(own_share * rows), rows - 1)  # one row at least is shared

    def extras(rows: int) -> tuple[int, int]:
        sharing = train.num_nodes - sum(map(own_rows, split_rows(rows, *sizes)))
        return (num_hashes - 1) * sharing, stored

    rows = rows_within(budget, train.num_nodes, extras)
    sides = []
    degrees = train.user_degrees, train.item_degrees
    for size, side_rows, frequency in zip(sizes, split_rows(rows, *sizes), degrees, strict=True):
        own = np.zeros(size, np.bool_)
        own[np.argsort(-frequency, kind="stable")[: own_rows(side_rows)]] = True
        weights = np.ones(num_hashes, np.float32) if num_hashes > 1 else None
        sides.append(Codes.from_rule(OwnRows.draw(own, num_hashes, rng), size, side_rows, weights))
    users, items = sides
    return Assignment(users, items)


@register_method("lsh")
class Lsh(CodeCompressor):
    """Locality-sensitive hashing of interactions: ids on the same sides of random hyperplanes share a row.

    (Sign random projections: Charikar, STOC 2002.) A user's interactions are its row of the binary biadjacency, an
    item's its column; 32 signs of projections on normal directions are read as a binary fraction in [0, 1), the first
    the most significant, which is then cut into equally long bins. Bins that nobody falls into cost nothing: their
    number is searched so that the rows in use fill the budget. Parameters: dim * rows.

    Deviation from the published comparison, which takes one plane per bit of the wanted number of rows and so up to
    twice as many rows as the budget has, and makes the biadjacency dense.
    """

    label = "LSH"

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        matrix = train.to_matrix()
        users, items = fractions(matrix, rng), fractions(matrix.T.tocsr(), rng)

        def at(bins: float) -> Assignment:
            user_bins, item_bins = split_rows(max(2, round(bins)), train.num_users, train.num_items)
            user_codes = Codes.from_labels(np.floor(users * user_bins))
            item_codes = Codes.from_labels(np.floor(items * item_bins))
            return Assignment(user_codes, item_codes, {"bins": [user_bins, item_bins]})

        return fill_budget(at, budget, start=max(2, budget.rows()))


def fractions(matrix: csr_array, rng: np.random.Generator) -> np.ndarray:
    """(num_rows,) float64 in [0, 1): the signs of random projections of the rows as binary digits."""
    planes = rng.standard_normal((matrix.shape[1], PLANES), np.float32)
    return (matrix @ planes > 0) @ 0.5 ** np.arange(1, PLANES + 1)
