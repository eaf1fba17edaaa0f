"""Vectors on the wire: any size, the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.wire import PART_ELEMENTS, part_starts, read_part, write_part


@pytest.mark.parametrize("size", [1, 7, PART_ELEMENTS, PART_ELEMENTS + 1, 3 * PART_ELEMENTS])
def test_a_vector_of_any_size_arrives_with_its_bits_in_parts_of_at_most_1_mib_in_any_order(size: int) -> None:
    vector = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    out = np.full(size, np.nan, dtype=np.float32)
    for start in reversed(part_starts(size)):
        part = write_part(vector, start, order=3, first_shard=2, shard_count=1)
        assert len(part.values) <= 1 << 20
        assert read_part(part.offset, part.values, out) == min(start + PART_ELEMENTS, size)
    assert out.tobytes() == vector.tobytes()


def test_a_part_is_a_view_of_the_vector_and_not_a_copy() -> None:
    vector = np.zeros(4, dtype=np.float32)
    part = write_part(vector, 0, order=1)
    vector[1] = 1
    assert np.frombuffer(part.values, dtype="<f4").tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("offset", "byte_count", "message"),
    [
        (1, 8, "begins at element 1 of a vector of 3"),
        (PART_ELEMENTS, 4, f"begins at element {PART_ELEMENTS} of a vector of 3"),
        (0, 8, "8 bytes for the elements 0 to 2, not 12"),
        (0, 16, "16 bytes for the elements 0 to 2, not 12"),
    ],
)
def test_a_part_that_does_not_fit_is_refused_and_nothing_is_written(offset: int, byte_count: int, message: str) -> None:
    out = np.zeros(3, dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        read_part(offset, b"\1" * byte_count, out)
    assert not out.any()
