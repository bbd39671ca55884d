"""Placement: which device of several holds which row of the embedding tables."""
