"""How the vectors of one worker come and go: in parts over its stream, or in memory that both processes map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from chainrule.holding.errors import ProtocolError
from chainrule.holding.parameter_memory import ParameterMemory, slot_bytes
from chainrule.transport import wire
from chainrule.transport.local_link.segment import Segment
from chainrule.transport.wire_codec import RawPart, Response
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.parameters import Vector
from chainrule_engine.precision import Precision
from chainrule_engine.published import PublishedParameters
from chainrule_engine.reduction import Subtree

GRADIENTS_SEGMENT = 1


class Exchange(Protocol):
    """A worker's vectors of one generation. Every method raises ProtocolError where a worker breaks the rules."""

    transport: str
    pushed_bytes: int
    pulled_bytes: int

    def describe_memory(self, assignment: pb.Assignment) -> tuple[int, ...]:
        """Describe shared memory in the assignment; the descriptors that go with it."""

    def order_messages(
        self, order: pb.Order, published: PublishedParameters | None, *, is_next: bool
    ) -> list[Response]:
        """The messages that give an order, with the parameters unless they are None: those of the order before.

        is_next: the worker holds the parameters before these, and the ranges that were sent ahead."""

    def help_order(self, order: pb.Order, published: PublishedParameters) -> pb.Order:
        """The order, changed for a worker that helps with these subtrees: it holds the parameters for its own."""

    def send_ahead(self, start: int) -> bool:
        """Whether the range that begins at `start` is to be sent before the order that it is for; then it must be."""

    def decode_part(self, part: RawPart) -> tuple[Subtree, Vector]:
        """Take in a part of a partial sum; its subtree, and the vector that it is in now, in its place."""

    def complete_gradient(self, message: pb.PartialSum, subtree: Subtree) -> Vector:
        """The complete gradient that belongs to a partial sum. It stays as it is until the next order."""


class StreamExchange:
    """Parts on the stream, put together here: one vector for each of the worker's subtrees, allocated once."""

    transport = "grpc"

    def __init__(self, subtrees: Iterable[Subtree], size: int, precision: Precision) -> None:
        self._size = size
        self._precision = precision
        self._gradients = {subtree: np.empty(size, dtype=np.float32) for subtree in subtrees}
        self._missing: dict[Subtree, set[int]] = {}
        # Where the ranges begin that were sent ahead.
        self._pulled: set[int] = set()
        self.pushed_bytes = precision.size_bytes(size) * len(self._gradients)
        self.pulled_bytes = precision.size_bytes(size)

    def describe_memory(self, assignment: pb.Assignment) -> tuple[int, ...]:
        """See Exchange: nothing is shared."""
        return ()

    def order_messages(
        self, order: pb.Order, published: PublishedParameters | None, *, is_next: bool
    ) -> list[Response]:
        """See Exchange."""
        pulled, self._pulled = self._pulled if is_next else set(), set()
        self._miss_all()
        response = pb.TrainResponse(order=order)
        parts: list[Response] = []
        if published is not None:
            for start in wire.part_starts(self._size):
                if start not in pulled:
                    values = published.values(start, wire.part_stop(start, self._size), whole=not is_next)
                    parts.append(RawPart(start, values, order=order.order))
        if parts and self._size <= wire.PART_ELEMENTS:
            response.order.vector.values = bytes(values)
            return [response]
        return [*parts, response]

    def help_order(self, order: pb.Order, published: PublishedParameters) -> pb.Order:
        """See Exchange."""
        self._miss_all()
        return order

    def send_ahead(self, start: int) -> bool:
        """See Exchange."""
        self._pulled.add(start)
        return True

    def decode_part(self, part: RawPart) -> tuple[Subtree, Vector]:
        """See Exchange."""
        subtree = Subtree(part.first_shard, part.shard_count)
        return subtree, self._decode_range(subtree, part.offset, part.values)

    def complete_gradient(self, message: pb.PartialSum, subtree: Subtree) -> Vector:
        """See Exchange."""
        if message.HasField("vector"):
            self._decode_range(subtree, message.vector.offset, message.vector.values)
        if self._missing[subtree]:
            raise ProtocolError(
                f"push of {subtree} refused: the elements from {min(self._missing[subtree])} on are missing; "
                f"the vector has {self._size}"
            )
        return self._gradients[subtree]

    def _miss_all(self) -> None:
        self._missing = {subtree: set(wire.part_starts(self._size)) for subtree in self._gradients}

    def _decode_range(self, subtree: Subtree, offset: int, values: bytes | memoryview) -> Vector:
        gradient = self._gradients.get(subtree)
        if gradient is None:
            raise ProtocolError(f"push of {subtree} refused: it is not among the worker's subtrees")
        if offset not in wire.part_starts(self._size):
            raise ProtocolError(
                f"push of {subtree} refused: no part begins at element {offset} of a vector of {self._size}"
            )
        if offset not in self._missing[subtree]:
            raise ProtocolError(f"push of {subtree} refused: the part at element {offset} came before")
        try:
            self._decode_values(offset, values, gradient)
        except ValueError as error:
            raise ProtocolError(f"push of {subtree} refused: {error}") from error
        self._missing[subtree].discard(offset)
        return gradient

    def _decode_values(self, offset: int, values: bytes | memoryview, gradient: Vector) -> None:
        stop = wire.part_stop(offset, self._size)
        if len(values) != self._precision.size_bytes(stop - offset):
            raise ValueError(
                f"{len(values)} bytes for the elements {offset} to {stop - 1}, "
                f"not {self._precision.size_bytes(stop - offset)}"
            )
        self._precision.decode(np.frombuffer(values, dtype=np.uint8), gradient[offset:stop])


class SharedExchange:
    """Vectors in memory that the worker maps too: messages only say where they lie.

    The gradients have a segment for each worker and generation: what a worker still writes for an older one can't get
    among those of the current one. Raises SegmentError where there is no room."""

    transport = "shared-memory"

    def __init__(self, subtrees: Sequence[Subtree], size: int, parameters: ParameterMemory) -> None:
        self._size = size
        self._parameters = parameters
        self._slot_bytes = slot_bytes(size)
        self._segment = Segment.create(self._slot_bytes * len(subtrees), name="chainrule-gradients")
        self._gradients = {
            subtree: self._segment.vector(number * self._slot_bytes, size) for number, subtree in enumerate(subtrees)
        }
        self._places = {
            subtree: pb.Place(segment=GRADIENTS_SEGMENT, offset_bytes=number * self._slot_bytes, size_bytes=4 * size)
            for number, subtree in enumerate(subtrees)
        }
        self.pushed_bytes = self.pulled_bytes = 0

    def describe_memory(self, assignment: pb.Assignment) -> tuple[int, ...]:
        """See Exchange."""
        segment = self._parameters.segment
        if segment is None:
            raise TypeError("the parameters are in memory of this process alone")
        assignment.shared_memory.parameters_size_bytes = segment.size_bytes
        assignment.shared_memory.gradients_size_bytes = self._segment.size_bytes
        return segment.descriptor, self._segment.descriptor

    def order_messages(
        self, order: pb.Order, published: PublishedParameters | None, *, is_next: bool
    ) -> list[Response]:
        """See Exchange."""
        response = pb.TrainResponse(order=order)
        if published is not None:
            response.order.place.CopyFrom(self._parameters.place(published.current))
        return [response]

    def help_order(self, order: pb.Order, published: PublishedParameters) -> pb.Order:
        """See Exchange."""
        order.place.CopyFrom(self._parameters.place(published.current))
        return order

    def send_ahead(self, start: int) -> bool:
        """See Exchange: it is seen as soon as it is there."""
        return False

    def decode_part(self, part: RawPart) -> tuple[Subtree, Vector]:
        """See Exchange: there are none."""
        raise ProtocolError("push refused: a part of a vector, where memory is shared")

    def complete_gradient(self, message: pb.PartialSum, subtree: Subtree) -> Vector:
        """See Exchange."""
        if message.place != self._places[subtree]:
            raise ProtocolError(f"push of {subtree} refused: it is not in the place that was assigned to it")
        return self._gradients[subtree]
