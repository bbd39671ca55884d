"""A given number of co-clusters by the multilevel solver: what fills a budget without a solve for each try."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.solvers.multilevel import MOST_ROUNDS, Coarse, cycles
from baco.coclustering.weights import NodeWeights
from baco.graph import Biadjacency

START = 1 / 8  # resolution per co-cluster: between what Beauty and Gowalla need
STEP = 4.0  # the most that a resolution changes by from one try to the next
MOST_LOG = math.log(STEP)
NEAR = 1.15  # so near the resolution of the first step need not change
AIM = 1.03  # of the number, before the cycles after the first: they lose some co-clusters
ENOUGH = 0.015  # so near the aim (in logarithms) is near enough
MOST_PLACES = 8
MOST_TRIES = 8
CHOICE = 16  # pairs looked at for one to join


def multilevel_of_size(
    graph: Biadjacency, weights: NodeWeights, size: int, num_cycles: int, ranks: np.ndarray
) -> tuple[np.ndarray, float]:
    """Co-clusters of a number, in the time of two to five calls of `multilevel`; and the resolution that it took.

    The resolution is looked for on the co-clusters that the first step leaves, several times as many as will be: they
    are joined at several resolutions. Where that leads far from the resolution of the step itself, the step is done
    again at the one found. The cycles then go on from there as in `multilevel`. Their number of co-clusters is off by a
    few per cent. So the pairs that cost the objective the least join, or parts that the first step had kept apart are
    split off, and single nodes move once more.

    Parameters
    ----------
    size : int
        The number of co-clusters; each node without interactions is one. Fewer where there are no parts to split off,
        or where the last moves leave some empty; more where too few of them have interactions with each other.
    num_cycles, ranks
        Those of `multilevel`.

    Returns
    -------
    labels : (num_nodes,) int32, users first
    resolution : float
    """
    resolution, aim = size * START, AIM * size
    for _ in range(MOST_PLACES):
        before = resolution
        fine = alternating(graph, weights, resolution, MOST_ROUNDS, ranks)
        coarse = Coarse.of(graph, weights, fine)
        labels, resolution = _joined_to(coarse, weights, aim, resolution, ranks)
        if 1 / NEAR < resolution / before < NEAR:
            break
    labels = cycles(graph, weights, resolution, num_cycles - 1, ranks, labels)
    labels = split_up(graph, size, trimmed(graph, weights, resolution, size, labels), fine)
    return alternating(graph, weights, resolution, MOST_ROUNDS, ranks, labels), resolution


def _joined_to(
    coarse: Coarse, weights: NodeWeights, size: float, resolution: float, ranks: np.ndarray
) -> tuple[np.ndarray, float]:
    """Labels of about `size` co-clusters after they have joined, and the resolution at which; the search begins at one.

    With too few co-clusters to begin with, they are left as they are, and the resolution is four times as high.
    """
    if len(coarse.born) < min(size, len(coarse.clusters)):
        return coarse.born[coarse.clusters].astype(np.int32), resolution * STEP
    tries: dict[float, tuple[float, np.ndarray]] = {}  # by resolution: log(found / size), labels
    while len(tries) < MOST_TRIES:
        labels = coarse.joined(resolution / weights.normaliser, ranks)
        off = math.log(count(labels) / size)
        tries[resolution] = off, labels
        if abs(off) < ENOUGH:
            break
        low = max((knob for knob, (off, _) in tries.items() if off < 0), default=None)
        high = min((knob for knob, (off, _) in tries.items() if off > 0 and knob > (low or 0)), default=None)
        if low is None or high is None:
            resolution *= math.exp(-max(-MOST_LOG, min(MOST_LOG, off)))
        else:
            part = tries[low][0] / (tries[low][0] - tries[high][0])
            resolution = low * (high / low) ** min(max(part, 0.1), 0.9)
    best = min(tries, key=lambda knob: abs(tries[knob][0]))
    return tries[best][1], best


def count(labels: np.ndarray) -> int:
    """How many distinct labels there are."""
    return int(np.count_nonzero(np.bincount(labels)))


def trimmed(graph: Biadjacency, weights: NodeWeights, resolution: float, size: int, labels: np.ndarray) -> np.ndarray:
    """Labels of `size` co-clusters at most: pairs that lose the objective the least have joined.

    A co-cluster is in one pair a turn. Only those with interactions between them join.
    """
    surplus = count(labels) - size
    while surplus > 0:
        coarse = Coarse.of(graph, weights, labels)
        left, right, counts = coarse.links.pairs()
        if len(left) == 0:
            break
        users, items = coarse.user_weight.astype(np.float64), coarse.item_weight.astype(np.float64)
        balance = users[left] * items[right] + items[left] * users[right]
        loss = resolution / weights.normaliser * balance - counts
        last = min(CHOICE * surplus, len(loss)) - 1
        cheap = np.flatnonzero(loss <= np.partition(loss, last)[last])
        order = cheap[np.argsort(loss[cheap], kind="stable")]
        joined = np.arange(len(coarse.born))
        surplus -= _pair_up(left[order], right[order], surplus, joined)
        labels = coarse.born[joined[coarse.clusters]].astype(np.int32)
    return labels


def split_up(graph: Biadjacency, size: int, labels: np.ndarray, finer: np.ndarray) -> np.ndarray:
    """Labels of `size` co-clusters at least, as far as finer labels split them; a part is what two nodes share in both.

    The part with the most interactions stays; of the others those with the most are split off first, those without
    never.
    """
    lack = size - count(labels)
    if lack <= 0:
        return labels
    pairs, part_of = np.unique(labels.astype(np.int64) * graph.num_nodes + finer, return_inverse=True)
    interactions = np.bincount(part_of, graph.joint_degrees)
    order = np.argsort(-interactions, kind="stable")
    _, stay = np.unique(pairs[order] // graph.num_nodes, return_index=True)
    off = np.delete(order, stay)
    off = off[interactions[off] > 0][:lack]
    unused = np.flatnonzero(np.bincount(labels, minlength=graph.num_nodes) == 0)
    label_of = (pairs // graph.num_nodes).astype(np.int32)
    label_of[off] = unused[: len(off)]
    return label_of[part_of]


@njit(cache=True)
def _pair_up(left, right, most, joined):
    """Let pairs join in their order, `most` at most, each of whose two is in no pair before; how many did."""
    taken = np.zeros(len(joined), np.bool_)
    found = 0
    for i in range(len(left)):
        if found == most:
            break
        one, other = left[i], right[i]
        if not (taken[one] or taken[other]):
            taken[one] = taken[other] = True
            joined[other] = one
            found += 1
    return found
