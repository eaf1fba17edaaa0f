"""What the workers of a job are told to compute, one order after the other, and the answers as they come in.

An order is answered when a partial sum of every subtree is there. Where a worker is late with its own, others are asked
for them too (`chainrule.holding.backup_tasks`); whichever comes first counts. The late worker is then *behind*: it gets
no order before it has answered the one that it was late with, and others compute its part at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from chainrule.holding.errors import ProtocolError
from chainrule.holding.exchange import Exchange
from chainrule.holding.step_assembly import StepAssembly
from chainrule.transport.wire_codec import OutgoingResponse, RawPart, encode_response
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.published import PublishedParameters
from chainrule_engine.reduction import PartialSum, Subtree, covers, finish
from chainrule_engine.synchronous_sgd import ParameterState
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.not_finite import why_not_finite
from chainrule_server.training.order_rows import OrderRows, Rows
from chainrule_server.training.result import TrainingFailed
from chainrule_server.training.step_cost import StepCosts
from chainrule_server.training.worker_group import Behind, Member, WorkerGroup
from chainrule_server.workers.stragglers import Progress

GRADIENT = pb.ORDER_KIND_GRADIENT

# Nanoseconds.
Clock = Callable[[], int]
# To a worker, by its name, with descriptors of shared memory.
Send = Callable[[str, OutgoingResponse, tuple[int, ...]], None]


@dataclass
class Orders:
    """kind: of the current order, or of the next where none is out. is_out: whether answers to it are still to come."""

    job_id: str
    job: PreparedJob
    state: ParameterState
    published: PublishedParameters
    costs: StepCosts
    clock_ns: Clock
    send: Send
    kind: pb.OrderKind = GRADIENT
    generation: int = 0
    is_out: bool = False
    issued_at_ns: int = 0
    first_issued_at_ns: int = 0
    # Whether workers are to look for what isn't finite.
    checks_gradients: bool = False
    assembly: StepAssembly | None = None
    group: WorkerGroup = field(init=False)
    _order_rows: OrderRows = field(init=False)
    _root: Subtree = field(init=False)
    _order: pb.Order = field(default_factory=pb.Order)
    _rows: Rows = field(default_factory=dict)
    _partial_sums: dict[Subtree, PartialSum | None] = field(default_factory=dict)
    # Whether workers may hold ranges of the next parameters among those of the current order.
    _sent_ahead: bool = False

    def __post_init__(self) -> None:
        self._root = Subtree(0, self.job.spec.training.shards)
        self.set_group(WorkerGroup.nobody(), generation=0)

    def set_group(self, group: WorkerGroup, *, generation: int) -> None:
        """Other workers, or other shards: what has come of the current order is forgotten."""
        self.group = group
        self.generation = generation
        self.is_out = False
        self.assembly = None
        self._rows = {}
        self._partial_sums.clear()
        self._order_rows = OrderRows(self.job, group.subtrees)

    def assignment(self, shards: range) -> pb.Assignment:
        """What a worker is told that computes these shards in this generation."""
        return pb.Assignment(
            job_id=self.job_id,
            generation=self.generation,
            spec=self.job.spec,
            feature_count=self.job.feature_count,
            class_count=self.job.class_count,
            first_shard=shards.start,
            shard_count=len(shards),
            shard_sizes=self.job.schedule.shard_sizes,
        )

    def issue(self) -> None:
        """Give the order that is next to every worker, with the parameters where it doesn't hold them yet."""
        for member in self.group.members.values():
            if member.owed:
                given, rows = self._order, self._row_count(member)
                is_step = given.kind == GRADIENT
                member.behind = Behind(given.order, is_step, set(member.owed), rows, self.issued_at_ns)
        number = self._order.order + 1
        order = pb.Order(
            job_id=self.job_id, generation=self.generation, order=number, kind=self.kind, step=self.state.step
        )
        self.is_out = True
        self._partial_sums.clear()
        self.assembly = None
        self._sent_ahead = False
        if self.kind == GRADIENT:
            order.step += 1
            order.checks_gradients = self.checks_gradients
            self._rows, subtrees = self._order_rows.of_step(order.step)
            row_count = sum(self._rows.values())
            self.assembly = StepAssembly(self.state, self.published, row_count, subtrees, self.clock_ns)
        else:
            order.statistics.extend(self.state.statistics.tolist())
            self._rows = self._order_rows.of_evaluation(self.kind)
        self._order = order
        self.issued_at_ns = self.clock_ns()
        self.first_issued_at_ns = self.first_issued_at_ns or self.issued_at_ns
        self.costs.issued(self.issued_at_ns)
        self.group.backup_tasks.begin_order()
        behind = []
        for name, member in self.group.members.items():
            if member.behind is None:
                self._give(name, member)
            else:
                member.owed, member.took_ns = set(), 0
                behind += member.subtrees
        if behind:
            self._ask_for_help(behind)

    def collect_part(self, name: str, part: RawPart) -> None:
        """A part of a gradient whose PartialSum is still to come. Parts for an older order are ignored.

        Raises ProtocolError."""
        member = self.group.members.get(name)
        if member is None or self.assembly is None or not self.is_out or part.order != self._order.order:
            return
        subtree = Subtree(part.first_shard, part.shard_count)
        if self._rows.get(subtree) == 0:
            raise ProtocolError(f"push of {subtree} refused: it has no rows in step {self.state.step + 1}")
        help_exchange = self.group.backup_tasks.exchange(name, subtree)
        if help_exchange is not None:
            # Ranges are prepared from the vectors of those whose own it is; this one counts as a whole, or not at all.
            help_exchange.decode_part(part)
            return
        subtree, vector = member.exchange.decode_part(part)
        if subtree in self._partial_sums:
            return
        values = self.assembly.assemble_part(subtree, vector, part.offset)
        if values is not None:
            self._sent_ahead = True
            receivers = [
                name
                for name, other in self.group.members.items()
                if other.behind is None and other.exchange.send_ahead(part.offset)
            ]
            # Encoded once for all of them.
            encoded = encode_response(RawPart(part.offset, values, order=self._order.order + 1))
            for receiver in receivers:
                self.send(receiver, encoded, ())

    def collect_partial_sum(self, name: str, message: pb.PartialSum) -> PartialSum | None:
        """A worker's partial sum; with the last one, the sum over all shards, without its gradient, which is in the
        assembly. Late ones are ignored; each subtree counts once. Raises ProtocolError, TrainingFailed."""
        member = self.group.members.get(name)
        if member is None or message.generation != self.generation:
            return None
        now_ns = self.clock_ns()
        subtree = Subtree(message.first_shard, message.shard_count)
        if message.order != self._order.order:
            self._answered_late(name, member, subtree, message.order, now_ns)
            return None
        exchange = self.group.backup_tasks.exchange(name, subtree)
        is_own = exchange is None
        if exchange is None:
            if subtree not in member.subtrees:
                raise ProtocolError(f"{name} pushed shards {subtree}, which are not its own")
            exchange = member.exchange
        if subtree not in self._rows:
            raise ProtocolError(f"push of {subtree} refused: no order of this generation has been given yet")
        if not self.is_out:
            # Somebody else was faster, and the next order waits for other things.
            if is_own and subtree in member.owed:
                self._answered(member, subtree, now_ns)
            return None
        if message.HasField("not_finite"):
            raise TrainingFailed(
                why_not_finite(message.not_finite, self.state, self.job, is_step=self.kind == GRADIENT)
            )
        if is_own and subtree not in member.owed:
            if subtree in self._partial_sums:
                return None
            raise ProtocolError(f"push of {subtree} refused: {name} is still behind, and wasn't given this order")
        if message.row_count != self._rows[subtree]:
            raise ProtocolError(
                f"push of {subtree} refused: its sums are of {message.row_count} rows, but it has {self._rows[subtree]}"
            )
        if subtree not in self._partial_sums:
            self._partial_sums[subtree] = self._decode_partial_sum(exchange, subtree, message)
        if is_own:
            self._answered(member, subtree, now_ns)
        self.costs.arrived(name, message.started_ns, message.finished_ns, now_ns)
        if not covers(self._root, self._partial_sums):
            return None
        total = finish(self._root, self._partial_sums)
        self._partial_sums.clear()
        self.is_out = False
        if total is None:
            raise ProtocolError("every partial sum is without rows")
        return total

    def progress(self) -> dict[str, Progress]:
        """How far each worker is with the current order; of one that is behind, with the one that it is late with.

        Who was behind until now has no part in it."""
        now_ns = self.clock_ns()
        found = {}
        for name, member in self.group.members.items():
            if member.behind is not None:
                late = member.behind
                found[name] = Progress(late.row_count, now_ns - late.issued_at_ns, is_done=False)
            elif member.order == self._order.order or not self.is_out:
                waited_ns = now_ns - self.issued_at_ns if self.is_out else 0
                found[name] = Progress(self._row_count(member), member.took_ns or waited_ns, not member.owed)
        return found

    def help(self, names: Iterable[str]) -> list[str]:
        """Ask others for what these workers owe; those who are asked. They are workers that are done with their own."""
        members = self.group.members
        owed = [subtree for name in names for subtree in self._owed(members[name])]
        return self._ask_for_help(owed, only_idle=True) if self.is_out else []

    def is_helped(self, name: str) -> bool:
        """Whether others compute what a worker owes."""
        return self.group.backup_tasks.is_helped(self._owed(self.group.members[name]))

    def helpers(self) -> list[str]:
        """Who computes for others now."""
        return self.group.backup_tasks.helpers(self._partial_sums) if self.is_out else []

    def help_failed(self, name: str) -> None:
        """A worker can't help; the next that can is asked."""
        self.group.backup_tasks.failed(name)
        self._ask_for_help(self._not_given())

    def _owed(self, member: Member) -> list[Subtree]:
        return [subtree for subtree in member.subtrees if subtree not in self._partial_sums]

    def _not_given(self) -> list[Subtree]:
        """What of the current order nobody has been told to compute: what is behind, and can't be helped with."""
        behind = [member for member in self.group.members.values() if member.behind is not None]
        return [subtree for member in behind for subtree in self._owed(member)] if self.is_out else []

    def _row_count(self, member: Member) -> int:
        return sum(self._rows.get(subtree, 0) for subtree in member.subtrees)

    def _give(self, name: str, member: Member) -> None:
        member.owed, member.took_ns = set(member.subtrees), 0
        holds = member.holds_step
        published = None if holds == self.state.step else self.published
        member.holds_step = self.state.step
        member.order = self._order.order
        for response in member.exchange.order_messages(self._order, published, is_next=holds == self.state.step - 1):
            self.send(name, response, ())

    def _ask_for_help(self, subtrees: Sequence[Subtree], *, only_idle: bool = False) -> list[str]:
        if self._sent_ahead:
            return []  # those who could help no longer hold all of the parameters
        # Who is behind, or was until now, doesn't hold the parameters.
        loads = {
            name: sum(self._rows[subtree] for subtree in member.owed)
            for name, member in self.group.members.items()
            if member.order == self._order.order and not (only_idle and member.owed)
        }
        chosen = self.group.backup_tasks.choose(subtrees, self._rows, loads)
        for subtree, name in chosen.items():
            if name in self.group.backup_tasks.unable:
                continue
            exchange, is_new = self.group.backup_tasks.begin(name, subtree)
            if exchange.transport != self.group.members[name].exchange.transport:
                # There is no room to share one more gradient.
                self.help_failed(name)
                continue
            assignment = self.assignment(range(subtree.first, subtree.first + subtree.count))
            descriptors = exchange.describe_memory(assignment) if is_new else ()
            if descriptors:
                descriptors += self.job.rows.describe_memory(assignment)
            order = pb.Order()
            order.CopyFrom(self._order)
            message = pb.Help(assignment=assignment, order=exchange.help_order(order, self.published))
            self.send(name, pb.TrainResponse(help=message), descriptors)
        return sorted({*chosen.values()})

    def _answered(self, member: Member, subtree: Subtree, now_ns: int) -> None:
        member.owed.discard(subtree)
        if not member.owed:
            member.has_answered = True
            member.took_ns = now_ns - self.issued_at_ns
            if self.kind == GRADIENT:
                member.speed.answered(self._row_count(member), member.took_ns)

    def _answered_late(self, name: str, member: Member, subtree: Subtree, order: int, now_ns: int) -> None:
        """What came too late counts nowhere, but whoever has sent it is there again."""
        behind = member.behind
        if behind is None or order != behind.order:
            return
        behind.owed.discard(subtree)
        if behind.owed:
            return
        member.behind = None
        member.has_answered = True
        if behind.is_step:
            member.speed.answered(behind.row_count, now_ns - behind.issued_at_ns)
        owed = self._owed(member)
        if self.is_out and owed and not self.group.backup_tasks.is_helped(owed):
            self._give(name, member)

    def _decode_partial_sum(self, exchange: Exchange, subtree: Subtree, message: pb.PartialSum) -> PartialSum | None:
        """The numbers of a partial sum; its gradient goes to the step's assembly. None where it has no rows."""
        if message.row_count == 0:
            return None
        wanted = 1 + (self.state.statistics.size if self.assembly else self.job.measure.sum_count)
        if len(message.sums) != wanted:
            raise ProtocolError(f"push for step {self.state.step + 1} refused: {len(message.sums)} sums, not {wanted}")
        if self.assembly is not None:
            self.assembly.assemble_whole(subtree, exchange.complete_gradient(message, subtree))
        return PartialSum(message.row_count, np.array(list(message.sums)))
