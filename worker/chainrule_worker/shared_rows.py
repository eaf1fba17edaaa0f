"""The prepared rows of a job where the server has them: read there, and not copied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chainrule.transport.local_link.segment import Segment, SegmentError
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.microbatch import ShardRows


class SharedRows:
    """The rows of an assignment. descriptor: stays the caller's. Raises SegmentError where they aren't as promised."""

    def __init__(self, assignment: pb.Assignment, descriptor: int) -> None:
        shared = assignment.shared_memory.rows
        segment = Segment.open_file(descriptor, shared.size_bytes)
        segment.close()
        self._sizes = (list(assignment.shard_sizes), list(shared.validation_shard_sizes))
        row_count = sum(map(sum, self._sizes))
        target_type = np.dtype(np.int64 if assignment.class_count else np.float32)
        self._features = segment.array(0, (row_count, assignment.feature_count), np.dtype(np.float32))
        self._targets = segment.array(shared.targets_offset_bytes, (row_count,), target_type)
        self._numbers = segment.array(shared.numbers_offset_bytes, (row_count,), np.dtype(np.int64))

    def shard(self, number: int, validation: bool) -> ShardRows:
        """The rows of a shard: views."""
        sizes: Sequence[int] = self._sizes[validation]
        start = sum(sizes[:number]) + (sum(self._sizes[0]) if validation else 0)
        rows = slice(start, start + sizes[number])
        return ShardRows(self._features[rows], self._targets[rows], self._numbers[rows])


def rows_of(assignment: pb.Assignment, descriptors: Sequence[int]) -> SharedRows | None:
    """The rows that came with an assignment, as the last of its segments; None where none did. Raises SegmentError."""
    if not assignment.shared_memory.HasField("rows"):
        return None
    if len(descriptors) != 3:
        raise SegmentError(f"{len(descriptors)} segments came with the assignment, not 3")
    return SharedRows(assignment, descriptors[2])
