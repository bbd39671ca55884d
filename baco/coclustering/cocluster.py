"""One balanced co-clustering of users and items, by any of the solvers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baco.coclustering.objective import objective
from baco.coclustering.secondary import secondary_user_clusters
from baco.coclustering.solvers.alternating import alternating
from baco.coclustering.solvers.asynchronous import asynchronous
from baco.coclustering.solvers.authors import reference
from baco.coclustering.solvers.multilevel import multilevel
from baco.coclustering.weights import ITEM_SCHEMES, USER_SCHEMES, node_weights
from baco.embedding.codes import Assignment, Codes
from baco.errors import SettingError
from baco.graph import Biadjacency
from baco.validation import Limits, Validated, setting

DEFAULT_ROUNDS = {"asynchronous": 5, "alternating": 20, "multilevel": 3}
PROFILES = ("clean", "reference")
RESOLUTIONS = Limits(at_least=0)


@dataclass(frozen=True)
class Settings(Validated):
    """What defines a co-clustering beside the graph, the resolution and the seed.

    Attributes
    ----------
    solver : str
        'asynchronous', the paper's order: one random permutation of all nodes per round; or 'alternating': all items,
        then all users, in parallel; or 'multilevel': the same, and mergers of whole co-clusters, in turn.
    profile : str
        'clean' (exact volumes, the current label a candidate, seeded ties) or 'reference' (the authors' program bit
        for bit; asynchronous, with the published weights).
    num_rounds : int or None
        T, the most rounds; a solver stops earlier when nothing moves. None: 5, the paper's, for the asynchronous
        solver, 20 for the alternating one, whose labels merge more slowly at first, and 3 cycles for the multilevel
        one.
    user_weight, item_weight : str
        Weighting schemes, see `weights.node_weights`.
    secondary : bool
        Whether users get a second code (SCU).
    """

    solver: str = setting("asynchronous", one_of=DEFAULT_ROUNDS)
    profile: str = setting("clean", one_of=PROFILES)
    num_rounds: int | None = setting(None, at_least=1)
    user_weight: str = setting("degree", one_of=USER_SCHEMES)
    item_weight: str = setting("published", one_of=ITEM_SCHEMES)
    secondary: bool = True

    def __post_init__(self):
        super().__post_init__()
        published = (self.solver, self.user_weight, self.item_weight) == ("asynchronous", "degree", "published")
        if self.profile == "reference" and not published:
            only = "is the authors' program: it needs solver=asynchronous, user_weight=degree and item_weight=published"
            raise SettingError("profile", self.profile, only)

    @property
    def rounds(self) -> int:
        """T, with the default of the solver filled in."""
        return DEFAULT_ROUNDS[self.solver] if self.num_rounds is None else self.num_rounds


@dataclass(frozen=True, eq=False)
class CoClusters:
    """A co-clustering.

    Attributes
    ----------
    labels : (num_nodes,) int32
        Users first. A label is the number of the node that it was born at; users and items with one label are one
        co-cluster.
    second : (num_users,) int32
        The second label of each user, its own label where it has none.
    objective : float
        F of `labels`, see `objective.objective`.
    """

    labels: np.ndarray
    second: np.ndarray
    objective: float

    @property
    def assignment(self) -> Assignment:
        """User labels become user rows, item labels item rows, numbered side by side in ascending order."""
        num_users = len(self.second)
        users = self.labels[:num_users]
        second = (self.second,) if (self.second != users).any() else ()
        items = self.labels[num_users:]
        return Assignment(Codes.from_labels(users, *second), Codes.from_labels(items), labels=self.labels)


def cocluster(graph: Biadjacency, resolution: float, seed: int, settings: Settings = Settings()) -> CoClusters:
    """Co-cluster users and items at a resolution.

    The same seed gives the same labels, whatever the number of threads. Permutations of the rounds are those of
    `numpy.random.default_rng(seed)`, as in the authors' program (whose seed is 2025).

    Parameters
    ----------
    resolution : float
        gamma, the weight of the balance term; larger values give more and smaller clusters.

    Raises
    ------
    UserError
        When the graph has no interactions, or the resolution is negative or not finite (a `SettingError`).
    """
    RESOLUTIONS.check("resolution", resolution)
    weights = node_weights(graph, settings.user_weight, settings.item_weight)
    orders = np.random.default_rng(seed)
    ranks = label_ranks(graph.num_nodes, seed)
    if settings.profile == "reference":
        labels, second = reference(graph, resolution, settings.rounds, orders)
        if not settings.secondary:
            second = labels[: graph.num_users]
        return CoClusters(labels, second, objective(graph, labels, weights, resolution))
    if settings.solver == "asynchronous":
        labels = asynchronous(graph, weights, resolution, settings.rounds, orders, ranks)
    else:
        solve = alternating if settings.solver == "alternating" else multilevel
        labels = solve(graph, weights, resolution, settings.rounds, ranks)
    return of_labels(graph, labels, resolution, settings)


def label_ranks(num_nodes: int, seed: int) -> np.ndarray:
    """(num_nodes,) int64: the rank of each label, of which the lowest wins among equal scores."""
    return np.random.default_rng([seed, 1]).permutation(num_nodes)


def share_isolated(graph: Biadjacency, labels: np.ndarray) -> np.ndarray:
    """(num_nodes,) labels with one for all nodes without interactions, as nothing tells them apart."""
    isolated = np.flatnonzero(graph.joint_degrees == 0)
    labels = labels.copy()
    labels[isolated] = labels[isolated[:1]]
    return labels


def of_labels(graph: Biadjacency, labels: np.ndarray, resolution: float, settings: Settings = Settings()) -> CoClusters:
    """The co-clustering of given labels, (num_nodes,) int32, with the second ones of the profile 'clean'."""
    weights = node_weights(graph, settings.user_weight, settings.item_weight)
    second = labels[: graph.num_users]
    if settings.secondary:
        second = secondary_user_clusters(graph, labels, weights, resolution)
    return CoClusters(labels, second, objective(graph, labels, weights, resolution))
