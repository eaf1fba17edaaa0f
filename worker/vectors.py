"""Where a worker's parameters and gradients lie: in its own memory, or in memory that the server maps too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from chainrule import wire
from chainrule.local_link.segment import Segment
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.wire_codec import RawPart
from engine.parameters import Vector
from engine.precision import FLOAT32, Precision
from engine.published import read_values
from engine.reduction import Subtree

Send = Callable[[RawPart], None]
# Elements start … stop - 1 of a gradient are final.
Final = Callable[[int, int], None]


class Vectors(Protocol):
    """The vectors of one assignment."""

    def receive_part(self, part: RawPart) -> None:
        """A part of the parameters of an order to come. Raises ValueError where it doesn't fit."""

    def parameters(self, order: pb.Order) -> Vector:
        """The parameters of an order. Raises ValueError where they are not what was assigned."""

    def gradient(self, subtree: Subtree) -> Vector:
        """Where the gradient of a subtree is to be left."""

    def pusher(self, order: pb.Order, subtree: Subtree) -> Final | None:
        """What pushes ranges of the gradient as soon as they are final; None where that wins nothing."""

    def attach(self, answer: pb.PartialSum, subtree: Subtree) -> None:
        """Put the gradient, or where it lies, into the message that completes it."""


class OwnVectors:
    """Parameters are put together from parts; gradients are pushed in parts, the last layer's first."""

    def __init__(self, subtrees: Sequence[Subtree], size: int, send: Send, precision: Precision = FLOAT32) -> None:
        self._size = size
        self._send = send
        self._precision = precision
        self._parameters = np.empty(size, dtype=np.float32)
        self._gradients = {subtree: np.empty(size, dtype=np.float32) for subtree in subtrees}
        self._residuals = residuals_of(subtrees, size, precision)
        self._in_parts = size > wire.PART_ELEMENTS

    def receive_part(self, part: RawPart) -> None:
        """See Vectors."""
        stop = wire.part_stop(part.offset, self._size)
        read_values(self._precision, part.values, self._parameters[part.offset : stop])

    def parameters(self, order: pb.Order) -> Vector:
        """See Vectors."""
        if order.HasField("vector"):
            read_values(self._precision, order.vector.values, self._parameters)
        return self._parameters

    def gradient(self, subtree: Subtree) -> Vector:
        """See Vectors."""
        return self._gradients[subtree]

    def pusher(self, order: pb.Order, subtree: Subtree) -> Final | None:
        """See Vectors."""
        if not self._in_parts:
            return None
        missing = {start: wire.part_stop(start, self._size) - start for start in wire.part_starts(self._size)}

        def push(start: int, stop: int) -> None:
            first = start - start % wire.PART_ELEMENTS
            for part in range(first, stop, wire.PART_ELEMENTS):
                end = wire.part_stop(part, self._size)
                missing[part] -= min(stop, end) - max(start, part)
                if missing[part] == 0:
                    values = self._values(subtree, part, end)
                    self._send(RawPart(part, values, subtree.first, subtree.count, order.order))

        return push

    def attach(self, answer: pb.PartialSum, subtree: Subtree) -> None:
        """See Vectors."""
        if not self._in_parts:
            answer.vector.values = bytes(self._values(subtree, 0, self._size))

    def _values(self, subtree: Subtree, start: int, stop: int) -> memoryview:
        gradient = self._gradients[subtree][start:stop]
        if self._precision is FLOAT32:
            return gradient.astype("<f4", copy=False).data.cast("B")
        encoded = np.empty(self._precision.size_bytes(stop - start), dtype=np.uint8)
        if self._precision.needs_feedback:
            self._precision.encode_with_feedback(gradient, self._residuals[subtree][start:stop], encoded)
        else:
            self._precision.encode(gradient, encoded)
        return encoded.data


def residuals_of(subtrees: Sequence[Subtree], size: int, precision: Precision) -> dict[Subtree, Vector]:
    """What rounding has taken so far from each subtree's gradients, to be pushed with the next ones."""
    if not precision.needs_feedback:
        return {}
    return {subtree: np.zeros(size, dtype=np.float32) for subtree in subtrees}


class SharedVectors:
    """Parameters are read, and gradients written, where the server has them. Raises SegmentError."""

    def __init__(
        self,
        subtrees: Sequence[Subtree],
        size: int,
        shared: pb.SharedMemory,
        descriptors: Sequence[int],
        precision: Precision = FLOAT32,
    ) -> None:
        self._size = size
        self._precision = precision
        self._residuals = residuals_of(subtrees, size, precision)
        parameters, gradients = descriptors
        self._read = Segment.open(parameters, shared.parameters_size_bytes, writable=False)
        self._written = Segment.open(gradients, shared.gradients_size_bytes, writable=True)
        slot_bytes = shared.gradients_size_bytes // len(subtrees)
        self._offsets = {subtree: number * slot_bytes for number, subtree in enumerate(subtrees)}
        self._gradients = {subtree: self._written.vector(at, size) for subtree, at in self._offsets.items()}
        # By offset: the plan is fastest where it sees the same arrays again.
        self._parameters: dict[int, Vector] = {}
        self._current = 0

    def receive_part(self, part: RawPart) -> None:
        """See Vectors: there are none."""
        raise ValueError("a part of a vector, where memory is shared")

    def parameters(self, order: pb.Order) -> Vector:
        """See Vectors."""
        if order.HasField("place"):
            self._current = order.place.offset_bytes
        if self._current not in self._parameters:
            self._parameters[self._current] = self._read.vector(self._current, self._size)
        return self._parameters[self._current]

    def gradient(self, subtree: Subtree) -> Vector:
        """See Vectors."""
        return self._gradients[subtree]

    def pusher(self, order: pb.Order, subtree: Subtree) -> Final | None:
        """See Vectors: what is written is there."""
        return None

    def attach(self, answer: pb.PartialSum, subtree: Subtree) -> None:
        """See Vectors."""
        if self._precision.needs_feedback:
            gradient = self._gradients[subtree]
            self._precision.round_with_feedback(gradient, self._residuals[subtree], gradient)
        answer.place.CopyFrom(pb.Place(segment=1, offset_bytes=self._offsets[subtree], size_bytes=4 * self._size))
