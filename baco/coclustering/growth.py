"""From the labels of a graph to those of the graph that it has grown into."""

from __future__ import annotations

import numpy as np

from baco.coclustering.cocluster import Settings
from baco.coclustering.fold_in import NO_LABEL
from baco.coclustering.update import update_labels
from baco.graph import Biadjacency


def grown_labels(
    graph: Biadjacency, labels: np.ndarray, before: Biadjacency, resolution: float, seed: int, settings: Settings
) -> np.ndarray:
    """Labels of a graph, from those that its old ids had: see `update_labels`.

    Parameters
    ----------
    labels : (before.num_nodes,) integers, users first
    before : Biadjacency
        The graph then; its ids are the first ones of each side.
    resolution, seed, settings : as for `cocluster`

    Returns
    -------
    (graph.num_nodes,) int32
    """
    grown = renumbered(labels, before, graph)
    then = Biadjacency(graph.num_users, graph.num_items, before.users, before.items)
    grown[then.joint_degrees == 0] = NO_LABEL  # nothing is known of them
    return update_labels(graph, grown, resolution, seed, settings, before=then)


def renumbered(labels: np.ndarray, before: Biadjacency, graph: Biadjacency) -> np.ndarray:
    """(graph.num_nodes,) int32: the labels of old ids in a graph that has grown, -1 for new ids.

    Labels are numbers of nodes, and items follow users: those that were born at items move on by the new users.
    """
    labels = np.where(labels < before.num_users, labels, labels + graph.num_users - before.num_users)
    users, items = np.split(labels, [before.num_users])
    grown = np.full(graph.num_nodes, NO_LABEL, np.int32)
    grown[: before.num_users] = users
    grown[graph.num_users : graph.num_users + before.num_items] = items
    return grown
