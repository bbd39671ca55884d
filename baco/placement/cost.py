"""The cost model: what devices hold, and what each has to read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baco.errors import UserError
from baco.placement.rows import Rows
from baco.validation import Validated, setting


@dataclass(frozen=True)
class Devices(Validated):
    """`count` devices, each with `memory` bytes for rows.

    DreamShard and AutoShard have a fixed cost of a table, too. Here every device has rows of both tables, and it would
    be the same for all.
    """

    count: int = setting(at_least=1)
    memory: int = setting(at_least=1)

    def capacity(self, rows: Rows) -> int:
        """How many rows a device can hold; raises `UserError` when all devices cannot hold all rows."""
        capacity = max(0, self.memory - rows.common_bytes) // rows.row.row_bytes
        if capacity * self.count < rows.count:
            least = -(-rows.count // self.count) * rows.row.row_bytes + rows.common_bytes
            raise UserError(
                f"{rows.count:,} rows of {rows.row.row_bytes:,} bytes do not fit into {self.count} devices of "
                f"{self.memory:,} bytes; each needs {least:,} bytes, or there must be more devices"
            )
        return capacity

    def held(self, rows: Rows, device: np.ndarray) -> np.ndarray:
        """(count,) int64: the bytes on each device."""
        return np.bincount(device, minlength=self.count) * rows.row.row_bytes + rows.common_bytes

    def loads(self, rows: Rows, device: np.ndarray) -> np.ndarray:
        """(count,) float64: the bytes of rows that each device reads in an epoch, look-ups times the width of a row."""
        return np.bincount(device, rows.lookups, self.count) * rows.row.row_bytes
