"""How far embeddings lie from those of the full model (the paper's Table 9)."""

from __future__ import annotations

import numpy as np
from scipy.linalg import orthogonal_procrustes

from baco.embedding.codes import SIDES
from baco.embedding.tables import EmbeddingTables

Pair = tuple[np.ndarray, np.ndarray]


def embeddings(tables: EmbeddingTables) -> Pair:
    """Layer 0 of the users and of the items, (n, dim) float32 each."""
    users, items = (side.detach().cpu().numpy() for side in tables())
    return users, items


def distances(found: Pair, full: Pair) -> dict[str, float]:
    """Mean Euclidean distances of embeddings to the full model's, id by id. Narrower ones are as if zeros followed.

    Two trainings of one and the same model agree at best up to a rotation of all embeddings, which changes no score. So
    there are two kinds: as the embeddings are, which is what the paper gives; and after the rotation (or reflection) of
    all users and items together that brings them nearest (Schönemann, Psychometrika 1966).

    Returns
    -------
    dict : `users`, `items`, `all` and, after the rotation, `rotated_users`, `rotated_items`, `rotated_all`.
    """
    ours, theirs = np.concatenate(found), np.concatenate(full)
    ours = np.pad(ours, ((0, 0), (0, theirs.shape[1] - ours.shape[1])))
    rotation, _ = orthogonal_procrustes(ours, theirs)
    means: dict[str, float] = {}
    for prefix, moved in (("", ours), ("rotated_", ours @ rotation)):
        apart = np.linalg.norm(moved - theirs, axis=1)
        sides = dict(zip(SIDES, np.split(apart, [len(found[0])]), strict=True)) | {"all": apart}
        means |= {f"{prefix}{name}": float(values.mean(dtype=np.float64)) for name, values in sides.items()}
    return means
