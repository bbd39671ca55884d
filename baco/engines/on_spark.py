"""Spark, for logs that a cluster holds already: `pip install 'baco[spark]'`, and Java 17 or later."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from baco.engines.engine import Engine
from baco.errors import UserError, unknown
from baco.optional import optional_package

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LOCAL = "local[2]"


class Spark(Engine):
    """A session of Spark 4. Tables are temporary views of it, checkpointed on the executors.

    A log is a table or view of the session, `catalogue.database.table`, or Parquet under any path that it reads.
    """

    pair = "struct"
    array = "array"

    def __init__(self, session: SparkSession):
        self._session = session
        self._views: set[str] = set()

    def open_log(self, log: str, user: str, item: str) -> None:
        from pyspark.errors import AnalysisException
        from pyspark.sql.functions import col

        named = not Path(log).exists() and re.fullmatch(r"\w+(\.\w+){0,2}(?<!\.parquet)", log) is not None
        try:
            frame = self._session.table(log) if named else self._session.read.parquet(log)
        except AnalysisException as error:
            raise UserError(f"there is no {'table' if named else 'file'} {log} ({_cause(error)})") from None
        except Exception as error:
            raise UserError(f"{log} cannot be read as Parquet ({_cause(error)})") from None
        for column in (user, item):
            if column not in frame.columns:
                raise unknown(f"{log}: column", column, frame.columns)
        ids = (col(f"`{name.replace('`', '``')}`").alias(ours) for name, ours in ((user, "user_id"), (item, "item_id")))
        self._name("baco_log", frame.select(*ids))

    def create(self, table: str, query: str) -> None:
        self._name(table, self._session.sql(query).localCheckpoint())

    def upload(self, table: str, columns: Mapping[str, np.ndarray]) -> None:
        import pyarrow

        self._name(table, self._session.createDataFrame(pyarrow.table(dict(columns))))

    def fetch(self, query: str) -> list[np.ndarray]:
        return [column.to_numpy() for column in self._session.sql(query).toArrow().columns]

    def write(self, query: str, folder: Path) -> None:
        self._session.sql(query).write.parquet(str(folder))

    def close(self) -> None:
        """Forget all tables; the session stays."""
        for table in self._views:
            self._session.catalog.dropTempView(table)
        self._views.clear()

    def _name(self, table: str, frame: DataFrame) -> None:
        frame.createOrReplaceTempView(table)
        self._views.add(table)


@contextmanager
def spark_engine() -> Iterator[Spark]:
    """The active session, or one of the master that `spark-submit` names, or else of this machine, two threads.

    Raises
    ------
    UserError
        When Spark is not installed or does not start.
    """
    optional_package("pyspark", "the engine spark", "baco[spark]")
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is None:
        try:
            settings = SparkConf().setIfMissing("spark.master", LOCAL).setIfMissing("spark.app.name", "baco cluster")
            session = SparkSession.builder.config(conf=settings).getOrCreate()
        except Exception as error:
            raise UserError(f"Spark does not start ({_cause(error)}); it needs Java 17 or later (JAVA_HOME)") from None
    engine = Spark(session)
    try:
        yield engine
    finally:
        engine.close()


def _cause(error: Exception) -> str:
    """The first line of a message of Spark that says something."""
    lines = (line.strip(" :\t") for line in str(error).splitlines())
    return next((line for line in lines if line and "occurred while calling" not in line), type(error).__name__)
