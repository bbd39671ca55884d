"""Integers packed at as many bits each as they need."""

from __future__ import annotations

import numpy as np


def code_bits(num_rows: int) -> int:
    """Bits of one stored code: ceil(log2 num_rows)."""
    return (num_rows - 1).bit_length()


def packed_code_bytes(num_codes: int, num_rows: int) -> int:
    """Bytes of `num_codes` codes into `num_rows` rows, packed without gaps."""
    return -(-num_codes * code_bits(num_rows) // 8)


def pack_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """(ceil(values.size * bits / 8),) uint8: non-negative integers at `bits` bits each, the highest bit first."""
    digits = np.empty((values.size, bits), np.uint8)
    for place in range(bits):
        digits[:, place] = (values.ravel() >> (bits - 1 - place)) & 1
    return np.packbits(digits)


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack_bits`: (count,) int64."""
    digits = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    values = np.zeros(count, np.int64)
    for place in range(bits):
        values = 2 * values + digits[:, place]
    return values


def packed_width(count: int, bits: int) -> int:
    """Bytes of `count` integers of `bits` bits each, on whole bytes together."""
    return -(-count * bits // 8)


def code_dtype(bits: int) -> type:
    """The integers that hold so many bits, up to 15; torch can index with none that are unsigned and longer."""
    return np.uint8 if bits <= 8 else np.int16


def whole_dtype(bits: int) -> np.dtype:
    """Unsigned integers of whole bytes that hold so many bits, up to 16, the highest first in memory."""
    return np.dtype(np.uint8 if bits <= 8 else ">u2")


def pack_rows(values: np.ndarray, bits: int) -> np.ndarray:
    """(n, packed_width(count, bits)) uint8 from (n, count) integers from 0 to 2^bits - 1, the highest bit first."""
    whole = whole_dtype(bits)
    digits = np.unpackbits(values.astype(whole, copy=False)[:, :, None].view(np.uint8), axis=2)[:, :, -bits:]
    return np.packbits(digits.reshape(len(values), -1), axis=1)


def unpack_rows(packed: np.ndarray, count: int, bits: int) -> np.ndarray:
    """The inverse of `pack_rows`: (n, count), of `code_dtype`."""
    digits = np.unpackbits(packed, axis=1, count=count * bits).reshape(len(packed), count, bits)
    whole = whole_dtype(bits)
    values = np.packbits(digits, axis=2).view(whole)[:, :, 0]  # filled up with zeros to the right
    return (values >> (8 * whole.itemsize - bits)).astype(code_dtype(bits), copy=False)
