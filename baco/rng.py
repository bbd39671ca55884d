"""Randomness: one seed becomes named streams, so that adding a consumer cannot shift the draws of another.

The streams are `synthetic` (generated data), `split` (which interactions are held out), `assign` (codes), `init` (first
values of the rows), `search` (of a method that trains before the training proper), `sampling` (batches and negatives),
`quantize` (the seeds of k-means), `ties` (the order of items with equal scores) and `ranked` (for whom is ranked, where
not for all).
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator of a named stream."""
    return np.random.default_rng(_entropy(seed, name))


def torch_stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The same for draws made by torch on a device. Draws differ between CPU and GPU."""
    state = _entropy(seed, name).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def _entropy(seed: int, name: str) -> np.random.SeedSequence:
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.SeedSequence([seed, int.from_bytes(digest[:8], "little")])
