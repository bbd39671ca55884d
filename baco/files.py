"""Writing files so that nobody ever meets half of one."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from baco.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes the place of `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # no process number: machines share folders
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path, key: str) -> None:
    """Make the folder of a file that will be written later, so that a long run cannot fail on it in the end.

    Raises
    ------
    UserError
        When the file could not be written; the message names the configuration key or option that says where.
    """
    check_folder(path.parent, key)
    if path.is_dir():
        raise UserError(f"{key}: {path} cannot be written; it is a folder, so give another path")


def check_folder(folder: Path, key: str) -> None:
    """Make a folder that files will be written to; raises `UserError` as `check_writable` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: the folder {folder} cannot be made ({error.strerror})") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{key}: {folder} cannot be written to; give another path or make the folder writable")


def write_text(path: Path, text: str) -> None:
    """Write a text file, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed .npz archive, all of it or nothing."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Some or all (None) arrays of an .npz archive.

    Fails in many ways on a damaged one (by zip, zlib, array header, pickle), and with `KeyError` on missing names.
    """
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in (archive.files if names is None else names)}


def json_array(description: dict) -> np.ndarray:
    """A description as JSON, (n,) uint8: it can lie in an archive beside the arrays that it describes."""
    return np.frombuffer(json.dumps(description).encode(), np.uint8)


def from_json_array(array: np.ndarray) -> dict:
    """The inverse of `json_array`."""
    return json.loads(array.tobytes())
