"""DuckDB: embedded, and able to work beyond memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from baco.data.formats import Dialect, literal, open_source, reading_error
from baco.data.rows import workplace
from baco.engines.engine import Engine
from baco.errors import UserError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VECTORS = 512  # that are taken out of DuckDB at once, of 2,048 rows each


class DuckDb(Engine):
    """A connection to DuckDB, and an empty folder for links to the files of a log: a Parquet file or folder."""

    pair = "row"
    array = "list_value"

    def __init__(self, connection: DuckDBPyConnection, scratch: Path):
        self._connection, self._scratch = connection, scratch
        self._log = Path()

    def open_log(self, log: str, user: str, item: str) -> None:
        path = self._log = Path(log).expanduser()
        if not path.exists():
            raise UserError(f"there is no file {log}")
        source = open_source(self._connection, path, Dialect(format="parquet"), [user, item], self._scratch)
        selected = f"{source.expression(user)} AS user_id, {source.expression(item)} AS item_id"
        self._run(f"CREATE OR REPLACE VIEW baco_log AS SELECT {selected} FROM {source.relation}")

    def create(self, table: str, query: str) -> None:
        self._run(f"CREATE OR REPLACE TABLE {table} AS {query}")

    def upload(self, table: str, columns: Mapping[str, np.ndarray]) -> None:
        self._connection.register("baco_uploaded", pd.DataFrame(columns))
        self.create(table, "SELECT * FROM baco_uploaded")
        self._connection.unregister("baco_uploaded")

    def fetch(self, query: str) -> list[np.ndarray]:
        with self._errors():
            return [np.asarray(column) for column in self._connection.execute(query).fetchnumpy().values()]

    def blocks(self, query: str) -> Iterator[list[np.ndarray]]:
        with self._errors():
            result = self._connection.execute(query)
            while len(block := result.fetch_df_chunk(VECTORS)):
                yield [block[column].to_numpy() for column in block]

    def write(self, query: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._run(f"COPY ({query}) TO {literal(str(folder / 'part-0.parquet'))} (FORMAT parquet)")

    def _run(self, query: str) -> None:
        with self._errors():
            self._connection.execute(query)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            raise reading_error(str(self._log), error) from None


@contextmanager
def duckdb_engine() -> Iterator[DuckDb]:
    """A database in memory, and in temporary files (`TMPDIR`) where it needs more than `baco.data.rows.MEMORY`."""
    with workplace() as (connection, folder):
        (folder / "log").mkdir()
        connection.execute("SET preserve_insertion_order = false")  # the order of rows means nothing here
        connection.execute("SET enable_progress_bar = false")  # it would stand in the output
        connection.execute("SET allocator_background_threads = true")  # so that unused memory goes back to the system
        yield DuckDb(connection, folder / "log")
