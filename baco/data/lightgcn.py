"""Gowalla and Yelp2018 as the LightGCN release has them, and the split of them that the records of results/ are of.

The authors of BACO published a split of their own of the same interactions, under other numbers of users and items;
`release.Release` downloads it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from baco.data.interactions import SPLITS, Interactions, load_interactions, save_interactions
from baco.data.release import published_file
from baco.errors import UserError, unknown
from baco.files import check_writable, write_arrays

URL = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/master/data"
BLOBS = {  # git blob ids of train.txt and test.txt
    "gowalla": ("a27782bd7a1d4d0744148dc0460ea94da74763f2", "9ed5af4b5d21511f33740b4e22e3852f45671800"),
    "yelp2018": ("cda12361055ba448ae4bd1070f6000c16dea8f22", "30dfbc3437b27b74cb2970b435a5ec93ad9f2468"),
}
SPLIT_SEED = 2026


def prepare(name: str, data_dir: Path) -> Interactions:
    """Write into `<data_dir>/<name>` interactions.npz, the split of the records, and lightgcn_split.npz, the release's.

    The release's train.txt and test.txt are read from the same folder, or downloaded where they are missing there.

    Raises
    ------
    UserError
        When the dataset is another one, a file cannot be had or is not the published one, or another
        interactions.npz is there already.
    """
    if name not in BLOBS:
        raise unknown("dataset", name, BLOBS)
    folder = data_dir / name
    check_writable(folder / "lightgcn_split.npz", "data_dir")
    parts = []
    for part, blob in zip(("train", "test"), BLOBS[name], strict=True):
        local, url = folder / f"{part}.txt", f"{URL}/{name}/{part}.txt"
        advice = f"put it there as {local} (gusye1234/LightGCN-PyTorch, data/{name})"
        parts.append(pairs_of(published_file(name, local, url, blob, advice).decode()))
    num_users, num_items = (int(largest) + 1 for largest in np.concatenate(parts, axis=1).max(axis=1))
    data = Interactions.from_pairs(name, resplit(*parts), num_users, num_items)
    path = folder / "interactions.npz"
    if not path.exists():
        save_interactions(data, path)
    elif load_interactions(path, name).fingerprint != data.fingerprint:
        raise UserError(f"dataset '{name}': {path} holds another split; move it away first")
    sizes = {"num_users": np.int32(num_users), "num_items": np.int32(num_items)}
    write_arrays(folder / "lightgcn_split.npz", {"train": parts[0], "test": parts[1]} | sizes)
    return data


def pairs_of(text: str) -> np.ndarray:
    """(2, E) int32, sorted by user, then item, from lines that hold a user and its items."""
    lines = [np.array(line.split(), np.int32) for line in text.splitlines() if line.strip()]
    users = np.concatenate([np.full(len(line) - 1, line[0], np.int32) for line in lines])
    items = np.concatenate([line[1:] for line in lines])
    return np.stack([users, items])[:, np.lexsort((items, users))]


def resplit(train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """All interactions of both (2, E) parts split anew at random: a tenth for validation, a tenth for the test."""
    pairs = np.concatenate([train, test], axis=1)
    order = np.random.default_rng(SPLIT_SEED).permutation(pairs.shape[1])
    tenth = pairs.shape[1] // 10
    val, held_out, rest = np.split(order, [tenth, 2 * tenth])
    return {split: pairs[:, chosen] for split, chosen in zip(SPLITS, (rest, val, held_out), strict=True)}
