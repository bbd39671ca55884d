"""The k best items of each user by dot product, exactly, in blocks of users.

Ties are the normal case: under MF, items that share their codes have the same score. Items with equal scores are
ordered by a random permutation that is fixed per dataset, never by id. Three things make that hold on every device:

* items whose final embeddings are equal are scored once and share the number, whatever the product rounds to;
* positions are numbered in the order of the permutation, and the lower position wins a tie;
* every block has the same number of users, so that the product's rounding cannot depend on how many are ranked.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import get_num_threads, get_thread_id, njit, prange
from torch import Tensor

from baco.graph import Neighbors

CPU_BLOCK = 256  # users
GPU_BLOCK_SCORES = 2**26  # scores alive at once: 256 MiB of float32 and about eight times that of sort keys
NO_ITEM = -1


def rank_items(
    user_rows: Tensor, item_rows: Tensor, users: np.ndarray, seen: Neighbors, tie_order: np.ndarray, k: int
) -> np.ndarray:
    """The k items with the highest scores for each of some users, items they have already left out.

    Parameters
    ----------
    user_rows : (num_users, dim) float32
    item_rows : (num_items, dim) float32, on the same device
        Final embeddings; the score of a pair is their dot product.
    users : (m,) integers
        Whom to rank for.
    seen : Neighbors
        The items by user that are not ranked.
    tie_order : (num_items,) integers
        A permutation of the items: of two items with equal scores, the one that stands first in it ranks higher.

    Returns
    -------
    (m, k) int32 : item ids, best first; -1 where a user has fewer than k items left.

    Raises
    ------
    FloatingPointError
        When an embedding is not finite: the training diverged.
    """
    if not (torch.isfinite(user_rows).all() and torch.isfinite(item_rows).all()):
        raise FloatingPointError("the final embeddings hold NaN or infinite values: the training diverged")
    device, num_items = user_rows.device, len(item_rows)
    on_cpu = device.type == "cpu"
    block = CPU_BLOCK if on_cpu else max(1, GPU_BLOCK_SCORES // num_items)
    distinct, column = _distinct_rows(item_rows[torch.as_tensor(tie_order, device=device)])
    position = np.empty(num_items, np.int64)
    position[tie_order] = np.arange(num_items)
    scores = torch.empty(block, len(distinct), device=device)
    rows = torch.zeros(block, user_rows.shape[1], device=device)
    best = np.empty((len(users), k), np.int64)
    for start in range(0, len(users), block):
        chosen = users[start : start + block]
        rows[: len(chosen)] = user_rows[torch.as_tensor(chosen, dtype=torch.int64, device=device)]
        torch.mm(rows, distinct.T, out=scores)
        if on_cpu:
            hidden = np.zeros((get_num_threads(), num_items), np.bool_)
            _top_positions(scores.numpy(), column.numpy(), chosen, *seen, position, hidden, best[start : start + block])
        else:
            best[start : start + block] = top_positions(scores[: len(chosen)], column, chosen, seen, position, k)
    return np.where(best == NO_ITEM, NO_ITEM, np.asarray(tie_order)[best]).astype(np.int32)


def _distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each distinct row once, and for every row the number of its like."""
    bits = (rows + 0.0).view(torch.int32).to(torch.int64)  # adding 0 turns -0 into 0
    odd = np.random.default_rng(0).integers(-(2**62), 2**62, rows.shape[1]) * 2 + 1
    keys = (bits * torch.as_tensor(odd, device=rows.device)).sum(1)  # modulo 2^64: equal rows, equal keys
    _, inverse = torch.unique(keys, return_inverse=True)
    like = torch.empty(int(inverse.max()) + 1, dtype=torch.int64, device=rows.device)
    like[inverse] = torch.arange(len(rows), device=rows.device)
    return rows[like].contiguous(), inverse


def top_positions(
    scores: Tensor, column: Tensor, users: np.ndarray, seen: Neighbors, position: np.ndarray, k: int
) -> np.ndarray:
    """`_top_positions` in torch operations, for GPUs.

    A score and a position make one integer key: the float's bits, mapped so that integers order as the floats do, above
    the reversed position. Keys are distinct, so that the largest k are the same whatever the device's algorithm.
    """
    num_items = len(column)
    row, item = _seen_pairs(users, seen)
    expanded = scores[:, column]
    expanded[torch.as_tensor(row), torch.as_tensor(position[item])] = -torch.inf
    bits = (expanded + 0.0).view(torch.int32).to(torch.int64)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = ordered * 2**32 + torch.arange(num_items - 1, -1, -1, device=scores.device)
    top = keys.topk(min(k, num_items), sorted=True).values
    best = num_items - 1 - (top & 0xFFFFFFFF)
    best[top >> 32 == ordered_minus_infinity()] = NO_ITEM
    padded = np.full((len(users), k), NO_ITEM, np.int64)
    padded[:, : best.shape[1]] = best.cpu().numpy()
    return padded


def ordered_minus_infinity() -> int:
    return int(np.float32(-np.inf).view(np.int32)) ^ 0x7FFFFFFF


def _seen_pairs(users: np.ndarray, seen: Neighbors) -> tuple[np.ndarray, np.ndarray]:
    """The (place in `users`, item) pairs of all seen items, two (n,) arrays."""
    indptr, indices = seen
    counts = indptr[users + 1] - indptr[users]
    ends = np.cumsum(counts)
    offsets = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
    return np.repeat(np.arange(len(users)), counts), indices[np.repeat(indptr[users], counts) + offsets]


@njit(parallel=True, cache=True)
def _top_positions(scores, column, users, seen_indptr, seen_items, position, hidden, best):
    """Fill best[i] with the positions of the k highest scores of user i, best first, NO_ITEM where there are fewer.

    The score at a position is scores[i, column[position]]. `hidden` has a row per thread; it must come, and is left,
    all False. Positions are walked upwards and kept in a heap whose root is the worst: a later position replaces the
    root only with a higher score, so that the lower position wins a tie.
    """
    k = best.shape[1]
    for i in prange(len(users)):
        mask = hidden[get_thread_id()]
        user_seen = seen_items[seen_indptr[users[i]] : seen_indptr[users[i] + 1]]
        for item in user_seen:
            mask[position[item]] = True
        row = scores[i]
        heap_scores = np.empty(k, np.float32)
        heap = best[i]
        size = 0
        for place in range(len(column)):
            score = row[column[place]]
            if size == k and score <= heap_scores[0]:
                continue
            if mask[place]:
                continue
            if size < k:
                node = size
                size += 1
                while node > 0 and not _worse(heap_scores[(node - 1) // 2], heap[(node - 1) // 2], score, place):
                    heap_scores[node], heap[node] = heap_scores[(node - 1) // 2], heap[(node - 1) // 2]
                    node = (node - 1) // 2
                heap_scores[node], heap[node] = score, place
            else:
                _sink(heap_scores, heap, k, score, place)
        for last in range(size - 1, 0, -1):  # the worst to the end, again and again
            score, place = heap_scores[last], heap[last]
            heap_scores[last], heap[last] = heap_scores[0], heap[0]
            _sink(heap_scores, heap, last, score, place)
        heap[size:] = NO_ITEM
        for item in user_seen:
            mask[position[item]] = False


@njit(cache=True)
def _worse(score, place, other_score, other_place):
    return score < other_score or (score == other_score and place > other_place)


@njit(cache=True)
def _sink(heap_scores, heap, size, score, place):
    """Put an entry at the root of a heap of `size` entries and let it sink below everything that is worse."""
    node = 0
    while 2 * node + 1 < size:
        child = 2 * node + 1
        if child + 1 < size and _worse(heap_scores[child + 1], heap[child + 1], heap_scores[child], heap[child]):
            child += 1
        if not _worse(heap_scores[child], heap[child], score, place):
            break
        heap_scores[node], heap[node] = heap_scores[child], heap[child]
        node = child
    heap_scores[node], heap[node] = score, place
