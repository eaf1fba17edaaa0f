"""Where a worker's parameters and gradients lie: in its own memory, or in memory that the server maps too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from chainrule.transport import wire
from chainrule.transport.local_link.segment import Segment, SegmentError
from chainrule.transport.wire_codec import RawPart
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.parameters import Vector
from chainrule_engine.precision import FLOAT32, Precision
from chainrule_engine.published import read_values
from chainrule_engine.reduction import Subtree

# Elements start … stop - 1 of a gradient are final.
Final = Callable[[int, int], None]


class WrongMessage(Exception):
    """The server sent what doesn't fit what it assigned."""


class Outlet(Protocol):
    """Where parts of gradients go: a worker's link."""

    def send(self, message: RawPart) -> int:
        """Send a part; its number. Its values are copied later."""

    def wait_copied(self, number: int) -> None:
        """Wait until this part and all before it are copied."""


class Vectors(Protocol):
    """The vectors of one assignment."""

    def pull_part(self, part: RawPart) -> None:
        """A part of the parameters of an order to come. Raises WrongMessage where it doesn't fit."""

    def parameters(self, order: pb.Order) -> Vector:
        """The parameters of an order. Raises WrongMessage where they are not what was assigned."""

    def gradient(self, subtree: Subtree) -> Vector:
        """Where the gradient of a subtree is to be left, until `attach`; it may wait for earlier pushes."""

    def pusher(self, order: pb.Order, subtree: Subtree) -> Final | None:
        """What pushes ranges of the gradient as soon as they are final; None where that wins nothing."""

    def attach(self, answer: pb.PartialSum, subtree: Subtree) -> None:
        """Put the gradient, or where it lies, into the message that completes it."""


class OwnVectors:
    """Parameters are put together from parts; gradients are pushed in parts, the last layer's first.

    However many subtrees a worker has, two vectors hold their gradients: one is pushed while the other is computed.
    Whoever has several subtrees has none above half of the shards, so with the vectors in which
    `chainrule_engine.microbatch.MicrobatchComputer` adds up, these are at most log2(shards) + 1.

    before: vectors of the same job; their memory is used again. What is still on its way out of it is for an older
    generation, so nobody looks at its values."""

    def __init__(
        self,
        subtrees: Sequence[Subtree],
        size: int,
        outlet: Outlet,
        precision: Precision = FLOAT32,
        *,
        before: Vectors | None = None,
    ) -> None:
        self._size = size
        self._outlet = outlet
        self._precision = precision
        self._parameters: Vector
        self._gradients: list[_Pushed] = []
        if isinstance(before, OwnVectors):
            self._parameters = before._parameters
            self._gradients += [_Pushed(pushed.vector) for pushed in before._gradients[:1]]
        else:
            self._parameters = np.empty(size, dtype=np.float32)
        # The subtree whose gradient is being computed, or was last, in the first of the vectors.
        self._subtree: Subtree | None = None
        self._residuals = residuals_of(subtrees, size, precision)
        self._in_parts = size > wire.PART_ELEMENTS

    def for_help(self, subtree: Subtree) -> OwnVectors:
        """Vectors for a subtree of another worker's, with these parameters; no gradient is shared with them."""
        found = OwnVectors([subtree], self._size, self._outlet, self._precision)
        found._parameters = self._parameters
        return found

    def pull_part(self, part: RawPart) -> None:
        """See Vectors."""
        self._decode_range(part.values, part.offset)

    def parameters(self, order: pb.Order) -> Vector:
        """See Vectors."""
        if order.HasField("vector"):
            self._decode_range(order.vector.values, 0)
        return self._parameters

    def gradient(self, subtree: Subtree) -> Vector:
        """See Vectors."""
        if not self._gradients:
            self._gradients.append(_Pushed(np.empty(self._size, dtype=np.float32)))
        if self._in_parts and subtree != self._subtree and self._subtree is not None:
            if len(self._gradients) == 1:
                self._gradients.append(_Pushed(np.empty(self._size, dtype=np.float32)))
            self._gradients.reverse()
        self._subtree = subtree
        self._outlet.wait_copied(self._gradients[0].last_part)
        return self._gradients[0].vector

    def pusher(self, order: pb.Order, subtree: Subtree) -> Final | None:
        """See Vectors."""
        if not self._in_parts:
            return None
        pushed = self._gradients[0]
        missing = {start: wire.part_stop(start, self._size) - start for start in wire.part_starts(self._size)}

        def push(start: int, stop: int) -> None:
            first = start - start % wire.PART_ELEMENTS
            for part in range(first, stop, wire.PART_ELEMENTS):
                end = wire.part_stop(part, self._size)
                missing[part] -= min(stop, end) - max(start, part)
                if missing[part] == 0:
                    values = self._values(subtree, part, end)
                    message = RawPart(part, values, subtree.first, subtree.count, order.order)
                    pushed.last_part = self._outlet.send(message)

        return push

    def attach(self, answer: pb.PartialSum, subtree: Subtree) -> None:
        """See Vectors."""
        if not self._in_parts:
            answer.vector.values = bytes(self._values(subtree, 0, self._size))

    def _decode_range(self, values: bytes | memoryview, start: int) -> None:
        try:
            stop = wire.part_stop(start, self._size)
            read_values(self._precision, values, self._parameters[start:stop])
        except ValueError as error:
            raise WrongMessage(f"the parameters from element {start} on: {error}") from error

    def _values(self, subtree: Subtree, start: int, stop: int) -> memoryview:
        gradient = self._gradients[0].vector[start:stop]
        if self._precision is FLOAT32:
            return gradient.astype("<f4", copy=False).data.cast("B")
        encoded = np.empty(self._precision.size_bytes(stop - start), dtype=np.uint8)
        if self._precision.needs_feedback:
            self._precision.encode_with_feedback(gradient, self._residuals[subtree][start:stop], encoded)
        else:
            self._precision.encode(gradient, encoded)
        return encoded.data


@dataclass
class _Pushed:
    """A vector, and the number of the last part that was pushed of it: until that is copied, it must stay as it is."""

    vector: Vector
    last_part: int = 0


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
        if len(descriptors) != 2:
            raise SegmentError(f"{len(descriptors)} segments came with the assignment, not 2")
        parameters, gradients = descriptors
        self._read = Segment.open(parameters, shared.parameters_size_bytes, writable=False)
        self._written = Segment.open(gradients, shared.gradients_size_bytes, writable=True)
        # Mapped they stay; the descriptors are of no more use.
        self._read.close()
        self._written.close()
        slot_bytes = shared.gradients_size_bytes // len(subtrees)
        self._offsets = {subtree: number * slot_bytes for number, subtree in enumerate(subtrees)}
        self._gradients = {subtree: self._written.vector(at, size) for subtree, at in self._offsets.items()}
        # By offset: the plan is fastest where it sees the same arrays again.
        self._parameters: dict[int, Vector] = {}
        self._current = 0

    def pull_part(self, part: RawPart) -> None:
        """See Vectors: there are none."""
        raise WrongMessage("a part of a vector, where memory is shared")

    def parameters(self, order: pb.Order) -> Vector:
        """See Vectors."""
        if order.HasField("place"):
            self._current = order.place.offset_bytes
        if self._current not in self._parameters:
            try:
                self._parameters[self._current] = self._read.vector(self._current, self._size)
            except SegmentError as error:
                raise WrongMessage(f"the parameters' place: {error}") from error
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
