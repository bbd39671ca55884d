"""Profiles without clusters: the control that tells what clustering adds to several codes per id."""

from __future__ import annotations

import numpy as np

from baco.coclustering.baco_plus import MEND, ProfileCompressor
from baco.coclustering.profiles import profile_codes
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget
from baco.compressors.budget_search import fill_budget
from baco.embedding.codes import Assignment
from baco.graph import SQUARE, Biadjacency
from baco.registry import register_method


@register_method("random_profiles")
class RandomProfiles(ProfileCompressor):
    """BACO+ with random labels in place of its co-clusters (ours, a control).

    Each label stands for about as many users as any other, and for about as many items; their number is searched to
    fill the budget. Codes come from labels as in `baco_plus`: an id has its own and those of the ids it interacts with,
    in proportion. What BACO+ is ahead of this is what its clustering adds. Nodes without interactions share one row per
    side. Parameters: dim * (user rows + item rows) + the codes after the first of each id, repeats included.
    """

    label = "Random profiles"

    def warm_up(self) -> None:
        profile_codes(SQUARE, np.zeros(SQUARE.num_nodes, np.int32), node_weights(SQUARE), (2, 2))

    def assign(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> Assignment:
        train.check_interactions()
        encode = self.encoder(train, budget)
        connected = [np.flatnonzero(degrees) for degrees in (train.user_degrees, train.item_degrees)]
        places = np.concatenate([rng.permutation(len(nodes)) for nodes in connected])
        nodes = np.concatenate([connected[0], train.num_users + connected[1]])
        most = max(map(len, connected))

        def at(labels_wanted: float) -> Assignment:
            num_labels = min(max(round(labels_wanted), 1), most)
            labels = np.full(train.num_nodes, num_labels, np.int32)  # that of isolated nodes
            labels[nodes] = places % num_labels
            return encode(labels, {"num_labels": num_labels})

        return fill_budget(at, budget, start=max(1.0, budget.rows() / 2), mend=MEND, smooth=True)
