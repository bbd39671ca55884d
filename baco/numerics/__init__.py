"""Arithmetic that knows nothing of recommenders."""
