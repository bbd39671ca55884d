"""Import of any interaction log: one file or folder with a row per interaction, or a split that exists already."""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from baco.data.filters import first_occurrences, k_core
from baco.data.formats import FORMATS, Dialect, Source, open_frame, open_source, source_files
from baco.data.interactions import ImportReport, Interactions, load_interactions
from baco.data.rows import Columns, Rows, workplace
from baco.data.splits import random_split, temporal_split
from baco.data.streams import Events
from baco.errors import SettingError, UserError
from baco.files import check_writable, json_array, write_arrays
from baco.rng import stream
from baco.validation import Validated, setting

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger(__name__)

FEWEST = 10  # interactions that are split


class Filtered(NamedTuple):
    """What the filters leave of a log, ids numbered without gaps: each pair once."""

    users: np.ndarray  # (E,) int32
    items: np.ndarray  # (E,) int32
    user_ids: np.ndarray  # of the source
    item_ids: np.ndarray
    counts: dict[str, int]  # of each part
    report: ImportReport


@dataclass(frozen=True)
class Log(Validated):
    """A log, imported once into `<data_dir>/<name>/<file name>-<key>/interactions.npz`.

    The key is a hash of the content and of these settings. The prepared file keeps the ids of the source:
    `user_ids[x]` is the original id of user x, and likewise for items. docs/formats.md shows every format.

    Attributes
    ----------
    name, budget : the name in records, and the default budget (a ratio, or rows)
    path : str
        A file, or a folder of Parquet or text files of one format.
    path_val, path_test : str or None
        Where a split exists already: its other parts, in the format of `path`, which then holds the training part.
        Without `path_val`, `val_share` of the training part is held out.
    user, item : str
        Names of the id columns. Ids may be any text or integers.
    rating, timestamp : str or None
        Names of optional columns.
    format : str or None
        One of `baco.data.formats.FORMATS`; None: by the file's ending and first lines.
    header : bool
        False: the text file has no header line, and columns are named "0", "1", ... by position.
    separator : str or None
        Of a text file, taken literally, but for `\\t` (a tab) and `\\s+` (any run of blanks and tabs); None: by the
        file's ending and first line.
    quote : str or None
        The mark that encloses fields of a text file, '' where there is none; None: `"`, but '' where the separator is
        a tab or of several characters.
    multiline : bool
        Whether quoted fields may hold line breaks. An error otherwise, since most often a stray mark is the cause.
    encoding : str
        Of a text file.
    missing_values : str
        What becomes of ids that are words for a missing value (`baco.data.rows.MISSING`): 'keep' (they are ids, with
        a warning; an empty id is an error) or 'drop' (these rows and those with empty ids are left out and counted).
    strip : bool
        Whether blanks around ids are removed.
    time_format : str or None
        How times are written, as in Python's `strptime`; None: numbers (of any unit) or ISO 8601.
    min_rating : float or None
        Keep interactions with at least this rating.
    k_core : int
        Drop users and items with fewer interactions, again and again until none is left; 0 keeps all.
    split : str
        'random': over all interactions, the same for rows in any order; 'time': each user's latest interactions are
        held out.
    val_share, test_share : float
    split_seed : int
        Of the random split; apart from `seed`, so that runs with several seeds share their data.
    """

    name: str = "custom"
    budget: float | None = None
    path: str = "???"
    path_val: str | None = None
    path_test: str | None = None
    user: str = "user"
    item: str = "item"
    rating: str | None = None
    timestamp: str | None = None
    format: str | None = setting(None, one_of=FORMATS)
    header: bool = True
    separator: str | None = None
    quote: str | None = None
    multiline: bool = False
    encoding: str = "utf-8"
    missing_values: str = setting("keep", one_of=("keep", "drop"))
    strip: bool = False
    time_format: str | None = None
    min_rating: float | None = None
    k_core: int = setting(0, at_least=0)
    split: str = setting("random", one_of=("random", "time"))
    val_share: float = setting(0.1, above=0)
    test_share: float = setting(0.1, above=0)
    split_seed: int = setting(0, at_least=0)

    def __post_init__(self):
        super().__post_init__()
        for key in ("time_format", "split"):
            if getattr(self, key) not in (None, "random") and self.timestamp is None:
                raise SettingError(key, getattr(self, key), "needs timestamp, the name of the column with the times")
        if self.min_rating is not None and self.rating is None:
            raise SettingError("min_rating", self.min_rating, "needs rating, the name of the column with the ratings")
        columns = self._columns()
        if len(set(columns)) < len(columns):
            raise UserError(f"user, item, rating and timestamp must name different columns, not {columns}")
        if self.val_share + self.test_share >= 1:
            raise SettingError(
                "val_share", self.val_share, f"and test_share={self.test_share} must be below 1 together"
            )
        for key in ("path", "path_val", "path_test"):
            if getattr(self, key) == "":
                raise SettingError(key, None, "is empty; give the path of a file or folder")
        if self.path_val is not None and self.path_test is None:
            raise SettingError("path_val", self.path_val, "needs path_test, the file of the test part")
        if self.path_test is not None and (self.k_core or self.split != "random"):
            raise SettingError("path_test", self.path_test, "gives a split, which k_core and split would change")
        if self.quote is not None and len(self.quote) > 1:
            raise SettingError("quote", self.quote, "must be one character, or '' for none")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise SettingError(
                "encoding", self.encoding, "is unknown; examples are utf-8, latin-1 and utf-16"
            ) from None

    def _columns(self) -> list[str]:
        """The columns that are read."""
        return [column for column in (self.user, self.item, self.rating, self.timestamp) if column is not None]

    def _paths(self) -> dict[str, Path]:
        """The files of each part: all in the one part `train` where a split is still to be made."""
        paths = {"train": self.path, "val": self.path_val, "test": self.path_test}
        return {part: Path(path).expanduser() for part, path in paths.items() if path is not None}

    def load(self, data_dir: Path) -> Interactions:
        """Import the log, or read what an earlier import of the same files with the same settings prepared.

        Raises
        ------
        UserError
            When a file or a column is missing, a value is missing or no number, or too little is left.
        """
        digest = hashlib.sha256()
        for part, source in self._paths().items():
            try:
                _add_content(digest, source)
            except OSError as error:
                key = "path" if part == "train" else f"path_{part}"
                raise SettingError(key, source, f"cannot be read ({error.strerror})") from None
        apart = ("name", "budget", "path", "path_val", "path_test")
        settings = {key: value for key, value in asdict(self).items() if key not in apart}
        digest.update(json.dumps(settings, sort_keys=True).encode())
        path = data_dir / self.name / f"{Path(self.path).stem}-{digest.hexdigest()[:12]}" / "interactions.npz"
        if not path.exists():
            self._prepare(path)
        return load_interactions(path, self.name, self.val_share)

    def load_events(self) -> Events:
        """All interactions in the order of time, equal times in that of the source; nothing is split or kept.

        Raises
        ------
        UserError
            As `load`, and when there is no column with times or a split is given.
        """
        if self.timestamp is None:
            raise SettingError("timestamp", None, "must name the column with the times, by which a stream is cut")
        if self.path_test is not None:
            raise SettingError("path_test", self.path_test, "gives a split, and a stream makes its own; leave it out")
        if not Path(self.path).expanduser().exists():
            raise SettingError("path", self.path, "cannot be read (there is no such file)")
        with workplace() as (connection, scratch):
            kept = self._filtered(Rows(connection, self._sources(connection, scratch), self._reading(), self.name))
        return Events(self.name, kept.users, kept.items, kept.user_ids, kept.item_ids)

    def read_alike(self, path: str | Path) -> pd.DataFrame:
        """The interactions of another log that is written as this one; nothing is split or kept.

        Returns
        -------
        DataFrame : `user` and `item`, ids of the source; without rows below `min_rating`.

        Raises
        ------
        UserError
            When it cannot be read, or a column or a value is missing.
        """
        if not Path(path).expanduser().exists():
            raise UserError(f"there is no file {path}")
        other = replace(
            self, path=str(path), path_val=None, path_test=None, timestamp=None, time_format=None, split="random"
        )
        with workplace() as (connection, scratch):
            sources = other._sources(connection, scratch, named=Path(self.path).name)
            rows = Rows(connection, sources, other._reading(), other.name)
            rows.filter(other.min_rating)
            users, items, user_ids, item_ids = rows.numbered()
        return pd.DataFrame({"user": user_ids[users], "item": item_ids[items]})

    def _prepare(self, path: Path) -> None:
        with workplace() as (connection, scratch):
            arrays = self._import(Rows(connection, self._sources(connection, scratch), self._reading(), self.name))
        check_writable(path, "data_dir")
        write_arrays(path, arrays, compress=False)  # compression would take longer than the import
        log.info("%s: imported %s into %s", self.name, self.path, path)

    def _reading(self) -> Columns:
        drop = self.missing_values == "drop"
        return Columns(self.user, self.item, self.rating, self.timestamp, self.time_format, self.strip, drop)

    def _sources(self, connection: DuckDBPyConnection, scratch: Path, named: str | None = None) -> dict[str, Source]:
        dialect = Dialect(self.format, self.separator, self.quote, self.header, self.multiline, self.encoding, named)
        sources = {}
        for part, path in self._paths().items():
            (scratch / part).mkdir()
            sources[part] = open_source(connection, path, dialect, self._columns(), scratch / part)
        return sources

    def _import(self, rows: Rows) -> dict[str, np.ndarray]:
        """The arrays of the prepared file."""
        kept = self._filtered(rows, by_id=self.path_test is None and self.split == "random")
        parts = self._split(kept.users, kept.counts).items()
        arrays = {part: _pairs(kept.users, kept.items, places) for part, places in parts}
        return arrays | {
            "num_users": np.array(len(kept.user_ids), np.int32),
            "num_items": np.array(len(kept.item_ids), np.int32),
            "user_ids": kept.user_ids,
            "item_ids": kept.item_ids,
            "import_report": json_array(asdict(kept.report)),
        }

    def _filtered(self, rows: Rows, by_id: bool = False) -> Filtered:
        """What is left of the rows, in the order of `Rows.numbered`."""
        dropped = rows.filter(self.min_rating)
        counts = rows.part_counts()
        users, items, user_ids, item_ids = rows.numbered(by_id)
        num_users, num_items = len(user_ids), len(item_ids)
        first = first_occurrences(users, items, num_users, num_items)
        distinct = int(np.count_nonzero(first))
        if len(counts) > 1:
            distinct = sum(
                int(np.count_nonzero(first_occurrences(users[place], items[place], num_users, num_items)))
                for place in _slices(counts).values()
            )
            counts = {part: int(np.count_nonzero(first[place])) for part, place in _slices(counts).items()}
        users, items = users[first], items[first]
        core = k_core(users, items, self.k_core)
        users, items = users[core], items[core]
        report = ImportReport(
            source=rows.description,
            rows=rows.count,
            **dropped,
            repeated=len(first) - distinct,
            overlapping=distinct - len(core),
            outside_core=len(core) - len(users),
            kept=len(users),
        )
        log.info("%s: %s", self.name, report)
        if len(users) < FEWEST:
            raise UserError(
                f"{self.path}: {len(users)} interactions are left after the filters, too few to split; lower "
                "min_rating or k_core"
            )
        users, kept_users = _renumbered(users, num_users)
        items, kept_items = _renumbered(items, num_items)
        return Filtered(users, items, user_ids[kept_users], item_ids[kept_items], counts, report)

    def _split(self, users: np.ndarray, counts: dict[str, int]) -> Mapping[str, np.ndarray | slice]:
        """Where the interactions of each part stand: in the order of time, or of ids where a random split is made."""
        if self.path_test is not None:
            return _slices(counts)
        if self.split == "random":
            return random_split(len(users), self.val_share, self.test_share, stream(self.split_seed, "split"))
        parts = temporal_split(users, self.val_share, self.test_share)
        if len(parts["val"]) == 0:
            raise UserError(f"{self.path}: no user has 3 interactions to split by time; take split=random")
        return parts


def import_frame(frame: pd.DataFrame, **settings) -> Interactions:
    """Import a log that is in memory already, without writing a prepared file.

    Parameters
    ----------
    frame : DataFrame
        A row for each interaction.
    settings
        Those of `Log`; `path` and what tells how a file is written do not apply.

    Raises
    ------
    UserError
        As `Log.load`.
    """
    source = Log(path="DataFrame", **settings)
    with workplace() as (connection, _):
        arrays = source._import(
            Rows(connection, {"train": open_frame(connection, frame, source.path)}, source._reading(), source.name)
        )
    return Interactions.from_arrays(source.name, arrays)


def _slices(counts: dict[str, int]) -> dict[str, slice]:
    """Where each part stands, one after the other."""
    bounds = np.cumsum([0, *counts.values()]).tolist()
    return {part: slice(start, end) for part, start, end in zip(counts, bounds, bounds[1:], strict=False)}


def _pairs(users: np.ndarray, items: np.ndarray, places: np.ndarray | slice) -> np.ndarray:
    """(2, places) int32, side by side, so that only one of them is copied twice."""
    taken = users[places]
    pairs = np.empty((2, len(taken)), np.int32)
    pairs[0] = taken
    del taken
    pairs[1] = items[places]
    return pairs


def _renumbered(ids: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of 0..size-1 without gaps, in the old order, (E,) int32; and which the old ones were, (kept,) int64."""
    there = np.zeros(size, bool)
    there[ids] = True
    return (np.cumsum(there, dtype=np.int32) - np.int32(1))[ids], np.flatnonzero(there)


def _add_content(digest: hashlib._Hash, path: Path) -> None:
    """Add a file, which may be larger than memory, or all files of a folder with their names to a hash."""
    for source in source_files(path):
        if source != path:
            digest.update(str(source.relative_to(path)).encode())
        with open(source, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
