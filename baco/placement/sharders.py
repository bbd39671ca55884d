"""Sharders: functions from rows and devices to the device of each row, (n,) int32.

None exceeds the memory of a device. All but `metis` and `coclusters` leave aside which rows are looked up together.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from baco.optional import optional_package
from baco.placement.cost import Devices
from baco.placement.rows import Rows

NOWHERE = -1


def random(rows: Rows, devices: Devices, seed: int) -> np.ndarray:
    """Each row on a device drawn at random."""
    drawn = np.random.default_rng(seed).integers(devices.count, size=rows.count, dtype=np.int32)
    return complete(rows, devices, drawn)


def size_greedy(rows: Rows, devices: Devices, seed: int) -> np.ndarray:
    """Each row, in the order of the tables, on the device that holds the least: rows of one size go round."""
    devices.capacity(rows)
    return (np.arange(rows.count) % devices.count).astype(np.int32)


def lookup_greedy(rows: Rows, devices: Devices, seed: int) -> np.ndarray:
    """The row with the most look-ups first, each on the device with the fewest: the longest processing time first."""
    return complete(rows, devices, np.full(rows.count, NOWHERE, np.int32))


def coclusters(rows: Rows, devices: Devices, seed: int) -> np.ndarray:
    """Whole co-clusters, the one with the most look-ups first, each on the device with the fewest.

    One that is larger than a device, in rows or in a device's even share of the look-ups, is split into its rows, and
    so is one for which no device has room any more.
    """
    capacity = devices.capacity(rows)
    groups, group = np.unique(rows.groups, return_inverse=True)
    lookups = np.bincount(group, rows.lookups)
    sizes = np.bincount(group)
    whole = np.flatnonzero((lookups * devices.count <= rows.lookups.sum()) & (sizes <= capacity))
    order = whole[np.argsort(-lookups[whole], kind="stable")]
    device = np.full(len(groups), NOWHERE, np.int32)
    place_greedily(order, lookups, sizes, np.zeros(devices.count), np.full(devices.count, capacity), device)
    return complete(rows, devices, device[group])


def metis(rows: Rows, devices: Devices, seed: int) -> np.ndarray:
    """The parts of METIS: about equal in look-ups, with few of `Rows.joint_lookups` between them."""
    pymetis = optional_package("pymetis", "the sharder 'metis'", "pymetis>=2025.2")
    joint = rows.joint_lookups()
    joint.eliminate_zeros()
    indptr, indices, weights, lookups = (
        array.astype(np.int32) for array in (joint.indptr, joint.indices, joint.data, rows.lookups)
    )
    _, parts = pymetis.part_graph(
        devices.count,
        pymetis.CSRAdjacency(indptr, indices),
        vweights=lookups,
        eweights=weights,
        options=pymetis.Options(seed=seed),
    )
    return complete(rows, devices, np.array(parts, np.int32))


def complete(rows: Rows, devices: Devices, device: np.ndarray) -> np.ndarray:
    """(n,) int32: a placement, (n,) int32, with the rows that are `NOWHERE` placed, and no device over its memory.

    Of a device that has too many rows the least looked-up ones leave. What is to be placed goes by `lookup_greedy`.
    """
    capacity = devices.capacity(rows)
    order = np.lexsort((-rows.lookups, device))  # by device, the most looked-up row first
    sizes = np.bincount(device + 1, minlength=devices.count + 1)
    rank = np.arange(rows.count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    device = device.copy()
    device[order[rank >= capacity]] = NOWHERE
    there, rest = np.flatnonzero(device != NOWHERE), np.flatnonzero(device == NOWHERE)
    rest = rest[np.argsort(-rows.lookups[rest], kind="stable")]
    load = np.bincount(device[there], rows.lookups[there], devices.count)
    room = capacity - np.bincount(device[there], minlength=devices.count)
    place_greedily(rest, rows.lookups.astype(float), np.ones(rows.count, np.int64), load, room, device)
    return device


@njit(cache=True)
def place_greedily(order, weights, sizes, load, room, device):
    """Put each unit of `order`, in place, where the load is the least among the devices that have room for it.

    A unit for which none has room stays where it was. Of equal loads the one with the most room counts. `load` and
    `room`, (count,) arrays, are changed, too; `order` has some units, `weights`, `sizes` and `device` are of all.
    """
    for unit in order:
        best = -1
        for one in range(len(load)):
            if room[one] < sizes[unit]:
                continue
            if best < 0 or load[one] < load[best] or (load[one] == load[best] and room[one] > room[best]):
                best = one
        if best >= 0:
            load[best] += weights[unit]
            room[best] -= sizes[unit]
            device[unit] = best
