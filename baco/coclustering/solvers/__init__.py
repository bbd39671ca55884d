"""Solvers of balanced co-clustering: from a biadjacency to labels."""
