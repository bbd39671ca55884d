"""Import of any interaction log: one CSV, TSV or Parquet file with a row per interaction."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import re
import warnings
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from baco.data.interactions import SPLITS, Interactions, load_interactions, save_interactions
from baco.data.splits import random_split, temporal_split
from baco.errors import SettingError, UserError, unknown
from baco.files import check_writable
from baco.rng import stream
from baco.validation import Validated, setting

log = logging.getLogger(__name__)

SEPARATORS = {".csv": ",", ".tsv": "\t"}
CHUNK = 2**18  # rows of a text file that are parsed at once


@dataclass(frozen=True)
class Log(Validated):
    """A log, imported once into `<data_dir>/<name>/<file name>-<key>/interactions.npz`.

    The key is a hash of the file's content and of these settings. The prepared file keeps the ids of the source:
    `user_ids[x]` is the original id of user x, and likewise for items.

    Attributes
    ----------
    name, budget : the name in records, and the default budget (a ratio, or rows)
    path : str
        A .csv, .tsv or .parquet file; another ending is read as text and needs `separator`.
    user, item : str
        Names of the id columns. Ids may be any text or integers.
    rating, timestamp : str or None
        Names of optional columns.
    header : bool
        False: the text file has no header line, and columns are named "0", "1", ... by position.
    separator : str or None
        Of a text file, taken literally; None: by the file's ending. Quotation marks enclose a field where it is one
        character other than a tab; elsewhere they are characters like others.
    min_rating : float or None
        Keep interactions with at least this rating.
    k_core : int
        Drop users and items with fewer interactions, again and again until none is left; 0 keeps all.
    split : str
        'random': over all interactions; 'time': each user's latest interactions are held out.
    val_share, test_share : float
    split_seed : int
        Of the random split; apart from `seed`, so that runs with several seeds share their data.
    """

    name: str = "custom"
    budget: float | None = None
    path: str = "???"
    user: str = "user"
    item: str = "item"
    rating: str | None = None
    timestamp: str | None = None
    header: bool = True
    separator: str | None = None
    min_rating: float | None = None
    k_core: int = setting(0, at_least=0)
    split: str = setting("random", one_of=("random", "time"))
    val_share: float = setting(0.1, above=0)
    test_share: float = setting(0.1, above=0)
    split_seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.split == "time" and self.timestamp is None:
            raise SettingError("split", self.split, "needs timestamp, the name of the column with the times")
        if self.min_rating is not None and self.rating is None:
            raise SettingError("min_rating", self.min_rating, "needs rating, the name of the column with the ratings")
        columns = self._columns()
        if len(set(columns)) < len(columns):
            raise UserError(f"user, item, rating and timestamp must name different columns, not {columns}")
        if self.val_share + self.test_share >= 1:
            raise SettingError(
                "val_share", self.val_share, f"and test_share={self.test_share} must be below 1 together"
            )

    def _columns(self) -> list[str]:
        """The columns that are read."""
        return [column for column in (self.user, self.item, self.rating, self.timestamp) if column is not None]

    def load(self, data_dir: Path) -> Interactions:
        """Import the log, or read what an earlier import of the same file with the same settings prepared.

        Raises
        ------
        UserError
            When the file or a column is missing, a value is missing or no number, or too little is left.
        """
        source = Path(self.path)
        try:
            content = _file_hash(source)
        except OSError as error:
            raise SettingError("path", source, f"cannot be read ({error.strerror})") from None
        settings = {key: value for key, value in asdict(self).items() if key not in ("name", "budget", "path")}
        key = hashlib.sha256((content + json.dumps(settings, sort_keys=True)).encode()).hexdigest()[:12]
        path = data_dir / self.name / f"{source.stem}-{key}" / "interactions.npz"
        if not path.exists():
            data = self._import(source)
            check_writable(path, "data_dir")
            save_interactions(data, path)
            log.info("%s: imported %s into %s", self.name, source, path)
        return load_interactions(path, self.name)

    def _import(self, source: Path) -> Interactions:
        frame = self._read(source)
        times = self._times(frame)
        keep = np.ones(len(frame), bool)
        if self.min_rating is not None:
            keep &= self._numbers(frame, self.rating) >= self.min_rating
        (users, user_ids), (items, item_ids) = (_numbered(frame[column]) for column in (self.user, self.item))
        kept = np.flatnonzero(keep)
        order = kept[np.argsort(times[kept], kind="stable")]  # of a repeated pair the earliest counts
        users, items, times = users[order], items[order], times[order]
        _, first = np.unique(users * len(item_ids) + items, return_index=True)
        first.sort()
        if len(first) < len(users):
            log.info("%s: %d repeated interactions were merged", self.name, len(users) - len(first))
        users, items, times = users[first], items[first], times[first]
        core = _k_core(users, items, self.k_core)
        users, items, times = users[core], items[core], times[core]
        if len(users) < 10:
            raise UserError(
                f"{source}: {len(users)} interactions are left after the filters, too few to split; lower "
                "min_rating or k_core"
            )
        kept_users, users = np.unique(users, return_inverse=True)
        kept_items, items = np.unique(items, return_inverse=True)
        if self.split == "time":
            parts = temporal_split(users, times, self.val_share, self.test_share)
            if len(parts["val"]) == 0:
                raise UserError(f"{source}: no user has 3 interactions to split by time; take split=random")
        else:
            parts = random_split(len(users), self.val_share, self.test_share, stream(self.split_seed, "split"))
        pairs = np.stack([users, items])
        return Interactions.from_pairs(
            self.name,
            {split: pairs[:, parts[split]] for split in SPLITS},
            len(kept_users),
            len(kept_items),
            user_ids[kept_users],
            item_ids[kept_items],
        )

    def _read(self, source: Path) -> pd.DataFrame:
        """The named columns; ids have no gaps and are not floating-point numbers."""
        try:
            frame = self._read_parquet(source) if source.suffix == ".parquet" else self._read_text(source)
        except ImportError:
            raise UserError(f"{source}: reading Parquet needs pyarrow; install it with pip install pyarrow") from None
        except UserError:
            raise
        except pd.errors.ParserWarning:
            raise UserError(f"{source}: rows have more fields than the header names; name all columns in it") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{source} is not in UTF-8 ({error.reason}); convert it, as iconv does") from None
        except (ValueError, OSError) as error:  # pandas' and pyarrow's parser errors are ValueErrors
            raise UserError(f"{source} cannot be read as a table ({error})") from None
        for column in (self.user, self.item):
            values = frame[column]
            if values.isna().any():
                raise UserError(f"{source}: column '{column}' is empty in {self._row(values.isna())}; remove that row")
            if pd.api.types.is_float_dtype(values):
                raise UserError(f"{source}: column '{column}' holds floating-point numbers; ids are integers or text")
            if pd.api.types.is_integer_dtype(values):
                continue
            broken = values.astype(str).str.contains("\n", regex=False)
            if broken.any():
                raise UserError(
                    f"{source}: column '{column}' holds a line break in record {int(np.flatnonzero(broken)[0]) + 1}; "
                    "most likely a quotation mark was opened and not closed there"
                )
        return frame

    def _read_parquet(self, source: Path) -> pd.DataFrame:
        """Of a wide log only what is needed."""
        from pyarrow.parquet import read_schema

        return pd.read_parquet(source, columns=self._columns_among(read_schema(source).names, source))

    def _read_text(self, source: Path) -> pd.DataFrame:
        """The columns as text, rows with more fields than the header refused.

        All columns are parsed, since only so the number of fields is checked, but few rows of the others kept at once.
        """
        separator = self.separator or SEPARATORS.get(source.suffix)
        if separator is None:
            raise UserError(f"{source}: an ending other than .csv, .tsv or .parquet needs the setting 'separator'")
        quoted = len(separator) == 1 and separator != "\t"
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            reader = pd.read_csv(
                source,
                sep=separator if len(separator) == 1 else re.escape(separator),  # pandas takes it as an expression
                header=0 if self.header else None,
                index_col=False,  # else rows longer than the header make an index of their first field
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
                dtype=str,
                keep_default_na=False,
                na_values=[""],
                skip_blank_lines=False,
                engine="c" if len(separator) == 1 else "python",
                chunksize=CHUNK,
            )
            parts = []
            with reader:
                for part in reader:
                    part.columns = [str(column) for column in part.columns]
                    parts.append(part[self._columns_among(part.columns, source)])
        return pd.concat(parts, ignore_index=True)

    def _columns_among(self, names: Collection[str], source: Path) -> list[str]:
        """The columns that are read, all of which the file must have."""
        columns = self._columns()
        for column in columns:
            if column not in names:
                raise unknown(f"{source}: column", column, names)
        return columns

    def _times(self, frame: pd.DataFrame) -> np.ndarray:
        """(rows,) float64 or int64; zeros where the log has no times."""
        if self.timestamp is None:
            return np.zeros(len(frame), np.int64)
        column = frame[self.timestamp]
        times = pd.to_numeric(column, errors="coerce").where(column.notna())  # a missing date would become a number
        if times.isna().all():
            times = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        if times.isna().any():
            raise UserError(
                f"{self.path}: column '{self.timestamp}' holds {column[times.isna()].iloc[0]!r} in "
                f"{self._row(times.isna())}; times must all be numbers, or all dates such as 2024-05-31T12:00:00"
            )
        return times.astype("int64").to_numpy() if times.dtype.kind == "M" else times.to_numpy()

    def _numbers(self, frame: pd.DataFrame, column: str) -> np.ndarray:
        numbers = pd.to_numeric(frame[column], errors="coerce")
        if numbers.isna().any():
            wrong = frame[column][numbers.isna()].iloc[0]
            raise UserError(f"{self.path}: column '{column}' holds {wrong!r} in {self._row(numbers.isna())}, no number")
        return numbers.to_numpy()

    def _row(self, wrong: pd.Series) -> str:
        """Where the first wrong value stands, as a text editor counts lines."""
        position = int(np.flatnonzero(wrong)[0])
        if self.path.endswith(".parquet"):
            return f"row {position}"
        return f"line {position + (2 if self.header else 1)}"


def _file_hash(path: Path) -> str:
    """SHA-256, of a file larger than memory, too."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _numbered(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Which of the distinct ids, ascending, each row has; and they, integers as they are, anything else as text."""
    integers = pd.api.types.is_integer_dtype(column)
    numbers, ids = pd.factorize(column if integers else column.astype(str), sort=True)
    return numbers, ids.to_numpy() if integers else ids.to_numpy().astype(str)  # can be saved without pickling


def _k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Positions of the interactions in which user and item have k interactions each among those kept."""
    kept = np.arange(len(users))
    while len(kept):
        enough = (np.bincount(users[kept])[users[kept]] >= k) & (np.bincount(items[kept])[items[kept]] >= k)
        if enough.all():
            break
        kept = kept[enough]
    return kept
