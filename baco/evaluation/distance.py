"""How far embeddings lie from those of the full model (the paper's Table 9)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.linalg import orthogonal_procrustes

from baco.embedding.codes import SIDES
from baco.embedding.tables import CodebookTables, EmbeddingTables
from baco.errors import SettingError
from baco.files import read_arrays
from baco.serving.recommender import exported_config

ALTERED = frozenset(("quantize", "popularity", "start"))  # settings that the full model's run must not have

Pair = tuple[np.ndarray, np.ndarray]


def embeddings(tables: EmbeddingTables) -> Pair:
    """Layer 0 of the users and of the items, (n, dim) float32 each."""
    users, items = (side.detach().cpu().numpy() for side in tables())
    return users, items


def load_full(path: Path, config: dict) -> Pair:
    """The embeddings of the full model that a run is compared with, from an export of it.

    Parameters
    ----------
    config : dict
        What decides the run's result. The full model must have the same data, backbone, protocol, width and seed.

    Raises
    ------
    UserError
        When there is no such file, or it is of another model.
    """
    advice = "export a run of the method 'full' to it"
    if not path.exists():
        raise SettingError("full_export", path, f"is not there; {advice}")
    found = exported_config(path)
    if found is None or found["method"]["name"] != "full" or not ALTERED.isdisjoint(found):
        raise SettingError("full_export", path, f"is no export of a full model; {advice}")
    differing = [key for key in ("dataset", "backbone", "protocol", "dim", "seed") if found[key] != config[key]]
    if differing:
        raise SettingError("full_export", path, f"is of a full model with another {differing[0]}; {advice}")
    return embeddings(CodebookTables.from_export(read_arrays(path)))


def distances(found: Pair, full: Pair) -> dict[str, float]:
    """Mean Euclidean distances of embeddings to the full model's, id by id.

    Two trainings of one and the same model agree at best up to a rotation of all embeddings, which changes no score. So
    there are two kinds: as the embeddings are, which is what the paper gives; and after the rotation (or reflection) of
    all users and items together that brings them nearest (Schönemann, Psychometrika 1966).

    Returns
    -------
    dict : `users`, `items`, `all` and, after the rotation, `rotated_users`, `rotated_items`, `rotated_all`.
    """
    ours, theirs = np.concatenate(found), np.concatenate(full)
    rotation, _ = orthogonal_procrustes(ours, theirs)
    means = {}
    for prefix, moved in (("", ours), ("rotated_", ours @ rotation)):
        apart = np.linalg.norm(moved - theirs, axis=1)
        sides = dict(zip(SIDES, np.split(apart, [len(found[0])]), strict=True)) | {"all": apart}
        means |= {f"{prefix}{name}": float(values.mean(dtype=np.float64)) for name, values in sides.items()}
    return means
