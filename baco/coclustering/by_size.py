"""The search by size: a budget is filled by working out how many co-clusters it holds, and making so many."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from baco.coclustering.cocluster import Settings, label_ranks, share_isolated
from baco.coclustering.solvers.sized import multilevel_of_size
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget
from baco.compressors.budget_search import ENOUGH_SHARE, Splitting, fill_budget
from baco.embedding.codes import SIDES, Assignment
from baco.embedding.cost import code_ledger
from baco.errors import SettingError
from baco.graph import Biadjacency

SEARCHES = ("solves", "size")
Encode = Callable[[np.ndarray, dict], Assignment]
Rows = Sequence[Collection[str]]  # sets of sides: a label of any node of a set has a row for each of its sides
JOINT: Rows = (SIDES,)  # where codes bring the labels of one side to the other
APART: Rows = tuple((side,) for side in SIDES)


def check_search(search: str, solver: str) -> None:
    """Refuse the search by size with a solver that cannot make a number of co-clusters (`SettingError`)."""
    if search == "size" and solver != "multilevel":
        raise SettingError("search", search, "needs solver=multilevel")


def fill_by_size(
    encode: Encode,
    train: Biadjacency,
    budget: Budget,
    seed: int,
    settings: Settings,
    mend: str = "raise the budget",
    rows: Rows = JOINT,
) -> Assignment:
    """The assignment of as many co-clusters as the budget holds, in about the time of one to two multilevel solves.

    Where what the labels cost beside rows was foreseen badly, other numbers are tried.

    Parameters
    ----------
    encode : callable
        From labels, (num_nodes,) int32 in [0, num_nodes), users first, and details with the `resolution` to the codes.
    seed : int
        Of the solver.
    settings : Settings
        Of the multilevel solver.
    mend : str
        See `fill_budget`, which also says what is raised.
    """

    def of_size(size: float) -> Assignment:
        labels, resolution = labels_of_size(train, int(size), seed, settings, rows)
        return encode(labels, {"resolution": resolution})

    size = size_for(encode, train, budget, rows)
    splitting = Splitting(train, encode)
    return fill_budget(of_size, budget, size, mend, smooth=True, splitting=splitting, good_share=ENOUGH_SHARE)


def labels_of_size(
    train: Biadjacency, size: int, seed: int, settings: Settings, rows: Rows
) -> tuple[np.ndarray, float]:
    """So many labels, summed over the sets; nodes without interactions have one for all. And the resolution."""
    weights = node_weights(train, settings.user_weight, settings.item_weight)
    numbers = dict(zip(SIDES, np.split(np.arange(train.num_nodes), [train.num_users]), strict=True))
    degrees, ranks = train.joint_degrees, label_ranks(train.num_nodes, seed)
    counted = []
    for sides in rows:
        nodes = np.concatenate([numbers[side] for side in sides])
        counted.append(nodes[degrees[nodes] > 0])
        size -= len(counted[-1]) < len(nodes)
    labels, resolution = multilevel_of_size(train, weights, max(1, size), settings.rounds, ranks, counted)
    return share_isolated(train, labels), resolution


def size_for(encode: Encode, train: Biadjacency, budget: Budget, rows: Rows) -> int:
    """How many labels, summed over the sets, make codes that cost the budget; 1 at least.

    How much there is beside rows is tried with as many rows as the budget would hold alone. In bytes codes are shorter
    with fewer rows, so it is tried again with the number found.
    """
    lengths = dict(zip(SIDES, (train.num_users, train.num_items), strict=True))
    most = [sum(lengths[side] for side in sides) for sides in rows]
    row_cost = sum(map(len, rows)) * max(1, budget.row_cost)
    each = max(1, budget.limit // row_cost)
    for _ in range(1 if budget.unit == "parameters" else 2):
        tried = min(each, *(lengths[side] for sides in rows for side in sides))
        labels = np.concatenate([np.arange(length, dtype=np.int32) % tried for length in lengths.values()])
        cost = budget.amount(code_ledger(encode(labels, {"resolution": 0.0}), budget.dim, budget.row_format()))
        each = max(1, tried + (budget.limit - cost) // row_cost)
    return min(each * len(rows), sum(most))
