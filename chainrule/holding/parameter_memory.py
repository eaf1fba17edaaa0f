"""The memory of a job's parameters: two vectors, the current one and the one in which a step is prepared."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from chainrule.process.logs import log_event
from chainrule.transport.local_link.segment import Segment, SegmentError
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.parameters import Vector

log = logging.getLogger(__name__)
PARAMETERS_SEGMENT = 0
# A cache line; also what wide vector instructions like best.
ALIGNMENT_BYTES = 64


def slot_bytes(size: int) -> int:
    """The bytes that a vector of `size` float32 takes up among others, aligned."""
    return -(-4 * size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True)
class ParameterMemory:
    """segment: where workers on this machine can read both vectors; None where memory can't be shared."""

    vectors: tuple[Vector, Vector]
    segment: Segment | None = None

    @classmethod
    def allocate(cls, size: int, *, share: bool) -> ParameterMemory:
        """Room for two vectors of `size` elements, in shared memory where that is wanted and there is enough of it."""
        if share:
            try:
                segment = Segment.create(2 * slot_bytes(size), name="chainrule-parameters")
                segment.seal_read_only()
            except SegmentError as error:
                extra = log_event("no_shared_memory")
                log.warning("the parameters can't be in shared memory, so they go over gRPC: %s", error, extra=extra)
            else:
                first, second = segment.vector(0, size), segment.vector(slot_bytes(size), size)
                return cls((first, second), segment)
        return cls((np.empty(size, dtype=np.float32), np.empty(size, dtype=np.float32)))

    def place(self, vector: Vector) -> pb.Place:
        """Where one of the two vectors lies."""
        number = 0 if vector is self.vectors[0] else 1
        return pb.Place(
            segment=PARAMETERS_SEGMENT, offset_bytes=number * slot_bytes(vector.size), size_bytes=4 * vector.size
        )
