"""The k best items of each user, exactly, in blocks of users: by dot products of embeddings, or by given scores.

Ties are the normal case: under MF, items that share their codes have the same score. Items with equal scores are
ordered by a random permutation that is fixed per dataset, never by id. Three things make that hold on every device:

* items whose final embeddings are equal are scored once and share the number, whatever the product rounds to;
* positions are numbered in the order of the permutation, and the lower position wins a tie;
* every block has the same number of users, so that the product's rounding cannot depend on how many are ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from baco.graph import Neighbors

CPU_USERS, CPU_ITEMS = 256, 2048  # of a block: its scores stay in the cache
GPU_USERS = 2**14  # of a block at most, where items are few
GPU_BLOCK_SCORES = 2**26  # scores alive at once: 256 MiB of float32 and about eight times that of sort keys
LANES = 64  # scores looked at together
KEYED = 2**16  # rows whose keys are computed at once: integers of twice their size
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
    (ranked,) = rank_in_blocks(user_rows, item_rows, users, seen, tie_order, k, max(len(users), 1))
    return ranked


def rank_in_blocks(
    user_rows: Tensor,
    item_rows: Tensor,
    users: np.ndarray,
    seen: Neighbors,
    tie_order: np.ndarray,
    k: int,
    size: int,
) -> Iterator[np.ndarray]:
    """What `rank_items` returns, (size, k) at a time and the rest at last; without users (0, k), once.

    All embeddings are looked at once only. `FloatingPointError` comes with the first block.
    """
    if not (_finite(user_rows) and _finite(item_rows)):
        raise FloatingPointError("the final embeddings hold NaN or infinite values: the training diverged")
    device, num_items = user_rows.device, len(item_rows)
    distinct, column = _distinct_rows(item_rows[torch.as_tensor(tie_order, device=device)])
    tie_order = np.asarray(tie_order)
    rank = _rank_on_cpu if device.type == "cpu" else _rank_on_gpu
    for start in range(0, max(len(users), 1), size):
        chosen = users[start : start + size]
        best = rank(user_rows, distinct, column, chosen, seen, tie_order, min(k, num_items))
        yield _items_at(best, tie_order, k)


def rank_scores(
    scores: Callable[[np.ndarray], np.ndarray], users: np.ndarray, seen: Neighbors, tie_order: np.ndarray, k: int
) -> np.ndarray:
    """The same for scores that are no dot products of embeddings, on the CPU.

    Parameters
    ----------
    scores : callable
        From (b,) users to their (b, num_items) float32 scores. It is asked for a block of users at a time.
    users, seen, tie_order, k : as in `rank_items`

    Returns
    -------
    (m, k) int32 : as `rank_items`

    Raises
    ------
    FloatingPointError
        When a score is not finite.
    """
    tie_order, num_items = np.asarray(tie_order), len(tie_order)
    alike = np.argsort(tie_order), np.arange(num_items + 1)  # every item has a column of its own
    kept, best = _nothing_kept(len(users), min(k, num_items))
    for start in range(0, len(users), CPU_USERS):
        chosen = slice(start, start + CPU_USERS)
        block = np.ascontiguousarray(scores(users[chosen]), np.float32)
        if not np.isfinite(block).all():
            raise FloatingPointError("the scores hold NaN or infinite values")
        _keep_best(block, 0, *alike, users[chosen], *seen, tie_order, kept[chosen], best[chosen])
    _sort_best(kept, best)
    return _items_at(best, tie_order, k)


def _items_at(best: np.ndarray, tie_order: np.ndarray, k: int) -> np.ndarray:
    """(m, k) int32: the items at the positions in `best`, NO_ITEM where there is none."""
    ranked = np.full((len(best), k), NO_ITEM, np.int32)
    ranked[:, : best.shape[1]] = np.where(best == NO_ITEM, NO_ITEM, tie_order[best])
    return ranked


def _nothing_kept(num_users: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (num_users, k) float32 and positions int64 of the best so far, before there are any."""
    return np.full((num_users, k), -np.inf, np.float32), np.full((num_users, k), NO_ITEM, np.int64)


def _finite(rows: Tensor) -> bool:
    """Whether all entries are; most often their sum tells, in one pass."""
    return bool(torch.isfinite(rows.sum()) or torch.isfinite(rows).all())


def _distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each distinct row once, and for every row the number of its like.

    Long rows come first: their scores are the highest as a rule, and once the best are found the others are passed by.
    """
    odd = np.random.default_rng(0).integers(-(2**62), 2**62, rows.shape[1]) * 2 + 1
    factors = torch.as_tensor(odd, device=rows.device)
    keys = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    for part, key in zip(rows.split(KEYED), keys.split(KEYED), strict=True):
        bits = (part + 0.0).view(torch.int32).to(torch.int64)  # adding 0 turns -0 into 0
        torch.sum(bits.mul_(factors), 1, out=key)  # modulo 2^64: equal rows, equal keys
    _, inverse = torch.unique(keys, return_inverse=True)
    places = torch.arange(len(rows), device=rows.device)
    like = torch.empty_like(places[: int(inverse.max()) + 1])
    like[inverse] = places
    order = rows[like].norm(dim=1).argsort(descending=True, stable=True)
    number = torch.empty_like(order)
    number[order] = places[: len(order)]
    return rows[like[order]].contiguous(), number[inverse]


def _blocks(user_rows: Tensor, users: np.ndarray, size: int) -> Iterator[tuple[slice, Tensor]]:
    """The rows of `size` users at a time; what the last block lacks is filled up with any."""
    rows = torch.zeros(size, user_rows.shape[1], device=user_rows.device)
    for start in range(0, len(users), size):
        chosen = torch.as_tensor(users[start : start + size], dtype=torch.int64, device=user_rows.device)
        rows[: len(chosen)] = user_rows[chosen]
        yield slice(start, start + len(chosen)), rows


def _rank_on_cpu(
    user_rows: Tensor,
    distinct: Tensor,
    column: Tensor,
    users: np.ndarray,
    seen: Neighbors,
    tie_order: np.ndarray,
    k: int,
) -> np.ndarray:
    """(m, k) int64 positions, best first; the best so far of each user are kept while blocks of items pass."""
    order, firsts = np.argsort(column.numpy(), kind="stable"), np.arange(len(distinct) + 1)
    alike = order, np.searchsorted(np.sort(column.numpy()), firsts)
    scores, best = _nothing_kept(len(users), k)
    blocks = [(start, distinct[start : start + CPU_ITEMS].T) for start in range(0, len(distinct), CPU_ITEMS)]
    for chosen, rows in _blocks(user_rows, users, CPU_USERS):
        for start, columns in blocks:
            product = torch.mm(rows, columns).numpy()
            _keep_best(product, start, *alike, users[chosen], *seen, tie_order, scores[chosen], best[chosen])
    _sort_best(scores, best)
    return best


def _rank_on_gpu(
    user_rows: Tensor,
    distinct: Tensor,
    column: Tensor,
    users: np.ndarray,
    seen: Neighbors,
    tie_order: np.ndarray,
    k: int,
) -> np.ndarray:
    """The same in torch operations."""
    num_items = len(column)
    position = np.empty(num_items, np.int64)
    position[tie_order] = np.arange(num_items)
    best = np.empty((len(users), k), np.int64)
    size = min(GPU_USERS, max(1, GPU_BLOCK_SCORES // num_items))  # whatever `users`: it may decide last bits of scores
    for chosen, rows in _blocks(user_rows, users, size):
        scores = (rows @ distinct.T)[: chosen.stop - chosen.start]
        best[chosen] = _top_positions(scores, column, users[chosen], seen, position, k)
    return best


def _top_positions(
    scores: Tensor, column: Tensor, users: np.ndarray, seen: Neighbors, position: np.ndarray, k: int
) -> np.ndarray:
    """The positions of the k highest scores of each user, best first, NO_ITEM where there are fewer.

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
    top = keys.topk(k, sorted=True).values
    best = num_items - 1 - (top & 0xFFFFFFFF)
    best[top >> 32 == ordered_minus_infinity()] = NO_ITEM
    return best.cpu().numpy()


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
def _keep_best(product, start, places, ends, users, seen_indptr, seen_items, tie_order, scores, best):
    """Let the scores of some items compete with the best so far of each user.

    Row i of `product` has the scores of user i for the distinct rows start, start + 1, ...; the items at the positions
    places[ends[c]:ends[c + 1]] have the row c. Each row of `scores` and `best` is a heap whose root is the worst entry;
    of two with equal scores that is the one with the higher position.
    """
    for i in prange(len(users)):
        row, heap_scores, heap = product[i], scores[i], best[i]
        user_seen = seen_items[seen_indptr[users[i]] : seen_indptr[users[i] + 1]]
        for first in range(0, len(row), LANES):
            last = min(first + LANES, len(row))
            promising = 0
            worst = heap_scores[0]
            for c in range(first, last):
                promising += row[c] >= worst
            if promising == 0:
                continue
            for c in range(first, last):
                if row[c] < heap_scores[0]:
                    continue
                for place in places[ends[start + c] : ends[start + c + 1]]:
                    if _worse(heap_scores[0], heap[0], row[c], place) and not _is_seen(user_seen, tie_order[place]):
                        _sink(heap_scores, heap, len(heap), row[c], place)


@njit(parallel=True, cache=True)
def _sort_best(scores, best):
    """Turn each heap into a list, best first: the worst goes to the end, again and again."""
    for i in prange(len(best)):
        heap_scores, heap = scores[i], best[i]
        for last in range(len(heap) - 1, 0, -1):
            score, place = heap_scores[last], heap[last]
            heap_scores[last], heap[last] = heap_scores[0], heap[0]
            _sink(heap_scores, heap, last, score, place)


@njit(cache=True)
def _is_seen(user_seen, item):
    place = np.searchsorted(user_seen, item)
    return place < len(user_seen) and user_seen[place] == item


@njit(cache=True)
def _worse(score, place, other_score, other_place):
    """Whether an entry ranks below another. Every item ranks above NO_ITEM, whose score is minus infinity."""
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
