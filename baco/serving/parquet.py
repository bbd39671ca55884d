"""Recommendations as a Parquet file, written block by block."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pandas as pd

from baco.errors import SettingError
from baco.files import atomic_path, check_writable
from baco.optional import optional_package

ENDING = ".parquet"


def check_parquet(path: Path, key: str) -> None:
    """Before what is to be written is worked out: raise `UserError` where `write_parquet` would fail.

    Parameters
    ----------
    path : file
    key : str
        Of the option that names it, for messages.
    """
    if path.suffix != ENDING:
        raise SettingError(key, path, f"must end in {ENDING}")
    check_writable(path, key)
    _packages()


def write_parquet(path: Path, frames: Iterable[pd.DataFrame]) -> None:
    """Write frames as the row groups of one file, all of it or nothing; one frame is in memory at a time.

    Parameters
    ----------
    frames : iterable of DataFrame
        One at least, all of the same columns and types. A column has the type that the first frame's has, and text
        where that is empty.
    """
    pyarrow, parquet = _packages()
    blocks = iter(frames)
    first = next(blocks)
    found = pyarrow.Schema.from_pandas(first, preserve_index=False).remove_metadata()
    kinds = [pyarrow.string() if pyarrow.types.is_null(kind) else kind for kind in found.types]
    schema = pyarrow.schema(zip(found.names, kinds, strict=True))
    with atomic_path(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        writer.write_table(pyarrow.Table.from_pandas(first, schema, preserve_index=False))
        del first
        for frame in blocks:
            writer.write_table(pyarrow.Table.from_pandas(frame, schema, preserve_index=False))


def _packages() -> tuple[ModuleType, ModuleType]:
    """pyarrow and its part for Parquet."""
    arrow, parquet = (
        optional_package(name, "a Parquet file", "baco[feather]") for name in ("pyarrow", "pyarrow.parquet")
    )
    return arrow, parquet
