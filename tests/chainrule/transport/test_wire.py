"""How vectors are cut into parts."""

from __future__ import annotations

import pytest

from chainrule.transport.wire import PART_ELEMENTS, part_starts, part_stop


@pytest.mark.parametrize("size", [1, 7, PART_ELEMENTS, PART_ELEMENTS + 1, 3 * PART_ELEMENTS])
def test_parts_of_at_most_1_mib_cover_a_vector_without_gaps(size: int) -> None:
    end = 0
    for start in part_starts(size):
        assert start == end
        end = part_stop(start, size)
        assert 0 < 4 * (end - start) <= 1 << 20
    assert end == size


@pytest.mark.parametrize("start", [1, -PART_ELEMENTS, PART_ELEMENTS])
def test_a_part_that_begins_elsewhere_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match=f"begins at element {start} of a vector of 3"):
        part_stop(start, 3)
