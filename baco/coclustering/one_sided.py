"""The method one-sided: the smaller side has rows of its own, as product codes, and the other side lives on them."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numba import njit, prange

from baco.coclustering.baco_plus import START, BacoPlus
from baco.coclustering.by_size import SEARCHES, fill_by_size
from baco.coclustering.cocluster import cocluster, share_isolated
from baco.coclustering.update import spliced, updated_labels
from baco.compressors.budget import Budget
from baco.compressors.budget_search import Splitting, fill_budget
from baco.compressors.compressor import Compressor
from baco.compressors.growth import Growth
from baco.embedding.bits import code_bits, packed_bytes
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import SIDES, Assignment, Codes
from baco.embedding.cost import code_ledger
from baco.embedding.product_codes import USUAL_BITS, ProductQuantizer, RefinedQuantizer
from baco.embedding.quantized import QuantizedTables
from baco.embedding.quantizer import Quantizer
from baco.embedding.rules import Identity, ManyCodes
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError
from baco.graph import SQUARE, Biadjacency, Neighbors
from baco.numerics.kmeans import compile_kmeans
from baco.numerics.spectral import spectral_factors
from baco.registry import register_method
from baco.validation import Validated, setting

log = logging.getLogger(__name__)

CLUSTERS = BacoPlus().settings
APART = -(2**32)  # names of rows begin here that ids of the other side have; those of the first side are above it
FEWEST_BITS = 6  # of a code, where the budget allows: few centroids do not suit rows of different lengths


@register_method("one_sided")
class OneSided(Compressor):
    """A row for each id of the smaller side; ids of the other side have the row of their co-cluster, and some of those.

    Let items be fewer. Under a backbone that propagates, a user's embedding in layer 0 is its co-cluster's row: the
    propagation brings it the rows of its items. Under one that does not, it is the mean of its co-cluster's row and of
    rows of its items, whose numbers are stored codes: users are what they interacted with, as in asymmetric factor
    models (NSVD: Paterek, KDD Cup 2007; FISM: Kabbur, Ning, Karypis, KDD 2013). Either way no user has floats of its
    own, so that the budget gives each item several times as many bits as it would give each id of both sides. With
    `own_from`, users with so many interactions have rows, too, and nothing else: a few codes say little of many items.
    All rows lie in one codebook, which one quantizer packs after training: product codes for all rows, more of them for
    ids with many interactions, as many as make the expected error least (`finest_rows`). What is left of the budget
    goes to co-clusters of users, those of BACO's objective.
    Parameters: dim * (2^bits + 2^fine_bits) + (blocks - 1) * (items + users with rows + co-clusters of users) +
    fine_blocks * (ids with many interactions) + codes of users after the first.

    Without `product_codes`, the control for them, rows are stored in the run's format, float32 or that of `quantize`,
    and have as many columns as the budget allows, dim at most; so have the embeddings of both sides.
    """

    label = "One-sided"
    has_start = True

    @dataclass(frozen=True)
    class Config(Validated):
        """Which side has rows, and parts of the budget.

        rows : 'users' or 'items'; None: whichever are fewer.
        code_share : the most that codes after the first may take; None: nothing. A run has `mf_code_share` of its YAML
            in place of None where the backbone does not propagate.
        cluster_share : the least that rows of co-clusters take, if the budget is that large.
        own_from : ids of the other side with so many interactions have rows of their own in place of codes; None: no
            id has.
        product_codes : whether rows are packed as product codes.
        refine : whether ids with many interactions have more of these.
        search : of the co-clusters, see `BacoPlus.Config`.
        """

        rows: str | None = setting(None, one_of=SIDES)
        code_share: float | None = setting(None, at_least=0, below=1)
        cluster_share: float = setting(0.05, at_least=0, below=1)
        own_from: int | None = setting(None, at_least=1)
        product_codes: bool = True
        refine: bool = True
        search: str = setting("solves", one_of=SEARCHES)

    config: Config

    def warm_up(self) -> None:
        compile_kmeans()
        cocluster(SQUARE, 1.0, 0, CLUSTERS)
        herd(SQUARE.by_user, np.zeros((2, 1), np.float32), 1)

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> EmbeddingTables:
        solver_seed, quantizer_seed = (int(seed) for seed in rng.integers(2**31, size=2))
        encode = self.encoder(train, budget, rng)
        least = encode(np.zeros(train.num_nodes, np.int32), {})  # with one co-cluster
        degrees = self.degrees_of_rows(train, least.details["rows"])
        clustered = [side for side in SIDES if side != least.details["rows"]]
        within = self.rows_within(budget, least, degrees)

        def seeded(labels: np.ndarray, details: dict) -> Assignment:
            return encode(labels, details | {"solver_seed": solver_seed})

        def at(resolution: float) -> Assignment:
            labels = cocluster(train, resolution, solver_seed, CLUSTERS).labels
            return seeded(share_isolated(train, labels), {"resolution": resolution})

        if self.config.search == "size":
            assignment = fill_by_size(seeded, train, within, solver_seed, CLUSTERS, rows=(clustered,))
        else:
            assignment = fill_budget(at, within, start=START, smooth=True, splitting=Splitting(train, encode))
        tables, quantizer = CodebookTables(assignment, within.dim), within.quantizer
        packed = "float32" if quantizer is None else quantizer.label
        log.info("one_sided: %d rows of %d columns in %s", assignment.users.num_rows, within.dim, packed)
        if not self.config.product_codes or quantizer is None:
            return tables  # the run packs them
        (rows,) = tables.quantizable()
        weights = {rows: degrees} if isinstance(quantizer, RefinedQuantizer) else None
        return QuantizedTables(tables, quantizer, quantizer_seed, weights)

    def encoder(
        self, train: Biadjacency, budget: Budget, rng: np.random.Generator
    ) -> Callable[[np.ndarray, dict], Assignment]:
        """From joint labels, (num_nodes,) int32, users first, and details of them to codes.

        Rows are those of the ids that have rows of their own, and after them those of the other side's labels.
        """
        side = self.config.rows or ("users" if train.num_users < train.num_items else "items")
        (_, degrees), apart = side_degrees(train, side), self.with_rows(train, side)
        a_code = 1 if budget.unit == "parameters" else code_bits(train.num_nodes) / 8
        most = largest_cap(degrees[~apart], int((self.config.code_share or 0) * budget.limit / a_code))
        picks = picked_codes(train, side, most, apart, budget.dim, rng)

        def encode(labels: np.ndarray, details: dict) -> Assignment:
            return coded(train, side, labels, apart, picks, details | {"most_codes": 1 + most})

        return encode

    def with_rows(self, train: Biadjacency, side: str) -> np.ndarray:
        """(n,) bool: which ids of the other side have rows of their own."""
        _, degrees = side_degrees(train, side)
        return degrees >= (np.inf if self.config.own_from is None else self.config.own_from)

    def degrees_of_rows(self, train: Biadjacency, side: str) -> np.ndarray:
        """(k,) integers: the interactions of ids with rows of their own, in the order of the rows."""
        own, others = side_degrees(train, side)
        return np.concatenate([own, others[self.with_rows(train, side)]])

    def update(self, old: Assignment, growth: Growth, budget: Budget, threshold: float) -> Assignment:
        labels, changed = updated_labels(old, growth, CLUSTERS, threshold)
        train, side, most = growth.train, old.details["rows"], old.details["most_codes"] - 1
        apart = self.with_rows(train, side)
        details = {key: old.details[key] for key in ("resolution", "solver_seed", "most_codes")}
        if most == 0:
            return coded(train, side, labels, apart, None, details)
        pooled, rng = (old.users, old.items)[side == "users"], np.random.default_rng(details["solver_seed"])
        others = slice(train.num_users, None) if side == "users" else slice(train.num_users)
        starts, lengths = np.zeros((2, train.num_nodes), np.int64)[:, others]  # new ids had none
        starts[: pooled.num_ids], lengths[: pooled.num_ids] = pooled.bounds[:-1] + 1, np.diff(pooled.bounds) - 1
        picks = picked_codes(train, side, most, apart, budget.dim, rng)
        assert picks is not None  # as most > 0
        picks = spliced((starts, lengths, pooled.index), picks, changed[others] | apart)
        return coded(train, side, labels, apart, picks, details)

    def rows_within(self, budget: Budget, least: Assignment, degrees: np.ndarray) -> Budget:
        """The budget for the finest rows that leave the co-clusters their share, or for the coarsest.

        With product codes, those of `finest_rows`; without, those of the most columns.

        Parameters
        ----------
        least : Assignment
            With one co-cluster.
        degrees : (k,) integers
            Of the ids that have rows of their own.

        Raises
        ------
        UserError
            When not even that and the coarsest rows are within the budget.
        """

        def cost(within: Budget) -> int:
            return budget.amount(code_ledger(least, within.dim, within.row_format()))

        def packed(quantizer: Quantizer) -> Budget:
            return replace(budget, quantizer=quantizer)

        share = (1 - self.config.cluster_share) * budget.limit
        if self.config.product_codes:
            weights = degrees if self.config.refine else np.zeros(0)
            for fewest in (FEWEST_BITS, 1):
                finest = finest_rows(budget, lambda quantizer: cost(packed(quantizer)), share, weights, fewest)
                if finest is not None:
                    break
            found = packed(finest or ProductQuantizer(1, 1))
        else:
            fitting = (dim for dim in range(budget.dim, 0, -1) if cost(replace(budget, dim=dim)) <= share)
            found = replace(budget, dim=next(fitting, 1))
        if cost(found) > budget.limit:
            raise UserError(
                f"method '{self.name}' needs {cost(found):,} {budget.unit} at least, over the budget of "
                f"{budget.limit:,}; raise the budget or lower code_share"
            )
        return found


Picks = tuple[np.ndarray, np.ndarray]  # ends and codes, as `herd` returns them


def others_of(train: Biadjacency, side: str) -> Neighbors:
    """What the ids of the side without rows of their own interacted with; `side` has rows."""
    return train.by_user if side == "items" else train.by_item


def side_degrees(train: Biadjacency, side: str) -> tuple[np.ndarray, np.ndarray]:
    """The interactions of each id of `side`, and of each of the other side."""
    degrees = train.user_degrees, train.item_degrees
    return degrees[::-1] if side == "items" else degrees


def picked_codes(
    train: Biadjacency, side: str, most: int, apart: np.ndarray, dim: int, rng: np.random.Generator
) -> Picks | None:
    """The codes after the first, none for the ids that are apart, (n,) bool; None where no id has any."""
    if most == 0:
        return None
    return herd(others_of(train, side), spectral_factors(train, dim, rng)[SIDES.index(side)], np.where(apart, 0, most))


def coded(
    train: Biadjacency, side: str, labels: np.ndarray, apart: np.ndarray, picks: Picks | None, details: dict
) -> Assignment:
    """The assignment in which `side` has rows, named -1, -2 and so on, and the other side its labels' and its picks.

    Ids of the other side that are apart, (n,) bool, have rows, too, named from APART downwards.
    """
    num_own, others = train.num_users, labels[train.num_users :]
    if side == "items":
        num_own, others = train.num_items, labels[: train.num_users]
    alone = np.flatnonzero(apart)
    distinct, clusters = np.unique(others[~apart], return_inverse=True)
    first, num_rows = np.empty(len(others), np.int32), num_own + len(alone) + len(distinct)
    first[alone] = num_own + np.arange(len(alone))
    first[~apart] = num_own + len(alone) + clusters
    names = np.concatenate([-1 - np.arange(num_own), APART - alone, distinct])
    if picks is None:
        pooled = Codes(first[:, None], num_rows, names=names)
    else:
        ends, picked = picks
        codes = np.insert(picked, ends[:-1], first)
        rule = ManyCodes.of(ends + np.arange(len(ends)), codes, num_rows)
        pooled = Codes.from_rule(rule, len(first), num_rows, names=names)
    own = Codes.from_rule(Identity(), num_own, num_rows, names=names)
    users, items = (pooled, own) if side == "items" else (own, pooled)
    return Assignment(users, items, details | {"rows": side}, labels, shared=True)


def finest_rows(
    budget: Budget,
    cost: Callable[[ProductQuantizer], int],
    limit: float,
    weights: np.ndarray,
    least_bits: int = FEWEST_BITS,
) -> ProductQuantizer | RefinedQuantizer | None:
    """The product codes, of `least_bits` to eight bits, that make the expected weighted error of rows least.

    The error of a row of B bits is taken to be 2^(-2 B / dim), as that of normal entries at a high rate: then all rows
    have B bits, and those of the largest weights more. None where not even the coarsest codes are within the limit.

    Parameters
    ----------
    cost : callable
        From product codes of all rows to what the tables cost in the budget's unit.
    weights : (n,)
        How much the error of the first rows matters; empty: all rows have the same codes.
    """
    lengths = range(USUAL_BITS, least_bits - 1, -1)
    choices = [ProductQuantizer(blocks, bits) for bits in lengths for blocks in range(1, budget.dim + 1)]
    formats = [choice.format(budget.dim) for choice in choices]
    errors = np.array([2.0 ** (-2 * choice.blocks * choice.bits / budget.dim) for choice in choices])
    if budget.unit == "parameters":
        common = np.array([form.table_parameters for form in formats])
        each = np.array([choice.blocks for choice in choices])
    else:
        common = np.array([form.table_bytes for form in formats]) + packed_bytes(len(weights), 1)
        each = np.array([form.row_bytes for form in formats])
    heaviest = np.concatenate([[0.0], np.cumsum(-np.sort(-weights)) / max(1, weights.sum())])
    best: ProductQuantizer | RefinedQuantizer | None = None
    least = np.inf
    for choice, error in zip(choices, errors, strict=True):
        left = limit - cost(choice)
        if left < 0:
            continue
        refined = np.clip((left - common) // each, 0, len(weights)).astype(np.int64)
        expected = error * (1 - heaviest[refined] * (1 - errors))
        finer = int(expected.argmin())
        if expected[finer] < least:
            fine, count = choices[finer], int(refined[finer])
            best, least = choice, expected[finer]
            if count > 0:
                best = RefinedQuantizer(choice.blocks, choice.bits, fine.blocks, fine.bits, count, len(weights))
    return best


def largest_cap(degrees: np.ndarray, num_codes: int) -> int:
    """The most codes of an id, at most one for each interaction, for which all ids have no more than `num_codes`."""
    return bisect_right(
        range(1, int(degrees.max(initial=0)) + 1), num_codes, key=lambda most: np.minimum(degrees, most).sum()
    )


def herd(near: Neighbors, factors: np.ndarray, most: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each id so many of its neighbours, or all if it has fewer, whose mean is close to the mean of all.

    One after the other, each time the one that brings the mean closest: kernel herding (Welling, ICML 2009).

    Parameters
    ----------
    near : Neighbors
        Of each id the neighbours on the other side.
    factors : (n, dim) float32
        Of the other side.
    most : int or (num_ids,) integers

    Returns
    -------
    ends : (num_ids + 1,) int64
        The neighbours of id x that were picked are `picked[ends[x]:ends[x + 1]]`.
    picked : (ends[-1],) int32
    """
    ends = np.zeros(len(near.indptr), np.int64)
    np.cumsum(np.minimum(np.diff(near.indptr), most), out=ends[1:])
    picked = np.empty(ends[-1], np.int32)
    _herd(near.indptr, near.indices, np.ascontiguousarray(factors), ends, picked)  # compiled for one layout only
    return ends, picked


@njit(cache=True, parallel=True)
def _herd(indptr, neighbors, factors, ends, picked):
    for x in prange(len(ends) - 1):
        near = neighbors[indptr[x] : indptr[x + 1]]
        seats = picked[ends[x] : ends[x + 1]]
        if len(seats) == len(near):
            seats[:] = near
        elif len(seats) > 0:
            _choose(near, factors, seats)


@njit(cache=True)
def _choose(near, factors, seats):
    """Fill the seats: in each round the neighbour i with the least |s + f_i - (a + 1) m|^2, s the sum of the a before.

    m is the mean of all.
    """
    dim = factors.shape[1]
    mean = np.zeros(dim)
    for i in near:
        mean += factors[i]
    mean /= len(near)
    wanted, taken = mean.copy(), np.zeros(len(near), np.bool_)
    for seat in range(len(seats)):
        best, least = -1, np.inf
        for j in range(len(near)):
            if not taken[j]:
                distance = 0.0
                for k in range(dim):
                    distance += (factors[near[j], k] - wanted[k]) ** 2
                if distance < least:
                    best, least = j, distance
        taken[best] = True
        seats[seat] = near[best]
        for k in range(dim):
            wanted[k] += mean[k] - factors[near[best], k]
