"""Packed integers, against the obvious way: their binary digits as text, one after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.embedding.bits import (
    code_bits,
    code_dtype,
    pack_bits,
    packed_bytes,
    packed_code_bytes,
    read_bits,
    unpack_bits,
)

NUM_BITS = st.integers(0, 31)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """So that few values lie in several."""
    monkeypatch.setattr("baco.embedding.bits.PIECE", 16)


def packed_digits(values, bits: int) -> bytes:
    """The integers of one row, each written with `bits` digits, filled up with zeros to whole bytes."""
    digits = "".join(format(value, f"0{bits}b") for value in values) if bits else ""
    digits = digits.ljust(8 * packed_bytes(len(values), bits), "0")
    return bytes(int(digits[start : start + 8], 2) for start in range(0, len(digits), 8))


def drawn(bits: int, shape: tuple[int, ...], seed: int, dtype=np.int64) -> np.ndarray:
    return np.random.default_rng(seed).integers(2**bits, size=shape).astype(dtype)


@given(NUM_BITS, st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_flat_integers_are_packed_without_gaps(bits, count, seed):
    values = drawn(bits, (count,), seed)
    packed = pack_bits(values, bits)
    assert packed.dtype == np.uint8 and packed.tobytes() == packed_digits(values.tolist(), bits)
    np.testing.assert_array_equal(unpack_bits(packed, bits, count), values.astype(code_dtype(bits)), strict=True)


@given(NUM_BITS, st.integers(0, 20), st.integers(0, 6), st.booleans(), st.integers(0, 99))
def test_rows_end_on_whole_bytes(bits, count, n, by_columns, seed):
    values = drawn(bits, (n, count), seed, code_dtype(bits))
    packed = pack_bits(np.asfortranarray(values) if by_columns else values, bits)
    assert packed.shape == (n, packed_bytes(count, bits))
    assert [row.tobytes() for row in packed] == [packed_digits(row, bits) for row in values.tolist()]
    np.testing.assert_array_equal(unpack_bits(packed, bits, count), values, strict=True)


@given(st.integers(1, 2**31), st.integers(0, 60))
def test_codes_of_any_number_of_rows_fit_into_their_bits(num_rows, count):
    values = np.full(count, num_rows - 1)
    packed = pack_bits(values, code_bits(num_rows))
    assert packed.nbytes == packed_code_bytes(count, num_rows)
    np.testing.assert_array_equal(unpack_bits(packed, code_bits(num_rows), count), values)


def test_bits_of_a_code():
    assert [code_bits(n) for n in (1, 2, 3, 4, 5, 8, 9, 4154)] == [0, 1, 2, 2, 3, 3, 4, 13]


@given(NUM_BITS, st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_single_integers_are_read_where_they_lie(bits, count, seed):
    values = drawn(bits, (count,), seed)
    places = np.random.default_rng(seed).integers(count, size=(3, 4))
    np.testing.assert_array_equal(read_bits(pack_bits(values, bits), bits, places), values[places], strict=True)
