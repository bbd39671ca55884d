"""Score differences of (user, positive item, negative item) triples: what a pairwise loss needs of the embeddings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor
from torch.nn.functional import embedding


class Batch(NamedTuple):
    """Triples as three int32 tensors of one length: users, items they have, and items drawn uniformly from all."""

    users: Tensor
    positives: Tensor
    negatives: Tensor


CACHE_LINE = 16  # float32 numbers


def score_differences(
    user_rows: Tensor, item_rows: Tensor, users: Tensor, positives: Tensor, negatives: Tensor
) -> Tensor:
    """(batch,) float32: z_u . (z_i - z_j) for each triple, differentiable in the rows.

    On the CPU, triples are walked by compiled code that makes no copy of the rows, and whose gradient does not depend
    on the number of threads.

    Parameters
    ----------
    user_rows, item_rows : (num_users, dim) and (num_items, dim) float32
    users, positives, negatives : (batch,) int32, on the same device
    """
    if user_rows.device.type == "cpu":
        return _ScoreDifferences.apply(user_rows, item_rows, users, positives, negatives)
    items = embedding(torch.cat([positives, negatives]), item_rows)
    return (embedding(users, user_rows) * (items[: len(users)] - items[len(users) :])).sum(1)


class _ScoreDifferences(torch.autograd.Function):
    @staticmethod
    def forward(ctx, user_rows: Tensor, item_rows: Tensor, *triples: Tensor) -> Tensor:
        ctx.save_for_backward(user_rows, item_rows, *triples)
        user_rows, item_rows, *triples = (tensor.detach().numpy() for tensor in (user_rows, item_rows, *triples))
        differences = torch.empty(len(triples[0]))
        _differences(user_rows, item_rows, *triples, differences.numpy(), (0,) * user_rows.shape[1])
        return differences

    @staticmethod
    def backward(ctx, gradient: Tensor):
        user_rows, item_rows, *triples = ctx.saved_tensors
        user_gradient, item_gradient = torch.zeros_like(user_rows), torch.zeros_like(item_rows)
        arrays = (user_rows, item_rows, *triples, gradient.contiguous(), user_gradient, item_gradient)
        _gradients(*(tensor.detach().numpy() for tensor in arrays), (0,) * _chunk_width(user_rows.shape[1]))
        return user_gradient, item_gradient, None, None, None


def _chunk_width(dim: int) -> int:
    """Columns per thread: an equal share of `dim`, though not less than a cache line."""
    counts = range(get_num_threads(), 0, -1)
    return next(dim // count for count in counts if count == 1 or (dim % count == 0 and dim // count >= CACHE_LINE))


# The width of a row comes as the length of a tuple, which is a constant to the compiler. Sums may be reassociated into
# vector registers; the order is fixed when the code is compiled.
@njit(parallel=True, cache=True, fastmath={"reassoc"})
def _differences(user_rows, item_rows, users, positives, negatives, differences, lanes):
    for b in prange(len(users)):
        user, positive, negative = users[b], positives[b], negatives[b]
        total = np.float32(0)
        for k in range(len(lanes)):
            total += user_rows[user, k] * (item_rows[positive, k] - item_rows[negative, k])
        differences[b] = total


@njit(parallel=True, cache=True)
def _gradients(user_rows, item_rows, users, positives, negatives, gradient, user_gradient, item_gradient, lanes):
    """Each thread owns some columns and walks all triples, so that every sum is taken in the order of the triples."""
    width = len(lanes)
    for chunk in prange(user_rows.shape[1] // width):
        first = chunk * width
        for b in range(len(users)):
            user, positive, negative, factor = users[b], positives[b], negatives[b], gradient[b]
            for k in range(first, first + width):
                step = factor * user_rows[user, k]
                user_gradient[user, k] += factor * (item_rows[positive, k] - item_rows[negative, k])
                item_gradient[positive, k] += step
                item_gradient[negative, k] -= step
