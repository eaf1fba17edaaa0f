"""The workers of one generation: which shards each of them computes, and how its vectors come and go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from chainrule.local_link.segment import SegmentError
from chainrule.wire_codec import OutgoingResponse
from engine.reduction import Subtree, assign, maximal_subtrees
from server.exchange import Exchange, SharedExchange, StreamExchange
from server.parameter_memory import ParameterMemory
from server.prepared_job import PreparedJob

log = logging.getLogger(__name__)
# An order younger than this is no reason to say that the job waits.
ADVANCING_S = 1.0


@dataclass(frozen=True)
class Seat:
    """A worker that can be given shards. shares_memory: over its local link it can map the server's segments."""

    name: str
    shares_memory: bool = False


@dataclass(frozen=True)
class Outgoing:
    """A message for a worker, with the descriptors of shared memory that go with it."""

    name: str
    response: OutgoingResponse
    descriptors: tuple[int, ...] = ()


@dataclass
class Member:
    """A worker that holds shards. lacks_room: it could share memory, but there is no room for that."""

    shards: range
    subtrees: list[Subtree]
    exchange: Exchange
    lacks_room: bool = False
    ready: bool = False


class Team:
    """Shards divided among workers; any that are more than the shards get none.

    exchange_of: makes the exchange of a seat for its subtrees."""

    def __init__(
        self, seats: Sequence[Seat], shard_count: int, exchange_of: Callable[[Seat, list[Subtree]], Exchange]
    ) -> None:
        self.members: dict[str, Member] = {}
        seats = seats[:shard_count]
        ranges = assign(shard_count=shard_count, worker_count=len(seats)) if seats else []
        for seat, shards in zip(seats, ranges, strict=True):
            subtrees = maximal_subtrees(first=shards.start, stop=shards.stop)
            exchange = exchange_of(seat, subtrees)
            lacks_room = seat.shares_memory and not isinstance(exchange, SharedExchange)
            self.members[seat.name] = Member(shards, subtrees, exchange, lacks_room)

    @classmethod
    def of(cls, job: PreparedJob, seats: Sequence[Seat], memory: ParameterMemory | None) -> Team:
        """The team of a job. memory: where its parameters are; None where memory can't be shared."""

        def exchange_of(seat: Seat, subtrees: list[Subtree]) -> Exchange:
            size = job.model.layout.size
            if seat.shares_memory and memory is not None and memory.segment is not None:
                try:
                    return SharedExchange(subtrees, size, memory)
                except SegmentError as error:
                    log.warning("%s's vectors go over gRPC: %s", seat.name, error)
            return StreamExchange(subtrees, size, job.precision)

        return cls(seats, job.spec.training.shards, exchange_of)

    @property
    def subtrees(self) -> list[Subtree]:
        """Every subtree that is pushed, each by one worker."""
        return [subtree for member in self.members.values() for subtree in member.subtrees]

    @property
    def is_ready(self) -> bool:
        """Whether every worker holds its shards."""
        return all(member.ready for member in self.members.values())

    def waiting_for(self, what: str, *, pushed: Container[Subtree], silent_s: float) -> str:
        """For whom an order waits, in words; empty while it is answered within a second.

        what: the order, for example 'step 3'. pushed: what has come of it. silent_s: since it was given."""
        if not self.members:
            return "a worker: none is connected; the job goes on with the first that joins"
        loading = [name for name, member in self.members.items() if not member.ready]
        if loading:
            return f"{', '.join(loading)} to load shards"
        if silent_s < ADVANCING_S:
            return ""
        owing = [
            name for name, member in self.members.items() if any(subtree not in pushed for subtree in member.subtrees)
        ]
        return f"partial sums of {what} from {', '.join(owing)}, for {silent_s:.1f} s"

    @property
    def without_room(self) -> list[str]:
        """The workers that could share memory, had there been room: they must now be reached over gRPC."""
        return [name for name, member in self.members.items() if member.lacks_room]

    @property
    def transport(self) -> str:
        """How vectors reach the workers: 'grpc', 'shared-memory' or 'mixed'."""
        transports = {member.exchange.transport for member in self.members.values()}
        return transports.pop() if len(transports) == 1 else "mixed"

    @property
    def wire_bytes(self) -> tuple[int, int]:
        """What a step pushes and pulls over the wire, all workers together."""
        exchanges = [member.exchange for member in self.members.values()]
        return (
            sum(exchange.pushed_bytes for exchange in exchanges),
            sum(exchange.pulled_bytes for exchange in exchanges),
        )
