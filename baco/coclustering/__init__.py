"""Balanced co-clustering of users and items: objective, weights, solvers, secondary user clusters, and the method."""

from baco.coclustering.cocluster import CoClusters, Settings, cocluster
from baco.coclustering.estimator import BalancedCoClustering

__all__ = ["BalancedCoClustering", "CoClusters", "Settings", "cocluster"]
