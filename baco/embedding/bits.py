"""Integers packed at as many bits each as they need, as exports store them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BLOCK = 64  # values between two running sums
PIECE = 2**16  # values, or rows of them, that are packed or unpacked at a time: one bit takes a byte meanwhile


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
    pieces = [_pack_piece(values[start : start + PIECE], bits) for start in range(0, max(len(values), 1), PIECE)]
    return np.concatenate(pieces)  # each on whole bytes, as `PIECE` is a multiple of 8


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack_bits`: (..., count), of `code_dtype(bits)`."""
    if bits == 8:  # they are what they are packed into
        return packed[..., :count].copy()
    if packed.ndim > 1:
        pieces = [(packed[start : start + PIECE], count) for start in range(0, max(len(packed), 1), PIECE)]
    else:
        step = PIECE // 8 * bits
        pieces = [
            (packed[place * step : (place + 1) * step], min(PIECE, count - place * PIECE))
            for place in range(-(-count // PIECE) or 1)
        ]
    return np.concatenate([_unpack_piece(piece, bits, size) for piece, size in pieces])


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


def running_sums(values: np.ndarray) -> np.ndarray:
    """int64: the sum of (n,) values before each `BLOCK` of them, and of all."""
    return np.concatenate([[0], np.cumsum(np.add.reduceat(values, np.arange(0, len(values), BLOCK), dtype=np.int64))])


def values_and_sums(
    ids: np.ndarray, read: Callable[[np.ndarray], np.ndarray], marks: np.ndarray, num_ids: int
) -> tuple[np.ndarray, np.ndarray]:
    """(b,) int64 each: the values of some ids, and the sums of the values of all ids before them.

    Parameters
    ----------
    read : callable
        From ids, an array of any shape, to their values.
    marks : int64
        The `running_sums` of the values.
    """
    first = ids - ids % BLOCK
    places = first[:, None] + np.arange(BLOCK)
    values = read(np.minimum(places, num_ids - 1)).astype(np.int64)
    before = marks[ids // BLOCK] + np.where(places < ids[:, None], values, 0).sum(1)
    return values[np.arange(len(ids)), ids % BLOCK], before


def bits_and_ranks(ids: np.ndarray, packed: np.ndarray, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bits of some ids, (b,) bool, in an array of one for each id, and how many ids before each have one.

    `marks` are the `running_sums` of the bits in each byte.
    """
    _, before = values_and_sums(ids >> 3, lambda places: np.bitwise_count(packed[places]), marks, len(packed))
    digits, place = packed[ids >> 3].astype(np.int64), ids & 7
    return (digits >> (7 - place) & 1).astype(np.bool_), before + np.bitwise_count(digits >> (8 - place))


def _pack_piece(values: np.ndarray, bits: int) -> np.ndarray:
    whole = _whole_dtype(bits)
    whole_digits = np.unpackbits(np.ascontiguousarray(values, whole)[..., None].view(np.uint8), axis=-1)
    digits = whole_digits[..., 8 * whole.itemsize - bits :]
    return np.packbits(digits.reshape(*values.shape[:-1], values.shape[-1] * bits), axis=-1)


def _unpack_piece(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    whole = _whole_dtype(bits)
    digits = np.zeros((*packed.shape[:-1], count, 8 * whole.itemsize), np.uint8)
    stored = np.unpackbits(packed, axis=-1, count=count * bits)
    digits[..., 8 * whole.itemsize - bits :] = stored.reshape(*packed.shape[:-1], count, bits)
    return np.packbits(digits, axis=-1).view(whole)[..., 0].astype(code_dtype(bits))


def _whole_dtype(bits: int) -> np.dtype:
    """The smallest unsigned integers of so many bits, their highest byte first in memory."""
    return np.dtype(np.uint8 if bits <= 8 else ">u2" if bits <= 16 else ">u4")
