"""Node weights: how heavy users and items are in the balance term of the objective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baco.errors import unknown
from baco.graph import Biadjacency

USER_SCHEMES = ("one", "sqrt", "log", "degree")
ITEM_SCHEMES = (*USER_SCHEMES, "published")
FIXED_POINT = 2**20  # one unit of an irrational weight; 1e9 nodes of weight 1e3 still fit an int64 sum


@dataclass(frozen=True, eq=False)
class NodeWeights:
    """The weights of both sides in exact integer units.

    The objective only ever reads the product w_u w_v, which is `users[u] * items[v] / normaliser`. Integers make a
    volume (a sum of weights) independent of the order of its terms: equal volumes are equal, whatever moves led
    there and however many threads added them up.

    Attributes
    ----------
    users : (num_users,) int64
    items : (num_items,) int64
    normaliser : float
        What the product of two integer weights is divided by.
    """

    users: np.ndarray
    items: np.ndarray
    normaliser: float

    @property
    def joint(self) -> np.ndarray:
        """(num_nodes,) int64, users first."""
        return np.concatenate([self.users, self.items])


def node_weights(graph: Biadjacency, user_scheme: str = "degree", item_scheme: str = "published") -> NodeWeights:
    """The weights of a scheme per side.

    A scheme gives each node a raw value r, and a side is divided by the square root of the sum of its values:

    =========  ==========  =====================================================================================
    scheme     r           with the same scheme on both sides, the objective is
    =========  ==========  =====================================================================================
    one        1           the bipartite constant Potts model
    sqrt       sqrt(d)
    log        log(1 + d)
    degree     d           Barber's bipartite modularity
    published  d           items only: d / sqrt(num_items), what the authors' program computes for its item scheme
                           'CPM'. Degree weights for users with these are the weights of the published results.
    =========  ==========  =====================================================================================

    Raises
    ------
    UserError
        When a side does not know its scheme, or the graph has no edge (every degree-based weight would be 0 / 0).
    """
    if user_scheme not in USER_SCHEMES:
        raise unknown("user_weight", user_scheme, USER_SCHEMES)
    if item_scheme not in ITEM_SCHEMES:
        raise unknown("item_weight", item_scheme, ITEM_SCHEMES)
    graph.check_interactions()
    return weights_of(graph.user_degrees, graph.item_degrees, user_scheme, item_scheme)


def weights_of(
    user_degrees: np.ndarray, item_degrees: np.ndarray, user_scheme: str = "degree", item_scheme: str = "published"
) -> NodeWeights:
    """The weights of known schemes, from the degrees alone, (num_users,) and (num_items,) int64, not all of them 0."""
    users, user_unit, user_sum = _raw_weights(user_scheme, user_degrees)
    items, item_unit, item_sum = _raw_weights(item_scheme, item_degrees)
    return NodeWeights(users, items, float(np.sqrt(user_sum * item_sum)) * user_unit * item_unit)


def integer_weights(scheme: str, degrees: np.ndarray) -> np.ndarray:
    """(n,) int64: the integer weights of nodes that need not be in the graph, in the units of `node_weights`."""
    return _raw_weights(scheme, degrees)[0]


def _raw_weights(scheme: str, degrees: np.ndarray) -> tuple[np.ndarray, int, float]:
    """Integer weights, their unit, and the sum (in units of 1) whose root the side is divided by."""
    if scheme == "one":
        return np.ones_like(degrees), 1, float(len(degrees))
    if scheme == "degree":
        return degrees, 1, float(degrees.sum())
    if scheme == "published":
        return degrees, 1, float(len(degrees))
    values = np.sqrt(degrees) if scheme == "sqrt" else np.log1p(degrees)
    weights = np.rint(values * FIXED_POINT).astype(np.int64)
    return weights, FIXED_POINT, float(values.sum())
