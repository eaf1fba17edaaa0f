"""A worker that can be given shards, and a message on its way to one."""

from __future__ import annotations

from dataclasses import dataclass, field

from chainrule.transport.wire_codec import OutgoingResponse
from chainrule.v1 import worker_service_pb2 as pb


@dataclass(frozen=True)
class Seat:
    """A worker that can be given shards. shares_memory: over its local link it can map the server's segments.

    hello: what it said of itself."""

    name: str
    shares_memory: bool = False
    hello: pb.Hello = field(default_factory=pb.Hello)


@dataclass(frozen=True)
class Outgoing:
    """A message for a worker, with the descriptors of shared memory that go with it."""

    name: str
    response: OutgoingResponse
    descriptors: tuple[int, ...] = ()

    @property
    def is_release(self) -> bool:
        """Whether the worker is to forget its job."""
        return isinstance(self.response, pb.TrainResponse) and self.response.HasField("release")
