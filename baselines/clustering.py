"""What the methods that cluster users and items together share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baco.coclustering.secondary import secondary_user_clusters
from baco.coclustering.weights import node_weights
from baco.codes import Assignment, Codes
from baco.compressor import CodeCompressor
from baco.graph import Biadjacency


class Clustering(CodeCompressor):
    """A method that labels users and items alike; those of one side with one label share a row.

    Parameters: dim * (user labels + item labels), plus the users with a second code where `secondary` is set.
    """

    @dataclass(frozen=True)
    class Config:
        """secondary : whether users get BACO's second codes (SCU) on top of this method's clusters."""

        secondary: bool = False

    def encode(self, train: Biadjacency, labels: np.ndarray, resolution: float | None = None, **details) -> Assignment:
        """Codes of a clustering.

        Parameters
        ----------
        labels : (num_nodes,) integers, users first
        resolution : float or None
            gamma of the second codes' score k(x, c) - gamma d_x D_V(c) / E, a link count less its expectation under
            degrees (Barber, 2007); that of the method, which the record then tells, or None where it has none: 1.
        details : plain values for the record
        """
        _, labels = np.unique(labels, return_inverse=True)
        labels = labels.astype(np.int32)
        users, items = labels[: train.num_users], labels[train.num_users :]
        second = ()
        if self.config.secondary:
            weights = node_weights(train, "degree", "degree")
            second = (secondary_user_clusters(train, labels, weights, 1.0 if resolution is None else resolution),)
        if resolution is not None:
            details["resolution"] = resolution
        joint = labels if np.isin(users, items).any() else None  # methods may cluster the sides apart
        return Assignment(Codes.from_labels(users, *second), Codes.from_labels(items), details, joint)
