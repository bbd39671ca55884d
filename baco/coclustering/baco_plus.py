"""The method BACO+: a converged co-clustering, and for each id as many of its co-clusters as the budget allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baco.coclustering.cocluster import Settings, cocluster
from baco.coclustering.objective import objective, relabel
from baco.coclustering.profiles import most_codes, profile_codes
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget
from baco.compressors.budget_search import Splitting, fill_budget
from baco.compressors.compressor import CodeCompressor
from baco.embedding.bits import code_bits
from baco.embedding.codes import Assignment, Codes
from baco.embedding.rules import ManyCodes
from baco.graph import SQUARE, Biadjacency
from baco.registry import register_method
from baco.validation import Validated, setting

START = 200.0  # where the search of the resolution begins


@register_method("baco_plus")
class BacoPlus(CodeCompressor):
    """Co-clusters solved to the end, and as many of them for each id as a part of the budget allows.

    Co-clusters are those of BACO's objective, from the multilevel solver. An id has several codes: its own co-cluster
    and those of the ids it interacts with, in proportion (`profiles.profile_codes`); its embedding is the mean of their
    rows. BACO's second codes for users are the case of two codes, without proportion.
    Parameters: dim * (user rows + item rows) + the codes after the first of each id, repeats included.
    """

    label = "BACO+"

    @dataclass(frozen=True)
    class Config(Validated):
        """Of the co-clustering and of the codes.

        resolution : gamma; None searches the value that fills the budget.
        code_share : the part of the budget that codes after the first may take.
        item_ratio : the most codes of an item as a part of those of a user.
        solver, num_rounds, user_weight, item_weight : see `cocluster.Settings`, which checks them.
        """

        resolution: float | None = setting(None, at_least=0)
        code_share: float = setting(0.5, at_least=0, below=1)
        item_ratio: float = setting(0.5, at_least=0, at_most=1)
        solver: str = "multilevel"
        num_rounds: int | None = None
        user_weight: str = "sqrt"
        item_weight: str = "sqrt"

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
        a_code = 1 if budget.unit == "parameters" else code_bits(train.num_nodes) / 8
        num_codes = train.num_nodes + int(self.config.code_share * budget.limit / a_code)
        user_codes, item_codes = most = most_codes(train, num_codes, self.config.item_ratio)
        isolated = np.flatnonzero(train.joint_degrees == 0)

        def at(resolution: float) -> Assignment:
            labels = cocluster(train, resolution, seed, self.settings).labels.copy()
            labels[isolated] = isolated[:1]  # nothing tells them apart
            return coded(labels, resolution)

        def coded(labels: np.ndarray, resolution: float) -> Assignment:
            ends, codes = profile_codes(train, labels, weights, most)
            middle = ends[train.num_users]
            return Assignment(
                many_codes(ends[: train.num_users + 1], codes[:middle], train.num_nodes),
                many_codes(ends[train.num_users :] - middle, codes[middle:], train.num_nodes),
                {
                    "resolution": resolution,
                    "objective": objective(train, labels, weights, resolution),
                    "solver_seed": seed,
                    "user_codes": user_codes,
                    "item_codes": item_codes,
                },
                labels,
            )

        if self.config.resolution is not None:
            return at(self.config.resolution)
        mend = "raise the budget or lower code_share"
        splitting = Splitting(train, lambda labels, details: coded(labels, details["resolution"]))
        return fill_budget(at, budget, start=START, mend=mend, smooth=True, splitting=splitting)


def many_codes(ends: np.ndarray, labels: np.ndarray, num_labels: int) -> Codes:
    """Codes of one side from the labels, integers of [0, num_labels), of id x at `ends[x]:ends[x + 1]`."""
    distinct, codes = relabel(labels, num_labels)
    return Codes.from_rule(ManyCodes.of(ends, codes, len(distinct)), len(ends) - 1, len(distinct))
