"""The sharders by name, what a placement is worth, and the file it is written to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baco.errors import unknown
from baco.files import write_arrays
from baco.placement.cost import Devices
from baco.placement.planners import autoshard, dreamshard
from baco.placement.rows import Rows
from baco.placement.sharders import coclusters, lookup_greedy, metis, random, size_greedy

Sharder = Callable[[Rows, Devices, int], np.ndarray]

SHARDERS: dict[str, Sharder] = {
    sharder.__name__: sharder
    for sharder in (random, size_greedy, lookup_greedy, coclusters, metis, dreamshard, autoshard)
}


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the rows are, and what that is worth.

    Attributes
    ----------
    sharder : str
    device : (n,) int32
    imbalance : float
        The largest load of a device by their mean.
    least_held, most_held : int
        Bytes on a device.
    share_apart : float
        See `Rows.share_apart`.
    seconds : float
        Of the sharder.
    """

    sharder: str
    device: np.ndarray
    imbalance: float
    least_held: int
    most_held: int
    share_apart: float
    seconds: float

    def __str__(self) -> str:
        held = f"{self.least_held:,} - {self.most_held:,}"
        return f"{self.sharder:<18}{self.imbalance:>14.3f}{held:>32}{self.share_apart:>8.1%}{self.seconds:>9.2f}"


HEADER = f"{'sharder':<18}{'max/mean load':>14}{'bytes on a device':>32}{'apart':>8}{'seconds':>9}"


def sharder_named(name: str) -> Sharder:
    """The sharder of that name; an unknown name is an error that suggests the nearest known one."""
    if name not in SHARDERS:
        raise unknown("sharder", name, SHARDERS)
    return SHARDERS[name]


def place_rows(rows: Rows, devices: Devices, name: str, seed: int) -> Placement:
    """Place rows by the sharder of that name; raises `UserError` when they do not fit, or a package is missing."""
    start = time.perf_counter()
    device = sharder_named(name)(rows, devices, seed)
    seconds = time.perf_counter() - start
    loads, held = devices.loads(rows, device), devices.held(rows, device)
    imbalance = float(loads.max() / loads.mean())
    return Placement(name, device, imbalance, int(held.min()), int(held.max()), rows.share_apart(device), seconds)


def write_placement(path: Path, rows: Rows, device: np.ndarray) -> None:
    """Write the arrays `side`, `id` and `device`, with an entry for every row, to an .npz file: all or nothing.

    The side is `users`, `items` or, where they share a table, `both`. The id is the number of the row in its table; in
    full tables it is that of the user or item in the data.
    """
    sizes = list(rows.tables.values())
    ids = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    write_arrays(path, {"side": np.repeat(list(rows.tables), sizes), "id": ids, "device": device})
