"""The rows of a log as a table of DuckDB: checked, filtered, and their ids numbered, out of memory where need be."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from baco.data.formats import Source, literal, reading_error
from baco.errors import UserError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger(__name__)

MEMORY = "2GB"  # that DuckDB takes; it keeps what is more in temporary files
BLOCK = 2**23  # rows that are taken out of DuckDB at once
MISSING = (
    "\\N",
    "NULL",
    "NA",
    "N/A",
    "nan",
    "None",
    "<NA>",
)  # what programs write for no value, in any case of letters
BLANKS = "chr(32) || chr(9) || chr(13) || chr(160)"
INTEGERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG")} | {"INTEGER", "UINTEGER"}
SIDES = ("user", "item")


@contextmanager
def workplace() -> Iterator[tuple[DuckDBPyConnection, Path]]:
    """A database in memory, and a temporary folder (`TMPDIR` moves it) for what does not fit there.

    Tables are compressed: a log beyond the memory limit is read several times, and decoding costs less than temporary
    files do.
    """
    import duckdb  # not before a log is imported

    settings: dict[str, Any] = {"memory_limit": MEMORY, "preserve_insertion_order": True}
    with tempfile.TemporaryDirectory(prefix="baco-") as folder, duckdb.connect(config=settings) as connection:
        connection.execute(f"SET temp_directory = {literal(folder)}")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("ATTACH ':memory:' AS compressed (COMPRESS)")
        connection.execute("USE compressed")
        yield connection, Path(folder)


@dataclass(frozen=True)
class Columns:
    """Which columns are read, and how; see `baco.data.logs.Log`."""

    user: str
    item: str
    rating: str | None
    timestamp: str | None
    time_format: str | None
    strip: bool
    drop_missing: bool


class Rows:
    """The rows of a log, as the table `log` in the order of the source: `rowid` counts them from 0.

    Parameters
    ----------
    connection : DuckDBPyConnection
    sources : dict
        By the name of the part: `train` alone where the split is still to be made.
    columns : Columns
    name : str
        Of the dataset, in messages.

    Attributes
    ----------
    count : int
    description : str
        The first file and its format.

    Raises
    ------
    UserError
        When a row is no record, or an id or a time is missing or not of its kind.
    """

    def __init__(self, connection: DuckDBPyConnection, sources: dict[str, Source], columns: Columns, name: str):
        self._connection, self._sources, self._columns, self._name = connection, sources, columns, name
        first = next(iter(sources.values()))
        self.description = f"{Path(first.path).name} ({first.description})"
        self._kept = "user_id IS NOT NULL AND item_id IS NOT NULL"
        expressions = {f"{side}_id": self._ids(getattr(columns, side)) for side in SIDES}
        if columns.rating is not None:
            expressions["rating"] = self._numbers(columns.rating)
        if len(sources) > 1:
            expressions["part"] = {part: str(number) for number, part in enumerate(sources)}
        if any(source.broken for source in sources.values()):
            expressions["broken"] = {part: source.broken or "false" for part, source in sources.items()}
        self._order = "part, " if len(sources) > 1 else ""
        if columns.timestamp is None:
            self._read(expressions)
        else:
            self._order += "time, "
            for times in self._readings_of_times(columns.timestamp):
                self._read(expressions | {"time": times})
                if self._first("time IS NULL") is None:
                    break
        (self.count,) = self._fetch("SELECT count(*) FROM log")
        self._check(expressions)

    def filter(self, min_rating: float | None) -> dict[str, int]:
        """Drop rows without ids and those below a rating; returns how many each filter dropped.

        Raises
        ------
        UserError
            When a rating that decides is missing or no number.
        """
        (missing,) = self._fetch(f"SELECT count(*) FROM log WHERE NOT ({self._kept})")  # statistics may tell: no scan
        below = 0
        rating = self._columns.rating
        if min_rating is not None and rating is not None:
            row = self._first("rating IS NULL OR isnan(rating)")
            if row is not None:
                place, value = self._found(row, rating)
                raise UserError(f"{place[0]}: column '{rating}' holds {value!r} in {place[1]}, no number")
            least = f"'{float(min_rating)!r}'::DOUBLE"
            (below,) = self._fetch(f"SELECT count(*) FROM log WHERE {self._kept} AND rating < {least}")
            self._kept += f" AND rating >= {least}"
        elif self._columns.rating is not None:
            (without,) = self._fetch(f"SELECT count(*) FROM log WHERE {self._kept} AND rating <= 0")
            if without:
                log.warning(
                    "%s: %d ratings of 0 and below count as interactions; min_rating sets the least that does",
                    self._name,
                    without,
                )
        return {"missing_ids": missing, "below_min_rating": below}

    def numbered(self, by_id: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The rows that are left, their ids numbered as they ascend.

        This closes the database: what follows needs its memory.

        Parameters
        ----------
        by_id : bool
            Whether rows come by user and item: in one order, in whichever the source has them. Else they come in the
            order of part, time and source.

        Returns
        -------
        users, items : (rows,) int32
        user_ids, item_ids : (ids,) integers, or StringDType
            Those of the source, ascending.
        """
        for side in SIDES:
            self._run(
                f"CREATE TABLE {side}s AS SELECT id, occurrences, (row_number() OVER (ORDER BY id) - 1)::INTEGER AS "
                f"number FROM (SELECT {side}_id AS id, count(*) AS occurrences FROM log WHERE {self._kept} GROUP BY 1)"
            )
            self._warn(side)
        order = "user_number, item_number" if by_id else f"{self._order}log.rowid"
        self._run(
            "CREATE TABLE pairs AS SELECT users.number AS user_number, items.number AS item_number FROM log "
            "JOIN users ON user_id = users.id JOIN items ON item_id = items.id "
            f"WHERE {self._kept} ORDER BY {order}"
        )
        self._run("DROP TABLE log")
        (count,) = self._fetch("SELECT count(*) FROM pairs")
        users, items = np.empty(count, np.int32), np.empty(count, np.int32)
        for start in range(0, count, BLOCK):
            block = self._run(
                f"SELECT user_number, item_number FROM pairs WHERE rowid >= {start} AND rowid < {start + BLOCK}"
            ).fetchnumpy()
            users[start : start + BLOCK] = block["user_number"]
            items[start : start + BLOCK] = block["item_number"]
        user_ids, item_ids = (self._numbered_ids(side) for side in SIDES)
        self._connection.close()
        return users, items, user_ids, item_ids

    def part_counts(self) -> dict[str, int]:
        """How many rows of each part are left."""
        if len(self._sources) == 1:
            return {part: self._fetch(f"SELECT count(*) FROM log WHERE {self._kept}")[0] for part in self._sources}
        return {
            part: self._fetch(f"SELECT count(*) FROM log WHERE part = {number} AND {self._kept}")[0]
            for number, part in enumerate(self._sources)
        }

    def _numbered_ids(self, side: str) -> np.ndarray:
        ids = np.asarray(self._run(f"SELECT id FROM {side}s ORDER BY number").fetchnumpy()["id"])
        return ids if ids.dtype.kind in "iu" else ids.astype(np.dtypes.StringDType())

    def _ids(self, column: str) -> dict[str, str]:
        """SQL of the ids: integers as they are, anything else as text; NULL where there is none."""
        expressions = {part: source.expression(column) for part, source in self._sources.items()}
        types = {part: self._type(part, expression) for part, expression in expressions.items()}
        if set(types.values()) <= INTEGERS:
            return expressions
        return {part: self._text(part, column, expressions[part], types[part]) for part in types}

    def _text(self, part: str, column: str, expression: str, kind: str) -> str:
        source = self._sources[part]
        if kind in ("FLOAT", "DOUBLE") or (kind.startswith("DECIMAL") and not kind.endswith(",0)")):
            raise UserError(f"{source.path}: column '{column}' holds floating-point numbers; ids are integers or text")
        if kind == "BLOB":
            text, uuid = self._fetch(
                f"SELECT bool_and(coalesce(NOT regexp_matches(try(decode({expression})), '[\\x00-\\x1f]'), false)), "
                f"bool_and(octet_length({expression}) = 16) FROM {source.relation} WHERE {expression} IS NOT NULL"
            )
            digits = f"lower(hex({expression}))"
            expression = f"decode({expression})" if text else f"{digits}::UUID::VARCHAR" if uuid else digits
        elif kind != "VARCHAR":
            expression = f"CAST({expression} AS VARCHAR)"
        if self._columns.strip:
            expression = f"trim({expression}, {BLANKS})"
        expression = f"nullif({expression}, '')"
        if self._columns.drop_missing:
            expression = f"CASE WHEN NOT {_is_missing(expression)} THEN {expression} END"
        return expression

    def _numbers(self, column: str) -> dict[str, str]:
        """SQL of a column as floating-point numbers, NULL where a value is none."""
        return {part: self._number(part, source.expression(column)) for part, source in self._sources.items()}

    def _number(self, part: str, expression: str) -> str:
        if self._type(part, expression) == "VARCHAR" and self._sources[part].decimal_comma:
            expression = f"replace({expression}, ',', '.')"
        return f"try_cast({expression} AS DOUBLE)"

    def _readings_of_times(self, column: str) -> list[dict[str, str]]:
        """SQL of the times, in all the ways that they may be written."""
        readings = [self._times(part, source.expression(column)) for part, source in self._sources.items()]
        return [dict(zip(self._sources, reading, strict=True)) for reading in zip(*readings, strict=False)]

    def _times(self, part: str, expression: str) -> list[str]:
        kind = self._type(part, expression)
        if kind in INTEGERS:
            return [expression]
        if kind == "TIMESTAMP_NS":
            return [f"epoch_ns({expression})"]
        if kind.startswith(("TIMESTAMP", "DATE")):
            return [f"epoch_us(CAST({expression} AS TIMESTAMP))"]
        if kind != "VARCHAR":
            return [f"CASE WHEN NOT isnan(CAST({expression} AS DOUBLE)) THEN CAST({expression} AS DOUBLE) END"]
        if self._columns.time_format is not None:
            return [f"epoch_us(try_strptime({expression}, {literal(self._columns.time_format)}))"]
        number = self._number(part, expression)
        relation = self._sources[part].relation
        first = self._fetch(f"SELECT {number} IS NOT NULL FROM {relation} WHERE {expression} IS NOT NULL LIMIT 1")
        if not first or first[0]:  # seconds, milliseconds and others: only their order counts
            whole = f"regexp_full_match({expression}, '\\s*[+-]?\\d+\\s*')"
            return [
                f"CASE WHEN {whole} THEN try_cast({expression} AS BIGINT) END",
                f"CASE WHEN NOT isnan({number}) THEN {number} END",
            ]
        return [f"epoch_us(try_cast({expression} AS TIMESTAMPTZ))"]

    def _read(self, expressions: dict[str, dict[str, str]]) -> None:
        selects = []
        for part, source in self._sources.items():
            columns = ", ".join(f"{one[part]} AS {name}" for name, one in expressions.items())
            selects.append(f"SELECT {columns} FROM {source.relation}")
        self._run(f"CREATE OR REPLACE TABLE log AS {' UNION ALL '.join(selects)}")

    def _check(self, expressions: dict[str, dict[str, str]]) -> None:
        """Raise for the first row that is no record, or lacks an id or a time."""
        row = self._first("broken") if "broken" in expressions else None
        if row is not None:
            (path, place), _ = self._found(row, self._columns.user)
            raise UserError(f"{path}: {place}: {next(s.fault for s in self._sources.values() if s.fault)}")
        for side in SIDES if not self._columns.drop_missing else ():
            row = self._first(f"{side}_id IS NULL")
            if row is not None:
                column = getattr(self._columns, side)
                (path, place), _ = self._found(row, column)
                raise UserError(
                    f"{path}: column '{column}' is empty in {place}; remove that row, or set missing_values=drop"
                )
        timestamp = self._columns.timestamp
        row = self._first("time IS NULL") if timestamp is not None else None
        if timestamp is not None and row is not None:
            (path, place), value = self._found(row, timestamp)
            found = "is empty" if value is None else f"holds {value!r}"
            wanted = (
                f"all be written as {self._columns.time_format}"
                if self._columns.time_format is not None
                else "all be numbers, or all dates such as 2024-05-31T12:00:00; time_format sets another way"
            )
            raise UserError(f"{path}: column '{self._columns.timestamp}' {found} in {place}; times must {wanted}")

    def _warn(self, side: str) -> None:
        """Of ids that are most likely meant otherwise."""
        (kind,) = self._fetch(f"SELECT typeof(id) FROM {side}s LIMIT 1") or ("BIGINT",)
        if kind != "VARCHAR":
            return
        words = self._run(f"SELECT id, occurrences FROM {side}s WHERE {_is_missing('id')}").fetchall()
        for word, occurrences in words:
            log.warning(
                "%s: the %s id '%s' of %d rows is a word for a missing value and kept as an id; "
                "missing_values=drop leaves such rows out",
                self._name,
                side,
                word,
                occurrences,
            )
        around, twins = self._fetch(
            f"SELECT count(*), count(*) FILTER (WHERE trim(id, {BLANKS}) IN (SELECT id FROM {side}s)) FROM {side}s "
            f"WHERE id <> trim(id, {BLANKS})"
        )
        if around:
            log.warning(
                "%s: %d %s ids have blanks around them, and %d of these are there without blanks too; "
                "strip=true removes the blanks",
                self._name,
                around,
                side,
                twins,
            )

    def _first(self, condition: str) -> int | None:
        """The first row under a condition."""
        return self._fetch(f"SELECT min(rowid) FROM log WHERE {condition}")[0]

    def _found(self, row: int, column: str) -> tuple[tuple[str, str], object]:
        """The file of a row, where the row stands in it, and its value of a column as the source has it."""
        part = next(iter(self._sources))
        if len(self._sources) > 1:
            number, start = self._fetch(
                "SELECT part, min(rowid) FROM log WHERE part = (SELECT part FROM log WHERE rowid = "
                f"{row}) GROUP BY part"
            )
            part, row = list(self._sources)[number], row - start
        source = self._sources[part]
        (value,) = self._fetch(f"SELECT {source.expression(column)} FROM {source.relation} LIMIT 1 OFFSET {row}")
        return (source.path, source.place(self._connection, row)), value

    def _type(self, part: str, expression: str) -> str:
        return self._fetch(f"DESCRIBE SELECT {expression} FROM {self._sources[part].relation}")[1]

    def _fetch(self, query: str) -> tuple[Any, ...]:
        """The first row of an answer, empty where there is none."""
        return self._run(query).fetchone() or ()

    def _run(self, query: str) -> DuckDBPyConnection:
        import duckdb

        try:
            return self._connection.execute(query)
        except duckdb.Error as error:
            raise reading_error(", ".join(source.path for source in self._sources.values()), error) from None


def _is_missing(expression: str) -> str:
    words = ", ".join(literal(word.lower()) for word in MISSING)
    return f"coalesce(lower(trim({expression}, {BLANKS})) IN ({words}), true)"
