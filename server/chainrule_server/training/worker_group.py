"""The workers of one generation: which shards each of them computes, and how its vectors come and go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chainrule.holding.backup_tasks import BackupTasks
from chainrule.holding.exchange import Exchange, SharedExchange, StreamExchange
from chainrule.holding.lease import Lease
from chainrule.holding.parameter_memory import ParameterMemory
from chainrule.process.logs import log_event
from chainrule.transport.local_link.segment import SegmentError
from chainrule.v1 import job_pb2
from chainrule_engine.reduction import Subtree, maximal_subtrees
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.workers.stragglers import Speed
from chainrule_server.workers.waiting import Silent, Waiting, for_workers
from chainrule_server.workers.worker import Worker

log = logging.getLogger(__name__)
# An order younger than this is no reason to say that the job waits.
ADVANCING_S = 1.0


@dataclass
class Behind:
    """What a worker still owes of an order that was answered without it. issued_at_ns: when that was given.

    is_step: whether it was a step; evaluations tell nothing of a worker's speed in steps."""

    order: int
    is_step: bool
    owed: set[Subtree]
    row_count: int
    issued_at_ns: int


@dataclass
class Member:
    """A worker that holds shards. lacks_room: it could share memory, but there is no room for that."""

    shards: range
    subtrees: list[Subtree]
    exchange: Exchange
    lacks_room: bool = False
    ready: bool = False
    # Of the current order: the subtrees whose partial sums are still to come.
    owed: set[Subtree] = field(default_factory=set)
    # The number of the last order that it was given; where it is behind, that isn't the current one.
    order: int = 0
    behind: Behind | None = None
    # The step after which the parameters were what it holds.
    holds_step: int = -1
    # How long it took for the current order; 0 while it owes something.
    took_ns: int = 0
    # Whether it has answered an order of this generation.
    has_answered: bool = False
    speed: Speed = field(default_factory=Speed)


class WorkerGroup:
    """Shards divided among workers: those of `ranges`, by their names.

    exchange_of: makes the exchange of a worker for its subtrees."""

    def __init__(
        self,
        workers: Sequence[Worker],
        ranges: Mapping[str, range],
        exchange_of: Callable[[Worker, list[Subtree]], Exchange],
    ) -> None:
        self.members: dict[str, Member] = {}
        self.backup_tasks = BackupTasks(_help_exchanges(self.members, workers, exchange_of))
        for worker in workers:
            if worker.name not in ranges:
                continue
            shards = ranges[worker.name]
            subtrees = maximal_subtrees(first=shards.start, stop=shards.stop)
            exchange = exchange_of(worker, subtrees)
            lacks_room = worker.shares_memory and not isinstance(exchange, SharedExchange)
            self.members[worker.name] = Member(shards, subtrees, exchange, lacks_room)

    @classmethod
    def of(
        cls, job: PreparedJob, workers: Sequence[Worker], ranges: Mapping[str, range], memory: ParameterMemory | None
    ) -> WorkerGroup:
        """The group of a job. memory: where its parameters are; None where memory can't be shared."""

        def exchange_of(worker: Worker, subtrees: list[Subtree]) -> Exchange:
            size = job.model.layout.size
            if worker.shares_memory and memory is not None and memory.segment is not None:
                try:
                    return SharedExchange(subtrees, size, memory)
                except SegmentError as error:
                    extra = log_event("no_shared_memory", worker=worker.name)
                    log.warning("%s's vectors go over gRPC: %s", worker.name, error, extra=extra)
            return StreamExchange(subtrees, size, job.precision)

        return cls(workers, ranges, exchange_of)

    @classmethod
    def nobody(cls) -> WorkerGroup:
        """A group without workers."""

        def exchange_of(worker: Worker, subtrees: list[Subtree]) -> Exchange:
            raise TypeError(f"{worker.name} is of no group, so nothing is exchanged for {subtrees}")

        return cls([], {}, exchange_of)

    @property
    def subtrees(self) -> list[Subtree]:
        """Every subtree that is pushed, each by one worker."""
        return [subtree for member in self.members.values() for subtree in member.subtrees]

    def hold_nothing(self) -> None:
        """What the workers hold are not the parameters of a step: they get all of them with the next order."""
        for member in self.members.values():
            member.holds_step = -1

    @property
    def is_ready(self) -> bool:
        """Whether every worker holds its shards."""
        return all(member.ready for member in self.members.values())

    def waiting(
        self,
        what: str,
        *,
        lease_of: Callable[[str], Lease | None],
        refused: Sequence[str] = (),
        helpers: Sequence[str] = (),
        silent_s: float,
        gathered_s: float,
    ) -> Waiting | None:
        """For whom an order waits; None while it is answered within a second.

        what: the order, for example 'step 3'. refused: who is there but may not compute.
        helpers: who computes what others are late with.
        silent_s: since it was given. gathered_s: since the group came together.
        """
        if not self.members and refused:
            others = f"workers: {', '.join(refused)} may compute other bits than those before, and get no shards"
            then = "the job goes on with the first that joins and is like them"
            return Waiting(job_pb2.WAITING_REASON_WORKERS, others, gathered_s, next=then)
        if not self.members:
            then = "the job goes on with the first that joins"
            return Waiting(job_pb2.WAITING_REASON_WORKERS, "workers: none is connected", gathered_s, next=then)
        loading = [name for name, member in self.members.items() if not member.ready]
        if loading:
            reason, what, owing = job_pb2.WAITING_REASON_SHARDS, f"{', '.join(loading)} to load shards", loading
            silent_s = gathered_s
        elif silent_s < ADVANCING_S:
            return None
        else:
            owing = [name for name, member in self.members.items() if member.owed or name in helpers]
            reason = job_pb2.WAITING_REASON_PARTIAL_SUMS
            what = f"partial sums of {what} from {', '.join(owing)}, for {silent_s:.1f} s"
        workers = [Silent.of(name, lease_of(name)) for name in owing]
        odd = {worker.name for worker in workers if worker.words}
        heirs = [name for name in self.members if name not in odd]
        return for_workers(reason, what, workers, others=heirs, for_s=silent_s)

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


def _help_exchanges(
    members: Mapping[str, Member], workers: Sequence[Worker], exchange_of: Callable[[Worker, list[Subtree]], Exchange]
) -> Callable[[str, Subtree], Exchange]:
    """What makes the exchange of a worker that helps, of the kind that it has for its own subtrees.

    It doesn't know the group, so that a group, with all its vectors, is free when nobody holds it."""
    by_name = {worker.name: worker for worker in workers}

    def help_exchange(name: str, subtree: Subtree) -> Exchange:
        shares_memory = isinstance(members[name].exchange, SharedExchange)
        return exchange_of(replace(by_name[name], shares_memory=shares_memory), [subtree])

    return help_exchange
