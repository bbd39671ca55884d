"""Datasets: where interactions come from, how they are split, and what is checked when they are loaded."""
