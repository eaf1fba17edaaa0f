"""Vectors on the wire: any size, the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.v1 import worker_service_pb2 as pb
from chainrule.wire import PART_BYTES, VectorAssembler, split


@pytest.mark.parametrize("size", [1, 7, PART_BYTES // 4, PART_BYTES // 4 + 1, 3 * PART_BYTES // 4])
def test_a_vector_of_any_size_arrives_with_its_bits_in_parts_of_at_most_1_mib(size: int) -> None:
    vector = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    parts, last = split(vector)
    assembler = VectorAssembler(size)
    for part in [*parts, last]:
        assert len(part.values) <= PART_BYTES
        assembler.add(part)
    assert assembler.take().tobytes() == vector.tobytes()


def test_too_many_and_too_few_bytes_are_refused() -> None:
    assembler = VectorAssembler(2)
    with pytest.raises(ValueError, match="more than 8 bytes"):
        assembler.add(pb.VectorPart(values=bytes(12)))
    assembler.add(pb.VectorPart(values=bytes(4)))
    with pytest.raises(ValueError, match="of 4 bytes"):
        assembler.take()
