"""Gowalla and Yelp2018 under the split of the LightGCN release, for which many papers publish numbers.

The authors of BACO split the same interactions in another way and number users and items differently;
`release.Release` downloads their files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from baco.data.interactions import Interactions, load_interactions
from baco.data.release import published_file
from baco.errors import unknown
from baco.files import check_writable, write_arrays

URL = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/master/data"
BLOBS = {  # git blob ids of train.txt and test.txt
    "gowalla": ("a27782bd7a1d4d0744148dc0460ea94da74763f2", "9ed5af4b5d21511f33740b4e22e3852f45671800"),
    "yelp2018": ("cda12361055ba448ae4bd1070f6000c16dea8f22", "30dfbc3437b27b74cb2970b435a5ec93ad9f2468"),
}


def prepare(name: str, data_dir: Path) -> Interactions:
    """Write the split of the release to `<data_dir>/<name>/lightgcn_split.npz`, which has no validation part.

    The release's train.txt and test.txt are read from the same folder, or downloaded where they are missing there.

    Raises
    ------
    UserError
        When the dataset is another one, or a file cannot be had or is not the published one.
    """
    if name not in BLOBS:
        raise unknown("dataset", name, BLOBS)
    path = data_dir / name / "lightgcn_split.npz"
    check_writable(path, "data_dir")
    parts = []
    for part, blob in zip(("train", "test"), BLOBS[name], strict=True):
        local, url = path.with_name(f"{part}.txt"), f"{URL}/{name}/{part}.txt"
        advice = f"put it there as {local} (gusye1234/LightGCN-PyTorch, data/{name})"
        parts.append(pairs_of(published_file(name, local, url, blob, advice).decode()))
    sizes = (int(largest) + 1 for largest in np.concatenate(parts, axis=1).max(axis=1))
    arrays = dict(zip(("train", "test"), parts, strict=True))
    write_arrays(
        path, arrays | dict(zip(("num_users", "num_items"), (np.array(size, np.int32) for size in sizes), strict=True))
    )
    return load_interactions(path, name)


def pairs_of(text: str) -> np.ndarray:
    """(2, E) int32, sorted by user, then item, from lines that hold a user and its items."""
    lines = [np.array(line.split(), np.int32) for line in text.splitlines() if line.strip()]
    users = np.concatenate([np.full(len(line) - 1, line[0], np.int32) for line in lines])
    items = np.concatenate([line[1:] for line in lines])
    return np.stack([users, items])[:, np.lexsort((items, users))]
