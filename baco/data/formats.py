"""Formats: a log in any common format becomes a relation that DuckDB reads, row by row in the order of the source."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import lzma
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from baco.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd
    from duckdb import DuckDBPyConnection

FORMATS = ("text", "adjacency", "movielens", "recbole", "json", "parquet", "feather", "npz")
ENDINGS = {
    ".csv": "text",
    ".tsv": "text",
    ".inter": "recbole",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".npz": "npz",
}
NO_TEXT = ("parquet", "feather", "npz")
# In Python; DuckDB reads .gz and .zst by itself.
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSIONS = (*OPENERS, ".zst")
MOVIELENS = {"ratings.dat": "::", "u.data": "\t"}
INTERACTION = ("user", "item", "rating", "timestamp")  # the columns of MovieLens files, which have no header
NAMES = {  # what a format calls the columns that are named user, item, rating and timestamp by default
    "recbole": {"user": ["user_id"], "item": ["item_id"]},
    "json": {
        "user": ["user_id", "reviewerID"],
        "item": ["parent_asin", "asin"],
        "rating": ["overall"],
        "timestamp": ["unixReviewTime"],
    },
}
SEPARATOR_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
BLANKS = r"\s+"  # any run of blanks and tabs, as `separator` spells it
LONGEST_SEPARATOR = 4  # bytes that DuckDB takes
SAMPLE = 100  # lines that a format is recognised by
HIVE = "hive_partitioning=true, hive_types_autocast=false"  # names of folders are text, 007 too
STRAY_QUOTE = (
    "a quoted field holds a line break; most likely a quotation mark was opened and not closed there. Mend it, or set "
    "quote='' if quotation marks are characters like others, or multiline=true if fields have several "
    "lines"
)
LINES = "auto_detect=false, delim='', quote='', escape='', header=false, columns={'line': 'VARCHAR'}"


@dataclass(frozen=True)
class Dialect:
    """How a source is written, where it does not say so itself; None: recognised.

    Attributes
    ----------
    format : str or None
        One of `FORMATS`.
    separator, quote, header, multiline, encoding
        Of text; see `baco.data.logs.Log`.
    named : str or None
        The name of a file of text that is written alike: it counts where the file's own tells no format.
    """

    format: str | None = None
    separator: str | None = None
    quote: str | None = None
    header: bool = True
    multiline: bool = False
    encoding: str = "utf-8"
    named: str | None = None


@dataclass(frozen=True)
class Source:
    """A log that DuckDB can read.

    Attributes
    ----------
    path : str
        What messages call it.
    relation : str
        What SQL selects from.
    columns : dict
        The SQL expression of each column, by the names that settings may use.
    description : str
        The format, in words.
    broken, fault : str
        The SQL condition of rows that are no records; what is wrong with them, and how to mend it.
    lines : str
        A query for the line number of each record, in order; empty where a record is no line.
    decimal_comma : bool
    """

    path: str
    relation: str
    columns: dict[str, str]
    description: str
    broken: str = ""
    fault: str = ""
    lines: str = ""
    decimal_comma: bool = False

    def expression(self, column: str) -> str:
        """The SQL expression of a column; raises `UserError`, with the nearest name, where there is none."""
        if column not in self.columns:
            raise unknown(f"{self.path}: column", column, self.columns)
        return self.columns[column]

    def place(self, connection: DuckDBPyConnection, row: int) -> str:
        """Where row `row`, counted from 0, stands in the file, as an editor counts lines."""
        if not self.lines:
            return f"row {row}"
        found = connection.execute(f"{self.lines} LIMIT 1 OFFSET {row}").fetchone()
        return f"row {row}" if found is None else f"line {found[0]}"


def open_frame(connection: DuckDBPyConnection, frame: pd.DataFrame, path: str, name: str = "frame") -> Source:
    """A DataFrame as a source, under a name in SQL."""
    frame = frame.rename(columns=str)
    texts = [column for column in frame.columns if frame[column].dtype == object]
    frame = frame.assign(**{column: frame[column].map(str, na_action="ignore") for column in texts})
    connection.register(name, frame)
    return Source(path, name, {column: _identifier(column) for column in frame.columns}, "DataFrame")


def open_source(
    connection: DuckDBPyConnection, path: Path, dialect: Dialect, wanted: Collection[str], scratch: Path
) -> Source:
    """Recognise the format of a file or folder, and prepare to read it.

    Parameters
    ----------
    path : Path
        A file, or a folder of Parquet or text files of one format, as Spark writes it.
    wanted : names of columns
        A comment line with all of them is the header.
    scratch : Path
        An empty folder for what must be decompressed or converted first; its name is the source's in SQL.

    Raises
    ------
    UserError
        When the format is unknown, or the source is empty, damaged or in another encoding.
    """
    files = source_files(path)
    if not files:
        raise UserError(f"{path} cannot be read as a table (the folder holds no files)")
    name = format_of(files[0], dialect)
    if name == "npz":
        return _open_matrix(connection, path, scratch.name)
    if name == "feather":
        return _open_feather(connection, path, files, scratch.name)
    if name == "parquet":
        links = _list(_links(path, files, scratch))
        return _described(connection, path, f"read_parquet({links}, {HIVE})", "Parquet")
    readable = _readable(path, files, dialect, scratch)
    if name == "json":
        return _open_json(connection, path, readable)
    return _open_text(connection, path, name, _telling_name(files[0], dialect), readable, dialect, wanted)


def source_files(path: Path) -> list[Path]:
    """The files of a source, in a fixed order: of a folder those in it, hidden ones and marks (`_SUCCESS`) left out."""
    if not path.is_dir():
        return [path]
    files = (file for file in path.rglob("*") if file.is_file())
    return sorted(f for f in files if not any(part[0] in "._" for part in f.relative_to(path).parts))


def format_of(file: Path, dialect: Dialect) -> str | None:
    """The format by its setting or the file's ending; None: only the first lines tell."""
    if dialect.format is not None:
        return dialect.format
    return ENDINGS.get(Path(_telling_name(file, dialect)).suffix)


def _telling_name(file: Path, dialect: Dialect) -> str:
    """The name by which a format is recognised, without the ending of a compression, in lower case."""
    own, _ = _stem(file)
    if dialect.named is None or own in MOVIELENS or Path(own).suffix in ENDINGS:
        return own
    named, _ = _stem(Path(dialect.named))
    return own if ENDINGS.get(Path(named).suffix) in NO_TEXT else named


def _stem(file: Path) -> tuple[str, str]:
    """The file's name without the ending of a compression, and that ending, both in lower case."""
    name = file.name.lower()
    compression = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    return name.removesuffix(compression), compression


def _links(path: Path, files: list[Path], scratch: Path) -> list[str]:
    """Names for the files, without the folders above the source: in a Hive layout names of folders are columns."""
    if path.is_dir():
        (scratch / "folder").symlink_to(path.resolve())
        return [str(scratch / "folder" / file.relative_to(path)) for file in files]
    (scratch / "file").symlink_to(path.resolve())
    return [str(scratch / "file")]


def _readable(path: Path, files: list[Path], dialect: Dialect, scratch: Path) -> list[str]:
    """Names of files in UTF-8 and in a compression that DuckDB knows: links, or copies made here."""
    encoding = codecs.lookup(dialect.encoding).name
    names = []
    for number, file in enumerate(files):
        stem, compression = _stem(file)
        target = scratch / f"{number:06d}{Path(stem).suffix}"
        if encoding == "utf-8" and compression in ("", ".gz", ".zst"):
            target = target.with_name(target.name + compression)
            target.symlink_to(file.resolve())
        elif compression == ".zst":
            raise UserError(f"{path}: a .zst file must be in UTF-8; decompress it first")
        else:
            _convert(file, OPENERS.get(compression, open), encoding, target)
        names.append(str(target))
    return names


def _convert(file: Path, opener: Callable[..., IO[str]], encoding: str, target: Path) -> None:
    try:
        with (
            opener(file, "rt", encoding=encoding, newline="") as old,
            open(target, "w", newline="", encoding="utf-8") as new,
        ):
            shutil.copyfileobj(old, new, 2**20)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not in {encoding.upper()} ({error.reason}); set encoding") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{file} cannot be decompressed ({error})") from None


def _open_matrix(connection: DuckDBPyConnection, path: Path, name: str) -> Source:
    import pandas as pd
    from scipy.sparse import load_npz

    try:
        matrix = load_npz(path).tocoo()
    except Exception as error:  # a damaged archive fails in many ways
        raise UserError(
            f"{path} is no SciPy matrix ({error}); write it with scipy.sparse.save_npz, users x items"
        ) from None
    there = matrix.data != 0  # a stored zero is no interaction
    frame = pd.DataFrame({"user": matrix.row[there], "item": matrix.col[there], "rating": matrix.data[there]})
    return replace(open_frame(connection, frame, str(path), name), description="SciPy matrix")


def _open_feather(connection: DuckDBPyConnection, path: Path, files: list[Path], name: str) -> Source:
    try:
        from pyarrow import dataset
    except ImportError:
        raise UserError(f"{path}: reading Feather needs pyarrow; install it with pip install pyarrow") from None
    try:
        connection.register(name, dataset.dataset([str(file) for file in files], format="feather"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a table ({error})") from None
    return _described(connection, path, name, "Feather")


def _open_json(connection: DuckDBPyConnection, path: Path, files: list[str]) -> Source:
    """Values stay as they are written: the detection of types would take some texts for dates."""
    found = _described(connection, path, f"read_json({_list(files)}, sample_size=1000)", "JSON")
    types = ", ".join(f"{literal(name)}: 'JSON'" for name in found.columns)
    columns = {name: f"nullif({expression} ->> '$', '')" for name, expression in found.columns.items()}
    _add_names(columns, "json")
    return Source(str(path), f"read_json({_list(files)}, columns={{{types}}})", columns, "JSON lines")


def _described(connection: DuckDBPyConnection, path: Path, relation: str, description: str) -> Source:
    try:
        rows = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except Exception as error:
        raise reading_error(str(path), error) from None
    return Source(str(path), relation, {row[0]: _identifier(row[0]) for row in rows}, description)


def _open_text(
    connection: DuckDBPyConnection,
    path: Path,
    name: str | None,
    stem: str,
    files: list[str],
    dialect: Dialect,
    wanted: Collection[str],
) -> Source:
    lines, skipped = _first_lines(connection, path, files[0], wanted)
    first = lines[0].removeprefix("\ufeff")
    separator = _spelled_out(dialect.separator, first)
    if name == "adjacency" or (name is None and separator in (None, " ", "\t", BLANKS) and _is_adjacency(lines)):
        return _adjacency(path, files, skipped)
    if name is None and _is_movielens(stem, first):
        name = "movielens"
    if separator is None:
        separator = _separator_of(path, stem, first, name)
    header = name == "recbole" or (dialect.header and name != "movielens")
    if header:
        _check_headers(connection, path, files, skipped)
    return _separated(path, files, first, skipped, name, separator, replace(dialect, header=header))


def _first_lines(
    connection: DuckDBPyConnection, path: Path, file: str, wanted: Collection[str]
) -> tuple[list[str], int]:
    """The first lines after those that are blank or comments, and how many these are."""
    try:
        rows = connection.execute(f"SELECT line FROM read_csv({_file(file)}, {LINES}) LIMIT {SAMPLE}").fetchall()
    except Exception as error:
        raise reading_error(str(path), error) from None
    lines = [row[0] or "" for row in rows]
    skipped = next((n for n, line in enumerate(lines) if line and not _is_comment(line, wanted)), None)
    if skipped is None:
        raise UserError(f"{path} cannot be read as a table (it is empty)")
    return lines[skipped:], skipped


def _check_headers(connection: DuckDBPyConnection, path: Path, files: list[str], skipped: int) -> None:
    """Raise where files of a folder do not all begin as the first one, since their first records would be lost."""
    headers = {
        connection.execute(f"SELECT line FROM read_csv({_file(file)}, {LINES}) LIMIT 1 OFFSET {skipped}").fetchone()
        for file in files
    }
    if len(headers) > 1:
        raise UserError(f"{path}: its files have different headers; without headers it needs header=false")


def _separated(
    path: Path, files: list[str], first: str, skipped: int, name: str | None, separator: str, dialect: Dialect
) -> Source:
    """Lines of fields, of which `first` is the first that is not skipped."""
    header, quote = dialect.header, dialect.quote
    if quote is None:
        quote = '"' if len(separator) == 1 and separator != "\t" else ""
    fields = _fields(first.lstrip("# ") if header and first.startswith("#") else first, separator, quote)
    names = [field.strip() for field in fields] if header else [str(number) for number in range(len(fields))]
    skipped += header
    broken = fault = ""
    if separator == BLANKS or len(separator.encode()) > LONGEST_SEPARATOR:
        relation, expressions, broken = _split_lines(files, skipped, separator, len(fields))
        fault = f"the line does not have the {len(fields)} fields of the first line"
    else:
        expressions = [f"c{number}" for number in range(len(fields))]
        types = ", ".join(f"'{expression}': 'VARCHAR'" for expression in expressions)
        relation = (
            f"read_csv({_list(files)}, auto_detect=false, delim={literal(separator)}, quote={literal(quote)}, "
            f"escape={literal(quote)}, header=false, skip={skipped}, columns={{{types}}})"
        )
        if quote and not dialect.multiline:
            broken, fault = " OR ".join(f"contains({expression}, chr(10))" for expression in expressions), STRAY_QUOTE
    columns = dict(reversed(list(zip(names, expressions, strict=True))))  # of equal names the first counts
    if name == "recbole":
        columns |= {typed.partition(":")[0]: expression for typed, expression in columns.items()}
        _add_names(columns, "recbole")
    if name == "movielens":
        columns |= dict(zip(INTERACTION, expressions, strict=False))
    return Source(
        str(path),
        relation,
        columns,
        _text_description(name, separator, header, skipped - header),
        broken,
        fault,
        "" if quote and dialect.multiline else _line_numbers(files, skipped),
        decimal_comma=separator == ";",
    )


def _text_description(name: str | None, separator: str, header: bool, skipped: int) -> str:
    spelled = SEPARATOR_NAMES.get(separator, "blanks" if separator in (" ", BLANKS) else f"'{separator}'")
    kind = {"recbole": "RecBole atomic file", "movielens": "MovieLens file"}.get(name or "", "text")
    skips = f", {skipped} leading comment lines left out" if skipped else ""
    return f"{kind} separated by {spelled}, {'with' if header else 'without'} header{skips}"


def _is_comment(line: str, wanted: Collection[str]) -> bool:
    return line.startswith("#") and not set(wanted) <= set(re.split(r"\W+", line))


def _spelled_out(separator: str | None, first: str) -> str | None:
    """The separator that a setting means: `\\t` is a tab, and what a shell left of a blank is a blank or tab."""
    if separator is None:
        return None
    if re.fullmatch(r"\\+t", separator.strip("'\"")):
        return "\t"
    if separator == "":
        return "\t" if "\t" in first else BLANKS
    return separator


def _separator_of(path: Path, stem: str, first: str, name: str | None) -> str:
    """By the format or ending, or by the first line where a .csv file is of another country."""
    ending = Path(stem).suffix
    if name == "movielens" and "::" in first:
        return "::"
    if name in ("movielens", "recbole") or ending == ".tsv":
        return "\t"
    if ending != ".csv":
        raise UserError(
            f"{path}: the format is not known by the ending or the first line; it needs the setting 'separator' or "
            "'format'"
        )
    return next((separator for separator in ",;\t|" if separator in first), ",")


def _is_adjacency(lines: list[str]) -> bool:
    """Whether lines hold a user and its items: integers only, not everywhere the same number of them."""
    whole = lines[:-1] if len(lines) == SAMPLE else lines
    sizes = {len(line.split()) for line in whole}
    return len(sizes) > 1 and max(sizes) > 2 and all(re.fullmatch(r"\d+([ \t]+\d+)*[ \t]*", line) for line in whole)


def _is_movielens(stem: str, first: str) -> bool:
    separator = MOVIELENS.get(stem)
    if separator is None:
        return False
    fields = first.split(separator)
    return len(fields) == len(INTERACTION) and all(field.strip().isdigit() for field in fields[:2])


def _adjacency(path: Path, files: list[str], skipped: int) -> Source:
    relation = (
        "(SELECT number, try_cast(fields[1] AS BIGINT) AS u, try_cast(unnest(fields[2:]) AS BIGINT) AS i, bad FROM "
        "(SELECT number, string_split_regex(trim(line), '\\s+') AS fields, NOT regexp_full_match(trim(line), "
        f"'\\d+(\\s+\\d+)*') AS bad FROM {_numbered_lines(files)} WHERE trim(line) <> '' AND number > {skipped}))"
    )
    columns = {"user": "u", "item": "i", "0": "u", "1": "i"}
    fault = "a line of an adjacency list must be of integers, a user and its items"
    lines = f"SELECT number FROM {relation}"
    return Source(str(path), relation, columns, "adjacency lists (user item item ...)", "bad", fault, lines)


def _numbered_lines(files: list[str]) -> str:
    return f"(SELECT row_number() OVER () AS number, line FROM read_csv({_list(files)}, {LINES}))"


def _line_numbers(files: list[str], skipped: int) -> str:
    """A query for the line of each record, if the source is one file."""
    if len(files) > 1:
        return ""
    return f"SELECT number FROM {_numbered_lines(files)} WHERE line IS NOT NULL AND number > {skipped}"


def _split_lines(files: list[str], skipped: int, separator: str, width: int) -> tuple[str, list[str], str]:
    """Lines split here, where DuckDB's reader of text does not take the separator."""
    fields = (
        "string_split_regex(trim(line), '\\s+')" if separator == BLANKS else f"string_split(line, {literal(separator)})"
    )
    relation = (
        f"(SELECT {fields} AS fields FROM read_csv({_list(files)}, {LINES}, skip={skipped}) WHERE line IS NOT NULL)"
    )
    surplus = f"len(fields) <> {width} AND NOT (len(fields) = {width + 1} AND fields[{width + 1}] = '')"
    expressions = [f"nullif(fields[{number + 1}], '')" for number in range(width)]
    return relation, expressions, surplus


def _fields(line: str, separator: str, quote: str) -> list[str]:
    if separator == BLANKS:
        return line.split()
    if quote and len(separator) == 1:
        return next(csv.reader([line], delimiter=separator, quotechar=quote))
    return line.split(separator)


def _add_names(columns: dict[str, str], name: str) -> None:
    for ours, theirs in NAMES[name].items():
        found = next((other for other in theirs if other in columns), None)
        if ours not in columns and found is not None:
            columns[ours] = columns[found]


def reading_error(path: str, error: Exception) -> UserError:
    """What DuckDB found wrong, in one line that says how to mend it."""
    text = str(error)
    line = re.search(r"CSV Error on Line: (\d+)", text)
    place = f"line {line[1]}" if line else "some line"
    width = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if width and int(width[2]) > int(width[1]):
        return UserError(
            f"{path}: rows have more fields than the header names; name all columns in it ({place} has {width[2]}, the "
            f"header {width[1]})"
        )
    if width:
        return UserError(f"{path}: {place} has {width[2]} fields where the first line has {width[1]}; mend that line")
    if "unterminated quote" in text:
        return UserError(
            f"{path}: a quotation mark is opened and not closed in {place}; mend it, or set quote='' if "
            "quotation marks are characters like others"
        )
    if "nvalid unicode" in text or "not utf-8" in text:
        return UserError(f"{path} is not in UTF-8 ({place}); convert it, or set encoding, as in encoding=latin-1")
    cause = next((part.strip() for part in text.splitlines() if part.strip()), type(error).__name__)
    cause = re.sub(r' in file "[^"]*", at byte \d+ in line', " near line", cause)  # a file of the importer
    return UserError(f"{path} cannot be read as a table ({cause})")


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _file(name: str) -> str:
    """The name of a file as it stands: none of its characters makes a pattern of it."""
    return literal(re.sub(r"[\[*?]", r"[\g<0>]", name))


def _list(files: list[str]) -> str:
    return "[" + ", ".join(map(_file, files)) + "]"
