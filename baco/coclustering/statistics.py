"""What joint clusters of users and items look like: how uneven they are, and how many interactions they keep inside."""

from __future__ import annotations

import numpy as np

from baco.coclustering.objective import internal_edges
from baco.graph import Biadjacency


def cluster_statistics(graph: Biadjacency, labels: np.ndarray) -> dict:
    """The statistics of the paper's Figure 1, and the numbers behind them.

    Parameters
    ----------
    labels : (num_nodes,) integers, users first
        Users and items of one label are one cluster.

    Returns
    -------
    dict : plain values
        count : K, the number of clusters; those of one side only are clusters too
        largest, singletons : the most nodes in a cluster, and the number of clusters with a single node
        gini : of the clusters' sizes in nodes, 0 where all are equal, see `gini`
        internal_share : the part of the interactions whose user and item share a cluster
        accl : interactions between different clusters per pair of clusters, of which there are K (K - 1) / 2
    """
    sizes = np.unique(labels, return_counts=True)[1]
    count = len(sizes)
    internal = internal_edges(graph, labels)
    return {
        "count": count,
        "largest": int(sizes.max()),
        "singletons": int(np.count_nonzero(sizes == 1)),
        "gini": gini(sizes),
        "internal_share": internal / max(1, graph.num_edges),
        "accl": (graph.num_edges - internal) / max(1, count * (count - 1) // 2),
    }


def gini(sizes: np.ndarray) -> float:
    """2/K sum_i (i/K - the share of the i smallest sizes), the paper's Gini coefficient of K positive sizes."""
    shares = np.cumsum(np.sort(sizes)) / sizes.sum()
    return float(2 * np.mean(np.arange(1, len(sizes) + 1) / len(sizes) - shares))
