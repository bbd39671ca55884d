"""Co-clusters of a graph that has grown: what they were, and what new interactions, users and items make of them."""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from baco.coclustering.cocluster import Settings, label_ranks
from baco.coclustering.fold_in import NO_LABEL, FoldIn
from baco.coclustering.objective import best_label, volumes
from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.weights import NodeWeights, node_weights
from baco.compressors.growth import Growth
from baco.embedding.codes import SIDES, Assignment
from baco.errors import SettingError, UserError
from baco.graph import Biadjacency

THRESHOLD = 0.2  # the gain for which an old id moves; at 0.1 one of BACO's labels brings many others after it
LEAST = 1e-9  # what a gain must be above rounding, as a part of an id's interactions
MOST_ROUNDS = 50  # they end long before


def updated_labels(
    old: Assignment, growth: Growth, settings: Settings, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """`update_labels` from those of an assignment, (num_nodes,) int32; and (num_nodes,) bool, whether one is new.

    An old id that had no interactions and has some now is placed as a new one.

    Raises
    ------
    UserError
        When the assignment does not know its labels.
    """
    if old.labels is None:
        raise UserError(
            "the export does not say which co-clusters its codes stand for, as one of an earlier version; export it "
            "again by `baco run` with force=true"
        )
    before = growth.spread(old.labels, NO_LABEL)
    known = before.copy()
    known[(growth.widened.joint_degrees == 0) & (growth.train.joint_degrees > 0)] = NO_LABEL
    resolution, seed = old.details["resolution"], old.details["solver_seed"]
    labels = update_labels(growth.train, known, resolution, seed, settings, threshold, growth.widened)
    return labels, labels != before


def spliced(
    kept: tuple[np.ndarray, np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray], changed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of which some are kept: ends, (num_ids + 1,) int64, and the codes of id x at `codes[ends[x]:ends[x + 1]]`.

    Parameters
    ----------
    kept : starts, lengths, codes
        Those of id x are `codes[starts[x]:][:lengths[x]]`.
    new : ends, codes
        For ids that changed.
    changed : (num_ids,) bool
    """
    (starts, lengths, kept_codes), (new_ends, new_codes) = kept, new
    lengths = np.where(changed, np.diff(new_ends), lengths)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    shifts = np.where(changed, len(kept_codes) + new_ends[:-1], starts) - ends[:-1]
    return ends, np.concatenate([kept_codes, new_codes])[np.repeat(shifts, lengths) + np.arange(ends[-1])]


def update_labels(
    graph: Biadjacency,
    labels: np.ndarray,
    resolution: float,
    seed: int,
    settings: Settings = Settings(),
    threshold: float = THRESHOLD,
    before: Biadjacency | None = None,
) -> np.ndarray:
    """Labels of all nodes of a graph, from those that some of them have already.

    First, nodes without a label get one by half-rounds against those that have one (`FoldIn`), items and users in turn:
    the best one of their neighbours', however low its score is, so that no row is needed that is not there. A part of
    the graph that is all new has no such neighbours; each of its nodes begins with a label of its own.
    Then the alternating solver goes on from there. New nodes move as in it; an old one moves only if that raises the
    objective by a part of its number of interactions, so that few codes change that others may rely on. Where labels
    are no fixed point, because the solver stopped early or co-clusters were split to fill a budget, many old ids gain
    by a move that nothing new speaks for: with `before` given, what an id could have gained then does not count.

    The objective of the result is no lower than after the first step.

    Parameters
    ----------
    graph : Biadjacency
        With all interactions, old and new.
    labels : (num_nodes,) integers in [0, num_nodes), users first
        -1 for a node without a label. Equal numbers are one co-cluster; which numbers they are does not matter but for
        ties. A node that had a label and no interactions is best given as one without.
    resolution, seed, settings : as for `cocluster`
        Of the settings only the weights count: whichever solver found the labels, the alternating one goes on.
    threshold : float
        The gain for which an old node moves, as a part of its interactions; infinite: none does.
    before : Biadjacency, optional
        The interactions that the labels come from, of the same nodes.

    Returns
    -------
    (num_nodes,) int32 : the labels that stay have their numbers. All nodes that have neither a label nor interactions
        have one, that of an old node without interactions if there is one.

    Raises
    ------
    UserError
        When the graph has no interactions, or the threshold is negative.
    """
    if not threshold >= 0:
        raise SettingError("threshold", threshold, "must be 0 or more, or inf")
    weights = node_weights(graph, settings.user_weight, settings.item_weight)
    degrees, old = graph.joint_degrees, labels != NO_LABEL
    labels = labels.astype(np.int32)
    sides = dict(zip(SIDES, np.split(labels, [graph.num_users]), strict=True))  # views
    left = None
    while left != (left := int(np.count_nonzero(labels == NO_LABEL))):
        for side in reversed(SIDES):
            found = FoldIn.of(graph, labels, resolution, seed, settings, side).labels(graph)
            np.copyto(sides[side], found, where=sides[side] == NO_LABEL)
    _label_the_rest(labels, degrees == 0, old)
    margins = np.where(old, max(threshold, LEAST), 0.0) * np.maximum(degrees, 1)
    ranks = label_ranks(graph.num_nodes, seed)
    if before is not None:
        weights_then = node_weights(before, settings.user_weight, settings.item_weight)
        margins[old] += possible_gains(before, labels, weights_then, resolution)[old]
    return alternating(graph, weights, resolution, MOST_ROUNDS, ranks, labels, margins)


def possible_gains(graph: Biadjacency, labels: np.ndarray, weights: NodeWeights, resolution: float) -> np.ndarray:
    """(num_nodes,) float64: what the objective would gain if a node alone moved to the best label of its neighbours.

    0 where its own is the best. `labels` are (num_nodes,) int32 in [0, num_nodes).
    """
    users, items = np.split(labels, [graph.num_users])
    user_volume, item_volume = (
        volumes(side, own, graph.num_nodes) for side, own in ((users, weights.users), (items, weights.items))
    )
    links = np.zeros((get_num_threads(), graph.num_nodes), np.int32)
    scratch = resolution / weights.normaliser, np.arange(graph.num_nodes), links, np.empty_like(links)
    return np.concatenate(
        [
            _possible_gains(*graph.by_user, weights.users, users, items, item_volume, *scratch),
            _possible_gains(*graph.by_item, weights.items, items, users, user_volume, *scratch),
        ]
    )


@njit(cache=True, parallel=True)
def _possible_gains(indptr, neighbors, weights, labels, other_labels, other_volume, penalty, ranks, links, touched):
    """Of one side; rows of `links` and `touched` are the scratch of a thread, `links` comes and is left all zero."""
    gains = np.zeros(len(labels))
    for x in prange(len(labels)):
        own, near = labels[x], neighbors[indptr[x] : indptr[x + 1]]
        scale, thread = penalty * weights[x], get_thread_id()
        best, _ = best_label(own, near, other_labels, scale, other_volume, ranks, links[thread], touched[thread])
        gain = scale * (other_volume[own] - other_volume[best])
        for neighbor in near:
            label = other_labels[neighbor]
            gain += np.int64(label == best) - np.int64(label == own)
        gains[x] = gain
    return gains


def _label_the_rest(labels: np.ndarray, isolated: np.ndarray, old: np.ndarray) -> None:
    """Give a label of its own to each node without one, and one to all of them that are isolated; in place."""
    rest = labels == NO_LABEL
    apart, alone = np.flatnonzero(rest & ~isolated), np.flatnonzero(rest & isolated)
    free = np.setdiff1d(np.arange(len(labels), dtype=np.int32), labels)
    labels[apart] = free[: len(apart)]
    shared = labels[isolated & old]
    labels[alone] = shared[:1] if len(shared) else free[len(apart) : len(apart) + 1]
