"""The method BACO+: a converged co-clustering, and for each id as many of its co-clusters as the budget allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from baco.coclustering.by_size import SEARCHES, check_search, fill_by_size
from baco.coclustering.cocluster import Settings, cocluster, share_isolated
from baco.coclustering.objective import objective, relabel
from baco.coclustering.profiles import most_codes, profile_codes
from baco.coclustering.update import spliced, updated_labels
from baco.coclustering.weights import ITEM_SCHEMES, USER_SCHEMES, node_weights
from baco.compressors.budget import Budget
from baco.compressors.budget_search import Splitting, fill_budget
from baco.compressors.compressor import CodeCompressor
from baco.compressors.growth import Growth
from baco.embedding.bits import code_bits
from baco.embedding.codes import Assignment, Codes
from baco.embedding.cost import code_ledger
from baco.embedding.rules import ManyCodes
from baco.graph import SQUARE, Biadjacency
from baco.registry import register_method
from baco.validation import Validated, setting

START = 200.0  # where the search of the resolution begins
MEND = "raise the budget or lower code_share"


class ProfileCompressor(CodeCompressor):
    """A method that labels users and items alike; ids have their own label and those of the ids they interact with.

    `profiles.profile_codes` says how many of each; an id's embedding is the mean of their rows.
    Parameters: dim * (user rows + item rows) + the codes after the first of each id, repeats included.
    """

    @dataclass(frozen=True)
    class Config(Validated):
        """Of the codes.

        code_share : the part of the budget that codes after the first may take.
        item_ratio : the most codes of an item as a part of those of a user.
        user_weight, item_weight : see `cocluster.Settings`; among equal labels the one of the smallest volume is taken.
        """

        code_share: float = setting(0.5, at_least=0, below=1)
        item_ratio: float = setting(0.5, at_least=0, at_most=1)
        user_weight: str = setting("sqrt", one_of=USER_SCHEMES)
        item_weight: str = setting("sqrt", one_of=ITEM_SCHEMES)

    config: Config

    def encoder(self, train: Biadjacency, budget: Budget) -> Callable[[np.ndarray, dict], Assignment]:
        """From labels, (num_nodes,) int32 in [0, num_nodes), users first, and details of them to codes in the budget.

        Isolated nodes should have one label, as nothing tells them apart.
        """
        weights = node_weights(train, self.config.user_weight, self.config.item_weight)
        a_code = 1 if budget.unit == "parameters" else code_bits(train.num_nodes) / 8
        num_codes = train.num_nodes + int(self.config.code_share * budget.limit / a_code)
        user_codes, item_codes = most = most_codes(train, num_codes, self.config.item_ratio)

        def encode(labels: np.ndarray, details: dict) -> Assignment:
            details = details | {"user_codes": user_codes, "item_codes": item_codes}
            return coded(train, *profile_codes(train, labels, weights, most), labels, details)

        return encode

    def encode_changed(
        self, old: Assignment, growth: Growth, budget: Budget, labels: np.ndarray, changed: np.ndarray, details: dict
    ) -> Assignment:
        """Old codes, but for the nodes that changed those of `encoder`: as many for a node as there were, or fewer.

        Parameters
        ----------
        labels : (num_nodes,) int32
        changed : (num_nodes,) bool
        """
        train = growth.train
        weights = node_weights(train, self.config.user_weight, self.config.item_weight)
        sides = old.users, old.items
        bounds = sides[0].bounds, sides[0].bounds[-1] + sides[1].bounds
        starts, lengths = (
            growth.spread(np.concatenate(parts), 0)
            for parts in ([ends[:-1] for ends in bounds], [np.diff(ends) for ends in bounds])
        )
        kept = np.concatenate([side.row_names[side.index].ravel() for side in sides])
        most = old.details["user_codes"], old.details["item_codes"]
        while True:
            new = profile_codes(train, labels, weights, most)
            found = coded(
                train,
                *spliced((starts, lengths, kept), new, changed),
                labels,
                details | {"user_codes": most[0], "item_codes": most[1]},
            )
            if most[0] == 1 or budget.amount(code_ledger(found, budget.dim, budget.row_format())) <= budget.limit:
                return found
            most = most[0] - 1, max(1, math.ceil(self.config.item_ratio * (most[0] - 1)))


@register_method("baco_plus")
class BacoPlus(ProfileCompressor):
    """Co-clusters solved to the end, and as many of them for each id as a part of the budget allows.

    Co-clusters are those of BACO's objective, from the multilevel solver. An id has several codes: its own co-cluster
    and those of the ids it interacts with, in proportion (`profiles.profile_codes`); its embedding is the mean of their
    rows. BACO's second codes for users are the case of two codes, without proportion.
    Parameters: dim * (user rows + item rows) + the codes after the first of each id, repeats included.
    """

    label = "BACO+"

    @dataclass(frozen=True)
    class Config(ProfileCompressor.Config):
        """Beside those of the codes, of the co-clustering.

        resolution : gamma; None searches the value that fills the budget.
        solver, num_rounds : see `cocluster.Settings`, which checks them.
        search : 'solves' tries resolutions with a co-clustering each; 'size' works out how many co-clusters the budget
            holds and makes so many, in about the time of one to two co-clusterings (`by_size.fill_by_size`).
        """

        resolution: float | None = setting(None, at_least=0)
        solver: str = "multilevel"
        num_rounds: int | None = None
        search: str = setting("solves", one_of=SEARCHES)

        def __post_init__(self):
            super().__post_init__()
            check_search(self.search, self.solver)

    config: Config

    def __init__(self, config: Config | None = None):
        super().__init__(config)
        config = self.config
        self.settings = Settings(
            solver=config.solver,
            num_rounds=config.num_rounds,
            user_weight=config.user_weight,
            item_weight=config.item_weight,
            secondary=False,
        )

    def warm_up(self) -> None:
        labels = cocluster(SQUARE, 1.0, 0, self.settings).labels
        profile_codes(SQUARE, labels, node_weights(SQUARE), (2, 2))

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        seed = int(rng.integers(2**31))
        weights = node_weights(train, self.config.user_weight, self.config.item_weight)
        encode = self.encoder(train, budget)

        def valued(labels: np.ndarray, details: dict) -> Assignment:
            value = objective(train, labels, weights, details["resolution"])
            return encode(labels, details | {"objective": value, "solver_seed": seed})

        def at(resolution: float) -> Assignment:
            labels = cocluster(train, resolution, seed, self.settings).labels
            return valued(share_isolated(train, labels), {"resolution": resolution})

        if self.config.resolution is not None:
            return at(self.config.resolution)
        if self.config.search == "size":
            return fill_by_size(valued, train, budget, seed, self.settings, MEND)
        splitting = Splitting(train, valued)
        return fill_budget(at, budget, start=START, mend=MEND, smooth=True, splitting=splitting)

    def update(self, old: Assignment, growth: Growth, budget: Budget, threshold: float) -> Assignment:
        labels, changed = updated_labels(old, growth, self.settings, threshold)
        resolution = old.details["resolution"]
        weights = node_weights(growth.train, self.config.user_weight, self.config.item_weight)
        value = objective(growth.train, labels, weights, resolution)
        details = {"resolution": resolution, "objective": value, "solver_seed": old.details["solver_seed"]}
        return self.encode_changed(old, growth, budget, labels, changed, details)


def coded(train: Biadjacency, ends: np.ndarray, codes: np.ndarray, labels: np.ndarray, details: dict) -> Assignment:
    """The assignment in which node x, users first, has the codes `codes[ends[x]:ends[x + 1]]`, which are labels."""
    middle = ends[train.num_users]
    return Assignment(
        many_codes(ends[: train.num_users + 1], codes[:middle], train.num_nodes),
        many_codes(ends[train.num_users :] - middle, codes[middle:], train.num_nodes),
        details,
        labels,
    )


def many_codes(ends: np.ndarray, labels: np.ndarray, num_labels: int) -> Codes:
    """Codes of one side from the labels, integers of [0, num_labels), of id x at `ends[x]:ends[x + 1]`."""
    distinct, codes = relabel(labels, num_labels)
    rule = ManyCodes.of(ends, codes, len(distinct))
    return Codes.from_rule(rule, len(ends) - 1, len(distinct), names=distinct)
