"""Ranking metrics, one value per user.

With h_i = 1 where the item at rank i (from 1) is relevant, R relevant items and cut-off k:

    recall@k               sum of h_i / min(k, R), as the published code of BACO and GraphHash computes it
    recall_untruncated@k   sum of h_i / R, as LightGCN's code does
    ndcg@k                 sum of h_i / log2(i + 1), over the same sum for the ideal ranking, of min(k, R) terms
    hit_rate@k             1 if any h_i is 1
    precision@k            sum of h_i / k
    mrr@k                  1 / (the first rank with h_i = 1), or 0
"""

from __future__ import annotations

import numpy as np

from baco.graph import Neighbors

METRICS = ("recall", "recall_untruncated", "ndcg", "hit_rate", "precision", "mrr")
CUTOFFS = (10, 20, 50)


def relevant_hits(ranked: np.ndarray, users: np.ndarray, relevant: Neighbors, num_items: int) -> np.ndarray:
    """(m, k) bool: whether the item at each rank is one of the user's relevant items.

    Parameters
    ----------
    ranked : (m, k) int32
        Item ids, best first; -1 for no item.
    users : (m,) integers
    relevant : Neighbors
        Relevant items by user, ascending.
    """
    owners = np.repeat(np.arange(len(relevant.indptr) - 1), np.diff(relevant.indptr))
    pairs = owners * num_items + relevant.indices
    wanted = users[:, None].astype(np.int64) * num_items + ranked
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    return (ranked >= 0) & (pairs[place] == wanted)


def user_metrics(hits: np.ndarray, num_relevant: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """All metrics at one cut-off, each (m,) float64.

    Parameters
    ----------
    hits : (m, at least k) bool
    num_relevant : (m,) integers, 1 or more
    k : int, 1 or more
    """
    users, ranks = np.divmod(np.flatnonzero(hits[:, :k]), k)  # few of the m k places; np.nonzero is much slower
    found = np.bincount(users, minlength=len(hits))
    attainable = np.minimum(k, num_relevant)
    discounts = 1 / np.log2(np.arange(k) + 2)
    ideal = np.concatenate([[0], np.cumsum(discounts)])[attainable]
    reciprocal = np.zeros(len(hits))
    reciprocal[users[::-1]] = 1 / (ranks[::-1] + 1)  # the first rank of a user is assigned last
    return {
        "recall": found / attainable,
        "recall_untruncated": found / num_relevant,
        "ndcg": np.bincount(users, discounts[ranks], len(hits)) / ideal,
        "hit_rate": (found > 0).astype(np.float64),
        "precision": found / k,
        "mrr": reciprocal,
    }
