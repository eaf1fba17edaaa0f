"""A worker, as the server knows it while it is connected, and a message on its way to one."""

from __future__ import annotations

from dataclasses import dataclass, field

from chainrule.holding.lease import DEFAULT_LEASE_S, Lease
from chainrule.transport.wire_codec import OutgoingResponse
from chainrule.v1 import worker_service_pb2 as pb


@dataclass(frozen=True)
class Worker:
    """shares_memory: over its local link it can map the server's segments; False until it has joined.

    hello: what it said of itself. address: as gRPC writes a peer. connected_at_s: Unix seconds."""

    name: str
    shares_memory: bool = False
    hello: pb.Hello = field(default_factory=pb.Hello)
    address: str = ""
    connected_at_s: float = 0.0
    lease: Lease = field(default_factory=lambda: Lease(DEFAULT_LEASE_S, 0.0))


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
