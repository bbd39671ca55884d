"""Scores of many users with many items at once, in blocks that stay in the cache.

A loss over all pairs of n rows X and K rows Y needs the (n, K) products three times: for its value, and for the
gradients of X and Y. A block of rows of X is worked off completely before the next one, so that its products are made
once, stay in the cache of a CPU, and never fill the memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CPU_BLOCK, GPU_BLOCK = 2**18, 2**27  # scores: 1 MiB and 512 MiB of float32


def blocks(X: Tensor, Y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The products X Y^T by blocks of rows.

    Parameters
    ----------
    X : (n, dim) float32
    Y : (K, dim) float32

    Yields
    ------
    rows : slice
        Of X.
    products : (len(rows), K) float32
        May be overwritten; the next block takes its memory.
    """
    block = CPU_BLOCK if X.device.type == "cpu" else GPU_BLOCK
    size = min(len(X), max(1, block // max(1, len(Y))))
    room = X.new_empty(size, len(Y))
    for start in range(0, len(X), size):
        rows = slice(start, min(start + size, len(X)))
        yield rows, torch.mm(X[rows], Y.T, out=room[: rows.stop - start])
