"""A given number of co-clusters by the multilevel solver: what fills a budget without a solve for each try."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
from numba import njit

from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.solvers.multilevel import MOST_ROUNDS, Coarse
from baco.coclustering.weights import NodeWeights
from baco.compressors.budget_search import parting
from baco.graph import Biadjacency

START = 0.06  # of `first_resolution`, per co-cluster: rather more than most graphs need, as joining mends that
STEP = 4.0  # the most that a resolution changes by from one try to the next
MOST_LOG = math.log(STEP)
HIGHER = 1.5  # the first step is done again where it takes a resolution so many times as high
FIRST_AIM, LATER_AIM = 1.06, 1.03  # of the number, in the first cycle and after: the moves that follow lose some
FIRST_NEAR, LATER_NEAR = 0.04, 0.02  # so near the aim (in logarithms) is near enough
SLOPE, LEAST_SLOPE, MOST_SLOPE = 0.6, 0.25, 1.5  # of log(co-clusters) by log(resolution)
MOST_PLACES = 8
MOST_TRIES = 6
CHOICE = 16  # pairs looked at for one to join


def multilevel_of_size(
    graph: Biadjacency,
    weights: NodeWeights,
    size: int,
    num_cycles: int,
    ranks: np.ndarray,
    counted: Sequence[np.ndarray],
) -> tuple[np.ndarray, float]:
    """Co-clusters of a number, in about the time of one to two calls of `multilevel`; and the resolution that it took.

    It takes longer where few co-clusters are wanted of many nodes.

    The first step of a solve is done at a resolution that is rather too high, which leaves more co-clusters than will
    be. They join at several resolutions, until about the right number is left. Only where even the first resolution was
    too low is the first step done again, at the one found. The later cycles go on from there, and each sets the
    resolution right once more: on the few co-clusters that there are by then this costs little. In the end their number
    is off by a few per cent. So the pairs that cost the objective the least join, or parts that the first step
    had kept apart are split off, and single nodes move once more.

    Parameters
    ----------
    size : int
        How many labels, as `count` counts them. There are fewer where nodes are fewer, and more where too few
        co-clusters have interactions with each other.
    num_cycles, ranks
        Those of `multilevel`.
    counted : sequence of arrays of nodes, users first
        Each has a row for each label of its nodes.

    Returns
    -------
    labels : (num_nodes,) int32, users first, of [0, num_nodes)
    resolution : float
    """
    resolution = first_resolution(graph, weights, size / len(counted))
    if size >= sum(map(len, counted)):
        return np.arange(graph.num_nodes, dtype=np.int32), resolution

    def joined(labels: np.ndarray, aim: float, near: float) -> tuple[np.ndarray, float]:
        """See `_joined_to`; too few stay as they are, and the resolution is higher by what they lack, up to `STEP`."""
        lack = math.log(aim * size / count(labels, counted))
        if lack > 0:
            return labels.copy(), resolution * math.exp(min(MOST_LOG, lack))  # `fine` must not move with them
        coarse = Coarse.of(graph, weights, labels, resolution)
        return _joined_to(coarse, aim * size, near, resolution, weights, ranks, counted)

    for _ in range(MOST_PLACES):
        before = resolution
        fine = alternating(graph, weights, resolution, MOST_ROUNDS, ranks)
        labels, resolution = joined(fine, FIRST_AIM, FIRST_NEAR)
        if resolution < HIGHER * before:
            break
    for _ in range(num_cycles - 1):
        labels = alternating(graph, weights, resolution, MOST_ROUNDS, ranks, labels)
        labels, resolution = joined(labels, LATER_AIM, LATER_NEAR)
    for _ in range(2):  # the moves after a few joined or split may leave some empty, or hold a side that they did not
        labels = alternating(graph, weights, resolution, MOST_ROUNDS, ranks, labels)
        labels = trimmed(graph, weights, resolution, size, labels, counted)
        labels = split_up(graph, size, labels, fine, counted)
    return labels, resolution


def first_resolution(graph: Biadjacency, weights: NodeWeights, size: float) -> float:
    """Where to begin for so many co-clusters.

    At resolution 1 in its units the balance term of one co-cluster of all nodes is the number of interactions, by any
    weights.
    """
    whole = float(weights.users.sum()) * float(weights.items.sum())
    return START * size * graph.num_edges * weights.normaliser / whole


def count(labels: np.ndarray, counted: Sequence[np.ndarray]) -> int:
    """How many distinct labels some nodes have, summed over several sets of them."""
    return sum(int(np.count_nonzero(np.bincount(labels[nodes]))) for nodes in counted)


def _joined_to(
    coarse: Coarse,
    size: float,
    near: float,
    resolution: float,
    weights: NodeWeights,
    ranks: np.ndarray,
    counted: Sequence[np.ndarray],
) -> tuple[np.ndarray, float]:
    """About `size` labels after co-clusters have joined, and the resolution at which; the search begins at one.

    There must be more to begin with.
    """
    tries: list[tuple[float, float, np.ndarray]] = []  # log(resolution), log(found / size), labels
    knob = math.log(resolution)
    while len(tries) < MOST_TRIES:
        labels = coarse.joined(math.exp(knob) / weights.normaliser, ranks).labels
        off = math.log(count(labels, counted) / size)
        tries.append((knob, off, labels))
        if abs(off) < near:
            break
        low = max((found for found in tries if found[1] < 0), default=None, key=itemgetter(0))
        high = min((found for found in tries if found[1] > 0), default=None, key=itemgetter(0))
        slope = SLOPE
        if len(tries) > 1:
            (one, one_off, _), (other, other_off, _) = tries[-2:] if low is None or high is None else (low, high)
            slope = min(max((other_off - one_off) / (other - one), LEAST_SLOPE), MOST_SLOPE)
        knob -= max(-MOST_LOG, min(MOST_LOG, off / slope))
        if low is not None and high is not None:
            knob = min(max(knob, 0.9 * low[0] + 0.1 * high[0]), 0.1 * low[0] + 0.9 * high[0])
    knob, _, labels = min(tries, key=lambda found: abs(found[1]))
    return labels, math.exp(knob)


def trimmed(
    graph: Biadjacency,
    weights: NodeWeights,
    resolution: float,
    size: int,
    labels: np.ndarray,
    counted: Sequence[np.ndarray],
) -> np.ndarray:
    """Labels, `size` at most: pairs that lose the objective the least have joined.

    A co-cluster is in one pair a turn. Only those with interactions between them join, and with counted nodes; those
    with weak links (`Coarse.of`) when no others are left. The last pair may save more rows than need be.
    """
    surplus = count(labels, counted) - size
    weak_at = resolution
    while surplus > 0:
        coarse = Coarse.of(graph, weights, labels, weak_at)
        holds = np.zeros((len(counted), len(coarse.born)), np.bool_)
        for row, nodes in zip(holds, counted, strict=True):
            row[coarse.clusters[nodes]] = True
        volumes = coarse.user_weight.astype(np.float64), coarse.item_weight.astype(np.float64)
        left, right, saved, loss = _joinable(*coarse.links, holds, *volumes, resolution / weights.normaliser)
        if len(left) == 0:
            if weak_at == 0:
                break
            weak_at = 0.0
            continue
        last = min(CHOICE * surplus, len(loss)) - 1
        cheap = np.flatnonzero(loss <= np.partition(loss, last)[last])
        order = cheap[np.argsort(loss[cheap], kind="stable")]
        joined = np.arange(len(coarse.born))
        surplus -= _pair_up(left[order], right[order], saved[order], surplus, joined)
        labels = coarse.born[joined[coarse.clusters]].astype(np.int32)
    return labels


def split_up(
    graph: Biadjacency, size: int, labels: np.ndarray, finer: np.ndarray, counted: Sequence[np.ndarray]
) -> np.ndarray:
    """Labels, as many more as there may be: parts of finer labels are split off and, where these are few, nodes."""
    interactions, nodes = np.zeros(graph.num_nodes, np.int64), np.concatenate(counted)
    interactions[nodes] = graph.joint_degrees[nodes]
    for parts in (finer, np.arange(graph.num_nodes)):
        if count(labels, counted) >= size:
            break
        most, with_parts = parting(labels, parts, interactions)
        leaving = bisect_right(range(1, most + 1), size, key=lambda number: count(with_parts(number), counted))
        labels = with_parts(leaving).astype(np.int32)
    return labels


@njit(cache=True)
def _joinable(indptr, neighbors, counts, holds, user_weight, item_weight, penalty):
    """The pairs of linked co-clusters that save rows if they join: both, how many rows, and what the objective loses.

    `holds`, (sets, co-clusters): whether nodes of a set are in each.
    """
    num_sets, size = holds.shape
    found = 0
    for filling in (False, True):
        left, right = np.empty((2, found), np.int32)
        saved, loss = np.empty(found, np.int8), np.empty(found, np.float64)
        found = 0
        for x in range(size):
            for place in range(indptr[x], indptr[x + 1]):
                y = neighbors[place]
                rows = 0
                if x < y:
                    for k in range(num_sets):
                        rows += holds[k, x] and holds[k, y]
                if rows > 0:
                    if filling:
                        balance = user_weight[x] * item_weight[y] + item_weight[x] * user_weight[y]
                        left[found], right[found], saved[found] = x, y, rows
                        loss[found] = penalty * balance - counts[place]
                    found += 1
    return left, right, saved, loss


@njit(cache=True)
def _pair_up(left, right, saved, surplus, joined):
    """Let pairs join in their order, each of whose two is in no pair before, until they save enough; what they did."""
    taken = np.zeros(len(joined), np.bool_)
    found = 0
    for i in range(len(left)):
        if found >= surplus:
            break
        one, other = left[i], right[i]
        if not (taken[one] or taken[other]):
            taken[one] = taken[other] = True
            joined[other] = one
            found += saved[i]
    return found
