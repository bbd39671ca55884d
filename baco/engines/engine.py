"""What the co-clustering asks of an SQL engine: temporary tables, their rows as arrays, Parquet in and out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np


class Engine(ABC):
    """An SQL engine. Queries are written once; two constructors have names of their own in each dialect.

    Tables last as long as the engine; their names begin with `baco_`. A query may read the table that its
    result replaces.

    Attributes
    ----------
    pair : str
        Makes one value of two, ordered by the first, then by the second.
    array : str
        Makes a list of its arguments.
    """

    pair: ClassVar[str]
    array: ClassVar[str]

    @abstractmethod
    def open_log(self, log: str, user: str, item: str) -> None:
        """Name a log `baco_log`, with the columns `user_id` and `item_id`.

        Raises
        ------
        UserError
            When there is no such log, or it cannot be read or lacks a column.
        """

    @abstractmethod
    def create(self, table: str, query: str) -> None:
        """Store the result of a query as a table."""

    @abstractmethod
    def upload(self, table: str, columns: Mapping[str, np.ndarray]) -> None:
        """Store integer arrays of one length as the columns of a table."""

    @abstractmethod
    def fetch(self, query: str) -> list[np.ndarray]:
        """The columns of a result, in any order of rows."""

    def blocks(self, query: str) -> Iterator[list[np.ndarray]]:
        """The same, some rows at a time."""
        yield self.fetch(query)

    @abstractmethod
    def write(self, query: str, folder: Path) -> None:
        """Write a result to a folder of Parquet files that is not there yet."""

    def value(self, query: str) -> int:
        """The one integer of a result."""
        (column,) = self.fetch(query)
        return int(column[0])
