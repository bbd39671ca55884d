"""Writing files so that nobody ever meets half of one."""

from __future__ import annotations

import errno
import itertools
import json
import math
import mmap
import os
import re
import secrets
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from baco.errors import UserError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")  # the names that `temporary_beside` gives
ALIGNMENT = 64  # of the contents of arrays, in bytes: any type can be read in place
HEADER = struct.Struct("<4s5H3L2H")  # of a member of a zip archive, as it stands before its name
ZIP64_FIELD = 20  # bytes that zipfile adds to each header
FIELD = struct.Struct("<2H")  # kind and length of a field of such a header
PADDING = 0xD935  # the kind that Android's zipalign uses
PIECE = 2**16  # texts that are objects of Python at a time
OFFSETS = ".text_offsets"  # the name's ending of the array that says where each text begins


def temporary_beside(path: Path) -> Path:
    """A new name beside a path, for what is to take its place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # no process number: machines share folders


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes the place of `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
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
    Without compression `map_arrays` reads it, too: the contents of arrays lie as in memory, at places of the file that
    are multiples of 64.
    """
    stored: dict[str, Any] = {}
    for name, array in arrays.items():
        stored |= encode_texts(name, array) if array.dtype.kind == "T" else {name: array}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        if compress:
            np.savez_compressed(file, **stored)
        else:
            _write_aligned(file, stored)


def _write_aligned(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """What `np.savez` writes, with fields of no meaning in the zip's headers that fill up to whole `ALIGNMENT`s.

    The header before the content of an array is a multiple of 64 bytes by NumPy's own format.
    """
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            start = file.tell() + HEADER.size + len(member.filename.encode()) + ZIP64_FIELD + FIELD.size
            member.extra = FIELD.pack(PADDING, -start % ALIGNMENT) + bytes(-start % ALIGNMENT)
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


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


def read_given(
    path: str | Path, advice: str, read: Callable[[Path], dict[str, np.ndarray]] = read_arrays
) -> dict[str, np.ndarray]:
    """What `read`, most often `read_arrays`, finds in an archive that the user has named.

    Raises
    ------
    UserError
        When there is no such file, or it is damaged or no archive; with the advice.
    """
    try:
        return read(Path(path))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; {advice}") from None
    except Exception as error:  # of many kinds, see `read_arrays`
        raise UserError(f"{path} cannot be read ({error}); {advice}") from None


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz archive, read-only, as memory maps: what nobody looks at is not read.

    The system is told that places are looked at in any order, so that it does not read ahead.

    Members that are compressed, as in exports from before there were maps, are read at once. Texts stay in two arrays,
    for `decode_texts`. Fails on a damaged file as `read_arrays` does.
    """
    found = {}
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):  # not on Windows
            mapped.madvise(mmap.MADV_RANDOM)
        whole = np.frombuffer(mapped, np.uint8)
        for member in archive.infolist():
            with archive.open(member) as stream:
                first = np.lib.format.read_magic(stream) == (1, 0)
                read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                shape, by_columns, dtype = read(stream)
                header_size = stream.tell()
            if dtype.hasobject:
                raise ValueError(f"{member.filename} holds Python objects")
            if member.compress_type == zipfile.ZIP_STORED:
                file.seek(member.header_offset)
                *_, name_size, extra_size = HEADER.unpack(file.read(HEADER.size))
                start = member.header_offset + HEADER.size + name_size + extra_size + header_size
                content = whole[start : start + math.prod(shape) * dtype.itemsize]
                array = content.view(dtype).reshape(shape, order="F" if by_columns else "C")
            else:
                with archive.open(member) as stream:
                    array = np.lib.format.read_array(stream, allow_pickle=False)
            found[member.filename.removesuffix(".npy")] = array
    return found


@contextmanager
def temporary_file() -> Iterator[BinaryIO]:
    """A file without a name among the temporary ones (`TMPDIR` moves it): it goes however the process ends.

    Raises
    ------
    UserError
        When there is no room for what is written to it.
    """
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{tempfile.gettempdir()}: a temporary file cannot be written ({error.strerror}); set TMPDIR to a folder "
            "with more room"
        ) from None


def array_in_file(size: int, dtype: DTypeLike) -> np.ndarray:
    """(size,) writable memory map of a `temporary_file`, which goes with the array; filled with zeros.

    The room on the disk is taken at once, where the system can: when a disk is full at a write to a map, the process
    ends. Raises `UserError` as `temporary_file` does.
    """
    with temporary_file() as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, int(size) * np.dtype(dtype).itemsize)
        return np.asarray(np.memmap(file, dtype, "r+", shape=(int(size),)))


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
    offsets, pieces = np.zeros(len(texts) + 1, np.int64), []
    for start in range(0, len(texts), PIECE):
        encoded = [text.encode() for text in texts[start : start + PIECE]]
        offsets[start + 1 : start + 1 + PIECE] = [len(text) for text in encoded]
        pieces.append(b"".join(encoded))
    np.cumsum(offsets, out=offsets)
    return {name: np.frombuffer(b"".join(pieces), np.uint8), name + OFFSETS: offsets}


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
