"""Infomap: the communities in which a random walk is described by the shortest code."""

from __future__ import annotations

import warnings

import numpy as np

from baco.compressors.budget import Budget
from baco.compressors.budget_search import fill_budget
from baco.embedding.codes import Assignment
from baco.graph import Biadjacency
from baco.optional import optional_package
from baco.registry import register_method
from baselines.support.clustering import MatchedClustering
from baselines.support.connected import ISOLATED


@register_method("infomap")
class Infomap(MatchedClustering):
    """Infomap (Rosvall, Bergstrom, PNAS 105, 1118, 2008) by the package of that name, which is under the GPL.

    Minimises the two-level map equation L(M) = q H(Q) + sum over modules c of p_c H(P_c): the bits per step of a random
    walk whose moves between modules and inside each module have a code of their own. Users and items without
    interactions share one row per side. Parameters: as in `Clustering`.

    Native (`matched=false`) is the published comparison's: bipartite flow, in which only users are visited, and as many
    modules as there are. Matched, the default, has the plain flow of an undirected graph, in which users and items
    cluster alike, and searches the Markov time (the length of a step: Kheirkhahzadeh, Lancichinetti, Rosvall,
    Phys. Rev. E 93, 032309, 2016) that fills the budget: shorter steps give smaller modules.
    """

    label = "Infomap"

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        seed = int(rng.integers(1, 2**31))
        if not self.config.matched:
            return self.encode(train, infomap_labels(train, seed, "--two-level"))

        def at(rate: float) -> Assignment:
            flow = f"--two-level --skip-adjust-bipartite-flow --markov-time {1 / rate!r}"
            return self.encode(train, infomap_labels(train, seed, flow), markov_time=1 / rate)

        return fill_budget(at, budget, start=1.0, splitting=self.splitting(train))


def infomap_labels(graph: Biadjacency, seed: int, arguments: str) -> np.ndarray:
    """(num_nodes,) int32, users first: modules, `ISOLATED` for nodes without interactions.

    Parameters
    ----------
    seed : int
        1 or more.
    arguments : str
        Of Infomap's command line.

    Raises
    ------
    UserError
        When the package is missing.
    """
    infomap = optional_package("infomap", "the method 'infomap'", "infomap>=2.7,<3", licence="GPL")
    network = infomap.Infomap(f"--silent --seed {seed} {arguments}")
    network.bipartite_start_id = graph.num_users
    network.add_links(np.stack([graph.users, graph.num_users + graph.items], axis=1))
    labels = np.full(graph.num_nodes, ISOLATED, np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 2.16 announces 3.0, which goes without `get_modules`
        network.run()
        modules = network.get_modules()
    labels[list(modules)] = list(modules.values())
    return labels
