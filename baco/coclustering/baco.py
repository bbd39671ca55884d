"""The method BACO: balanced co-clustering under a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from baco.coclustering.by_size import APART, SEARCHES, check_search, fill_by_size
from baco.coclustering.cocluster import CoClusters, Settings, cocluster, of_labels
from baco.coclustering.update import updated_labels
from baco.compressors.budget import Budget
from baco.compressors.budget_search import Nodes, Splitting, fill_budget
from baco.compressors.compressor import CodeCompressor
from baco.compressors.growth import Growth
from baco.embedding.codes import Assignment
from baco.graph import SQUARE, Biadjacency
from baco.registry import register_method
from baco.validation import setting


@register_method("baco")
class Baco(CodeCompressor):
    """Balanced co-clustering (Jiang, Yang, Wu, SIGIR 2026, arXiv 2604.18351).

    User embedding: the mean of the rows of its one or two co-clusters; item embedding: the row of its co-cluster.
    Parameters: dim * (user clusters + item clusters) + users with a second cluster.

    Deviations: the resolution is searched so that the budget is filled, where the authors tuned it by hand for one
    seed; profile 'clean' repairs what `coclustering.reference` lists.
    """

    label = "BACO"

    @dataclass(frozen=True)
    class Config(Settings):
        """The settings of the co-clustering, and three more.

        resolution : gamma; None searches the value that fills the budget.
        seed : seed of the solver; None draws one from the run's `assign` stream. The authors' is 2025.
        search : 'solves' tries resolutions with a co-clustering each; 'size' is `by_size.fill_by_size`, by which ids
            without interactions share a row.
        """

        resolution: float | None = setting(None, at_least=0)
        seed: int | None = setting(None, at_least=0)
        search: str = setting("solves", one_of=SEARCHES)

        def __post_init__(self):
            super().__post_init__()
            check_search(self.search, self.solver)

    config: Config

    def warm_up(self) -> None:
        cocluster(SQUARE, 1.0, 0, self.settings)

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        seed = int(rng.integers(2**31)) if self.config.seed is None else self.config.seed

        def solve(resolution: float) -> CoClusters:
            return cocluster(train, resolution, seed, self.settings)

        def complete(labels: np.ndarray, resolution: float) -> CoClusters:
            return of_labels(train, labels, resolution, self.settings)

        return self.fill(train, budget, seed, solve, complete)

    def fill(
        self,
        nodes: Nodes,
        budget: Budget,
        seed: int,
        solve: Callable[[float], CoClusters],
        complete: Callable[[np.ndarray, float], CoClusters],
    ) -> Assignment:
        """The assignment that fills the budget, or that of the resolution in the settings, by any program that solves.

        Parameters
        ----------
        seed : int
            Of the solver, for the record.
        solve : callable
            From a resolution to its co-clustering.
        complete : callable
            From labels, as those of `cocluster.of_labels`, and a resolution to the co-clustering.
        """

        def at(resolution: float) -> Assignment:
            return coded(solve(resolution), resolution, seed)

        def encode(labels: np.ndarray, details: dict) -> Assignment:
            resolution = details["resolution"]
            return coded(complete(labels, resolution), resolution, seed)

        if self.config.resolution is not None:
            return at(self.config.resolution)
        if self.config.search == "size":
            assert isinstance(nodes, Biadjacency)  # as it runs in compiled code only
            return fill_by_size(encode, nodes, budget, seed, self.settings, rows=APART)
        isolated = np.count_nonzero(nodes.joint_degrees == 0)
        mend = "raise the budget or num_rounds"
        if isolated:
            mend += (
                f" ({isolated:,} ids without interactions have a row each; the method 'baco_plus' lets them share one)"
            )
        splitting = None if self.config.profile == "reference" else Splitting(nodes, encode)
        return fill_budget(at, budget, start=1.0, mend=mend, splitting=splitting)

    def update(self, old: Assignment, growth: Growth, budget: Budget, threshold: float) -> Assignment:
        labels, changed = updated_labels(old, growth, self.settings, threshold)
        resolution = old.details["resolution"]
        clusters = of_labels(growth.train, labels, resolution, self.settings)
        second = clusters.second.copy()
        kept = np.flatnonzero(~changed[: growth.before.num_users])
        second[kept] = old.users.row_names[old.users.index[kept, -1]]
        return coded(replace(clusters, second=second), resolution, old.details["solver_seed"])

    @property
    def settings(self) -> Settings:
        """The configuration without the resolution and the seed."""
        return Settings(**{field.name: getattr(self.config, field.name) for field in fields(Settings)})


def coded(clusters: CoClusters, resolution: float, seed: int) -> Assignment:
    """The assignment of a co-clustering, with details of where it comes from."""
    details = {"resolution": resolution, "objective": clusters.objective, "solver_seed": seed}
    return replace(clusters.assignment, details=details)
