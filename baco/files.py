"""Writing files so that nobody ever meets half of one."""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from baco.errors import UserError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")  # the names that `atomic_path` gives
OFFSETS = ".text_offsets"  # the name's ending of the array that says where each text begins


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


def write_arrays(path: Path, arrays: dict[str, np.ndarray], compress: bool = True) -> None:
    """Write an .npz archive, all of it or nothing.

    Texts of variable width (`numpy.dtypes.StringDType`) are stored as UTF-8: one long text costs its own length only.
    """
    stored: dict[str, Any] = {}
    for name, array in arrays.items():
        stored |= encode_texts(name, array) if array.dtype.kind == "T" else {name: array}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        save = np.savez_compressed if compress else np.savez
        save(file, **stored)


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Some or all (None) arrays of an .npz archive.

    Fails in many ways on a damaged one (by zip, zlib, array header, pickle), and with `KeyError` on missing names.
    """
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        if names is None:
            names = [name for name in archive.files if not name.endswith(OFFSETS)]
        return {
            name: decode_texts(archive[name], archive[name + OFFSETS])
            if name + OFFSETS in archive.files
            else archive[name]
            for name in names
        }


def encode_texts(name: str, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Texts as two arrays: their bytes in UTF-8, one after the other, and where each begins and the last one ends.

    Parameters
    ----------
    name : str
    texts : (n,) StringDType

    Returns
    -------
    dict : `name`, (bytes,) uint8, and `name.text_offsets`, (n + 1,) int64
    """
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    return {name: np.frombuffer(b"".join(encoded), np.uint8), name + OFFSETS: offsets}


def decode_texts(content: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The inverse of `encode_texts`: (n,) StringDType.

    Raises
    ------
    ValueError
        When the offsets do not fit the bytes, or these are not in UTF-8.
    """
    ends = offsets.tolist()
    if not ends or ends[0] != 0 or ends[-1] != len(content) or (np.diff(offsets) < 0).any():
        raise ValueError("the offsets of texts do not fit their bytes")
    encoded = content.tobytes()
    texts = np.empty(len(ends) - 1, np.dtypes.StringDType())
    for place, (start, end) in enumerate(itertools.pairwise(ends)):
        texts[place] = encoded[start:end].decode()
    return texts


def json_array(description: dict) -> np.ndarray:
    """A description as JSON, (n,) uint8: it can lie in an archive beside the arrays that it describes."""
    return np.frombuffer(json.dumps(description).encode(), np.uint8)


def from_json_array(array: np.ndarray) -> dict:
    """The inverse of `json_array`."""
    return json.loads(array.tobytes())
