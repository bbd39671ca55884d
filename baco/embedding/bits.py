"""Integers packed at as many bits each as they need, as exports store them."""

from __future__ import annotations

import numpy as np


def code_bits(num_rows: int) -> int:
    """Bits of one stored code: ceil(log2 num_rows)."""
    return (num_rows - 1).bit_length()


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` integers of `bits` bits each, packed without gaps."""
    return -(-count * bits // 8)


def packed_code_bytes(num_codes: int, num_rows: int) -> int:
    """Bytes of `num_codes` codes into `num_rows` rows, packed without gaps."""
    return packed_bytes(num_codes, code_bits(num_rows))


def code_dtype(bits: int) -> type:
    """The smallest integers that hold so many bits, up to 31, and that torch can index with."""
    return np.uint8 if bits <= 8 else np.int16 if bits <= 15 else np.int32


def pack_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Pack integers along the last axis, the highest bit first.

    Parameters
    ----------
    values : (..., count) integers in [0, 2^bits)
        Flat ones are packed without gaps; the rows of a matrix end on whole bytes, so that each can be read alone.
    bits : int
        0 to 31.

    Returns
    -------
    (..., packed_bytes(count, bits)) uint8, filled up with zero bits.
    """
    whole = _whole_dtype(bits)
    whole_digits = np.unpackbits(np.ascontiguousarray(values, whole)[..., None].view(np.uint8), axis=-1)
    digits = whole_digits[..., 8 * whole.itemsize - bits :]
    return np.packbits(digits.reshape(*values.shape[:-1], values.shape[-1] * bits), axis=-1)


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack_bits`: (..., count), of `code_dtype(bits)`."""
    if bits == 8:  # they are what they are packed into
        return packed[..., :count].copy()
    whole = _whole_dtype(bits)
    digits = np.zeros((*packed.shape[:-1], count, 8 * whole.itemsize), np.uint8)
    stored = np.unpackbits(packed, axis=-1, count=count * bits)
    digits[..., 8 * whole.itemsize - bits :] = stored.reshape(*packed.shape[:-1], count, bits)
    return np.packbits(digits, axis=-1).view(whole)[..., 0].astype(code_dtype(bits))


def read_bits(packed: np.ndarray, bits: int, places: np.ndarray) -> np.ndarray:
    """Some of the integers that `pack_bits` packed without gaps, by their places; no other bytes are read.

    Parameters
    ----------
    packed : (bytes,) uint8
    bits : int
    places : int64 array of any shape

    Returns
    -------
    int64 of the same shape
    """
    values = np.zeros(places.shape, np.int64)
    start = places * bits
    width = (bits + 14) // 8  # the most bytes that an integer lies across, 5 for 31 bits
    for byte in range(width if bits else 0):
        values = values << 8 | packed[np.minimum((start >> 3) + byte, len(packed) - 1)]
    return values >> (8 * width - bits - (start & 7)) & ((1 << bits) - 1)


def _whole_dtype(bits: int) -> np.dtype:
    """The smallest unsigned integers of so many bits, their highest byte first in memory."""
    return np.dtype(np.uint8 if bits <= 8 else ">u2" if bits <= 16 else ">u4")
