"""Vectors in fewer bytes: how much is lost, and that nothing else is."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chainrule_engine.errors import ValueMismatch
from chainrule_engine.parameters import Vector
from chainrule_engine.precision import BFLOAT16, FLOAT16, FLOAT32, INT8, PRECISIONS, Precision

NAMES = pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
CASTS = pytest.mark.parametrize(
    ("precision", "dtype"),
    [(FLOAT32, np.float32), (BFLOAT16, ml_dtypes.bfloat16), (FLOAT16, np.float16)],
    ids=["float32", "bfloat16", "float16"],
)

SIZES = [1, 7, 1023, 1024, 1025, 65535, 65536, 65537, 65536 * 2 + 1024 + 3]
SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)

any_bits = st.integers(1, 3000).flatmap(lambda size: arrays(np.uint32, size)).map(lambda bits: bits.view(np.float32))
# Subnormal numbers and both zeros among them; the largest is above what float16 and int8 of bfloat16's range hold.
finite = st.integers(1, 3000).flatmap(
    lambda size: arrays(np.float32, size, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
)


def encoded(precision: Precision, values: Vector) -> np.ndarray:
    out = np.full(precision.size_bytes(values.size), 0xA5, np.uint8)
    precision.encode(values, out)
    return out


def decoded(precision: Precision, data: np.ndarray, size: int) -> Vector:
    out = np.full(size, 77, np.float32)
    precision.decode(data, out)
    return out


def rounded(precision: Precision, values: Vector) -> Vector:
    out = np.full(values.size, 77, np.float32)
    precision.round(values, out)
    return out


def normal(size: int, seed: int = 0) -> Vector:
    """Values of very different magnitudes."""
    generator = np.random.default_rng([size, seed])
    return (generator.standard_normal(size) * np.exp(generator.uniform(-9, 5, size))).astype(np.float32)


def same_bits(left: Vector, right: Vector) -> bool:
    return left.tobytes() == right.tobytes()


@NAMES
@pytest.mark.parametrize("size", SIZES)
def test_round_is_encode_and_decode(precision: Precision, size: int) -> None:
    values = normal(size)
    expected = decoded(precision, encoded(precision, values), size)
    assert same_bits(rounded(precision, values), expected)
    precision.round(values, values)
    assert same_bits(values, expected)


@NAMES
@given(values=any_bits)
def test_round_is_idempotent_for_every_value_there_is(precision: Precision, values: Vector) -> None:
    once = rounded(precision, values)
    assert np.array_equal(rounded(precision, once), once, equal_nan=True)
    assert np.array_equal(encoded(precision, once), encoded(precision, rounded(precision, once)))


@NAMES
@given(values=any_bits)
def test_what_is_not_finite_stays_so(precision: Precision, values: Vector) -> None:
    assert not np.isfinite(rounded(precision, values))[~np.isfinite(values)].any()


@NAMES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_value_shows_and_leaves_other_blocks_alone(precision: Precision, value: float) -> None:
    values = normal(5000)
    good = rounded(precision, values)
    values[2000] = value
    result = rounded(precision, values)
    assert not np.isfinite(result[2000])
    others = np.arange(5000) // precision.block != 2000 // precision.block
    assert same_bits(result[others], good[others])


@CASTS
@given(values=any_bits)
def test_a_cast_is_that_of_ml_dtypes_and_numpy(precision: Precision, dtype: type, values: Vector) -> None:
    with np.errstate(all="ignore"):
        expected = values.astype(dtype)
        assert encoded(precision, values).tobytes() == expected.tobytes()
        assert same_bits(rounded(precision, values), expected.astype(np.float32))


@CASTS
@given(values=finite)
def test_a_cast_rounds_to_within_half_a_unit_in_the_last_place(
    precision: Precision, dtype: type, values: Vector
) -> None:
    limits = ml_dtypes.finfo(dtype)
    values = values[np.abs(values) <= float(limits.max)]
    error = np.abs(rounded(precision, values).astype(np.float64) - values)
    allowed = np.maximum(np.abs(values).astype(np.float64) * float(limits.eps), float(limits.smallest_subnormal)) / 2
    assert (error <= allowed).all()


@CASTS
def test_a_cast_keeps_the_sign_of_zero(precision: Precision, dtype: type) -> None:
    assert np.signbit(rounded(precision, np.array([0.0, -0.0], np.float32))).tolist() == [False, True]


def test_what_float16_cannot_hold_becomes_infinite() -> None:
    values = np.array([65504, 65519, 65520, -1e9], np.float32)
    assert rounded(FLOAT16, values).tolist() == [65504, 65504, np.inf, -np.inf]


@given(values=finite)
def test_int8_is_within_half_a_scale_of_the_block(values: Vector) -> None:
    result = rounded(INT8, values)
    for start in range(0, values.size, INT8.block):
        block = values[start : start + INT8.block].astype(np.float64)
        scale = max(np.abs(block).max() / 127, SMALLEST_NORMAL)
        # The scale is cut to 17 bits, so the largest value may be 127.002 scales away.
        assert (np.abs(result[start : start + INT8.block] - block) <= scale * 0.5001).all()


def test_int8_is_a_scale_and_the_quotients_of_each_block() -> None:
    values = np.zeros(1026, np.float32)
    values[[0, 1, 2, 1023]] = [127 * 0.25, -0.25, 0.1, -127 * 0.25]
    values[1024:] = [-1.0, 0.0]
    data = encoded(INT8, values)
    assert data.size == 4 + 1024 + 4 + 2
    assert data[:4].view("<f4").tolist() == [0.25]
    assert data[4:1028].view(np.int8)[[0, 1, 2, 3, 1023]].tolist() == [127, -1, 0, 0, -127]
    assert data[1028:1032].view("<f4")[0] == pytest.approx(1 / 127, rel=2**-16)
    assert data[1032:].view(np.int8).tolist() == [-127, 0]


def test_int8_rounds_ties_to_even_and_is_symmetric() -> None:
    values = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32)
    assert rounded(INT8, values).tolist() == [127, 0, 2, 2, 0, -2, -2]
    values = normal(3000)
    assert np.array_equal(rounded(INT8, -values), -rounded(INT8, values))


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-40, SMALLEST_NORMAL, 127 * SMALLEST_NORMAL, 3.4028235e38])
def test_int8_holds_blocks_of_the_least_and_the_largest_values(value: float) -> None:
    values = np.array([value, -value, 0], np.float32)
    result = rounded(INT8, values)
    assert np.abs(result - values).max() <= max(value / 127, SMALLEST_NORMAL) / 2
    assert np.isfinite(result).all()


@NAMES
@pytest.mark.parametrize("size", SIZES)
def test_ranges_that_start_at_blocks_are_encoded_and_decoded_as_in_the_whole(precision: Precision, size: int) -> None:
    values = normal(size)
    whole = encoded(precision, values)
    cuts = [0, precision.block, 3 * precision.block, 65 * precision.block, size]
    ranges = [slice(start, stop) for start, stop in zip(cuts, [*cuts[1:-1], size], strict=False) if start < size]
    pieces = [encoded(precision, values[elements]) for elements in ranges]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    result = [decoded(precision, piece, values[elements].size) for piece, elements in zip(pieces, ranges, strict=True)]
    assert same_bits(np.concatenate(result), decoded(precision, whole, size))


@NAMES
def test_bytes_may_lie_at_any_address(precision: Precision) -> None:
    values = normal(70000)
    data = np.zeros(precision.size_bytes(values.size) + 1, np.uint8)[1:]
    precision.encode(values, data)
    assert np.array_equal(data, encoded(precision, values))
    assert same_bits(decoded(precision, data, values.size), rounded(precision, values))


@NAMES
def test_bytes_that_are_read_only_are_decoded(precision: Precision) -> None:
    values = normal(3000)
    data = np.frombuffer(memoryview(encoded(precision, values).tobytes()), np.uint8)
    assert same_bits(decoded(precision, data, values.size), rounded(precision, values))


@NAMES
def test_a_vector_without_elements_is_no_bytes(precision: Precision) -> None:
    assert encoded(precision, np.empty(0, np.float32)).size == 0
    assert rounded(precision, np.empty(0, np.float32)).size == 0


@NAMES
@given(size=st.integers(1, 5000), data=st.data())
def test_hostile_bytes_decode_to_some_values(precision: Precision, size: int, data: st.DataObject) -> None:
    hostile = data.draw(arrays(np.uint8, precision.size_bytes(size)))
    assert decoded(precision, hostile, size).shape == (size,)


@NAMES
@pytest.mark.parametrize("excess", [-1, 1])
def test_bytes_of_another_size_are_refused(precision: Precision, excess: int) -> None:
    data = np.zeros(precision.size_bytes(2000) + excess, np.uint8)
    with pytest.raises(
        ValueMismatch, match=f"2000 elements are {precision.size_bytes(2000)} bytes in {precision.name}"
    ):
        precision.decode(data, np.zeros(2000, np.float32))
    with pytest.raises(ValueMismatch, match="got"):
        precision.encode(np.zeros(2000, np.float32), data)


@NAMES
@pytest.mark.parametrize("size", [5, 1030, 65536 + 1025])
def test_rounding_with_feedback_is_encoding_with_feedback(precision: Precision, size: int) -> None:
    residuals = np.zeros((2, size), np.float32)
    data = np.zeros(precision.size_bytes(size), np.uint8)
    out = np.zeros(size, np.float32)
    for step in range(4):
        values = normal(size, step)
        precision.encode_with_feedback(values, residuals[0], data)
        precision.round_with_feedback(values, residuals[1], out)
        assert same_bits(out, decoded(precision, data, size))
        assert same_bits(residuals[0], residuals[1])
        assert same_bits(values, normal(size, step))


@given(values=finite, seed=st.integers(0, 2**32))
def test_int8_loses_nothing_but_to_its_residual(values: Vector, seed: int) -> None:
    # Small enough for the sum of value and residual.
    values = values / np.float32(4)
    residual = np.random.default_rng(seed).permutation(values) / np.float32(128)
    owed = values + residual
    out = np.zeros_like(values)
    INT8.round_with_feedback(values, residual, out)
    assert np.array_equal(out.astype(np.float64) + residual, owed.astype(np.float64))


def test_with_feedback_what_was_pushed_converges_to_what_was_computed() -> None:
    size, steps = 3000, 200
    generator = np.random.default_rng(5)
    gradient = normal(size)
    residual, out = np.zeros(size, np.float32), np.zeros(size, np.float32)
    computed, pushed, without = np.zeros(size), np.zeros(size), np.zeros(size)
    for _ in range(steps):
        values = (gradient * generator.uniform(0.5, 1.5, size)).astype(np.float32)
        computed += values
        INT8.round_with_feedback(values, residual, out)
        pushed += out
        without += rounded(INT8, values)
    one_step = np.abs(gradient).max() * 1.5 / 127
    assert np.abs(pushed - computed).max() < 1.1 * one_step
    # Values below half a scale would never be pushed at all.
    assert np.abs(without - computed).max() > 10 * one_step
