"""One job's training as a program of orders: the parameter server's heart, without any gRPC in it.

`_program` reads like the algorithm: order the gradient of a step, commit the update, go on. Around it stands what
workers do: shards are assigned by generation, an order goes out once every worker of the generation is ready, and its
partial sums are reduced along the fixed tree. When a worker comes or goes, a new generation starts and the current
order is given out again: what is computed twice gives the same bits.

A step is prepared range by range in a second buffer, each range as soon as every partial sum has arrived there, and
workers are sent the prepared ranges ahead of the order that they are for. It is committed when all is there and finite.

It knows no sockets and no clock of its own: messages to send pile up in `outbox`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.wire_codec import OutgoingResponse, RawPart, encode_response
from engine.early_stopping import EarlyStoppingState
from engine.microbatch import NotFinite
from engine.parameters import Vector
from engine.precision import FLOAT32
from engine.published import PublishedParameters
from engine.reduction import PartialSum, Subtree, covers, finish
from engine.synchronous_sgd import ParameterState
from server.errors import ProtocolError, WorkerFailed
from server.lease import Lease
from server.order_rows import OrderRows
from server.parameter_memory import ParameterMemory
from server.prepared_job import PreparedJob
from server.roster import Roster
from server.step_assembly import StepAssembly
from server.step_cost import StepCosts
from server.stragglers import Progress
from server.team import Member, Outgoing, Seat, Team
from server.training_result import result_of, why_not_finite, why_parameters_not_finite
from server.waiting import Waiting

GRADIENT = pb.ORDER_KIND_GRADIENT
EVALUATE_TRAINING = pb.ORDER_KIND_EVALUATE_TRAINING
EVALUATE_VALIDATION = pb.ORDER_KIND_EVALUATE_VALIDATION

log = logging.getLogger(__name__)

# Nanoseconds.
Clock = Callable[[], int]
NS_IN_MS = 1e6
NS_IN_S = 1e9
MEDIAN_STEPS = 100_000
MOST_FAILURES = 3


class TrainingFailed(Exception):
    """The job can't go on; the message says at which step and why."""


@dataclass
class Training:
    """The run of one job. `clock_ns` is monotonic; it is used for figures only, never for a decision."""

    job_id: str
    job: PreparedJob
    clock_ns: Clock
    share_memory: bool = False
    # Large updates are made by so many threads, one of them the caller's.
    thread_count: int = 1
    pool: Executor | None = None
    # Of a worker, by its name.
    lease_of: Callable[[str], Lease | None] = lambda _: None
    outbox: list[Outgoing] = field(default_factory=list)
    roster: Roster = field(init=False)
    progress: job_pb2.Progress = field(default_factory=job_pb2.Progress)
    costs: StepCosts = field(default_factory=StepCosts)
    result: job_pb2.Result | None = None
    state: ParameterState = field(init=False)
    published: PublishedParameters = field(init=False)
    # Every generation is above this. A restarted server begins elsewhere, so that what a worker pushed to the server
    # before is of no generation that this one knows. Parts of vectors name none: they can only come over the stream,
    # and that ended with the server that they were for.
    generation: int = 0
    # Called before the first order: puts the training to where a checkpoint was taken.
    restore: Callable[[Training], None] | None = None
    # Called between two steps, with the evaluation that came after the first, if one did.
    step_ended: Callable[[Training, PartialSum | None], None] | None = None
    # What early stopping knows, and the parameters and statistics of the best epoch, which are never changed.
    stopping: EarlyStoppingState = field(default_factory=EarlyStoppingState)
    best: tuple[Vector, NDArray[np.float64]] | None = None
    _took_best: bool = False
    # In the processes before this one.
    trained_before_s: float = 0.0
    # No step is begun: workers are about to change, or the job to pause. `set_workers` and `go_on` end it.
    is_held: bool = False
    # Whether an order is out, whose answers would be lost if the workers changed now.
    is_ordered: bool = field(default=False, init=False)
    _order_number: int = 0
    _order_kind: pb.OrderKind = GRADIENT
    # Whether the members of this generation hold the current parameters.
    _pulled_step: int = -1
    _issued_at_ns: int = 0
    _gathered_at_ns: int = 0
    # Whether a step came out not finite: it is given again, and workers look for the shard.
    _checks_gradients: bool = False
    # What a step pushes and pulls over the wire, all workers together.
    _wire_bytes: tuple[int, int] = (0, 0)
    # Of the current order: the rows of each subtree, and what has come of it.
    _rows: dict[Subtree, int] = field(default_factory=dict)
    _partial_sums: dict[Subtree, PartialSum | None] = field(default_factory=dict)
    _assembly: StepAssembly | None = None
    # What workers have failed with since the last step.
    _failures: list[str] = field(default_factory=list)
    _step_times_ms: deque[float] = field(default_factory=lambda: deque(maxlen=MEDIAN_STEPS))
    _first_order_at_ns: int = 0

    def __post_init__(self) -> None:
        memory = ParameterMemory.allocate(self.job.model.layout.size, share=self.share_memory)
        self._memory: ParameterMemory | None = memory
        # What workers map: in float32 the parameters themselves.
        precision, shared = self.job.precision, memory.vectors
        self.state = self.job.first_state(shared if precision is FLOAT32 else None)
        self.published = PublishedParameters(precision, self.state.parameters, memory=shared)
        self.progress.total_steps = self.job.total_steps
        self._root = Subtree(0, self.job.spec.training.shards)
        self.roster = Roster(self.job.spec.training)
        self._team = Team.of(self.job, [], {}, None)
        self._order_rows = OrderRows(self.job, [])
        if self.restore is not None:
            self.restore(self)
            self.restore = None  # it holds a whole checkpoint
        self._run = self._program()
        self._order_kind = next(self._run)

    @property
    def workers(self) -> list[str]:
        """The workers that hold shards."""
        return list(self._team.members)

    @property
    def waiting(self) -> Waiting | None:
        """For whom the training waits; None while its orders are answered within a second."""
        now_ns = self.clock_ns()
        return self._team.waiting(
            f"step {self.state.step + 1}" if self._order_kind == GRADIENT else "an evaluation",
            lease_of=self.lease_of,
            refused=self.roster.refused,
            silent_s=(now_ns - self._issued_at_ns) / NS_IN_S,
            gathered_s=(now_ns - self._gathered_at_ns) / NS_IN_S,
        )

    @property
    def without_room(self) -> list[str]:
        """The workers that could share memory, had there been room: they must now be reached over gRPC."""
        return self._team.without_room

    @property
    def parameters_step(self) -> int:
        """The step after which the current parameters were these: with early stopping, at the end, one of before."""
        return self.best_step if self._took_best else self.state.step

    @property
    def best_step(self) -> int:
        """With early stopping, the step that the best epoch ended with; 0 before the first epoch's end."""
        return (self.stopping.best_epoch or 0) * self.job.schedule.steps_per_epoch

    @property
    def trained_s(self) -> float:
        """The time from the first order on, that of the processes before this one included."""
        here_ns = self.clock_ns() - self._first_order_at_ns if self._first_order_at_ns else 0
        return self.trained_before_s + here_ns / NS_IN_S

    @property
    def is_between_steps(self) -> bool:
        """Whether nothing is there of the next step yet that a checkpoint would miss."""
        return self._order_kind == GRADIENT

    def step_cost(self) -> job_pb2.StepCost | None:
        """What the last steps cost; None before the first."""
        cost = self.costs.message()
        if cost is not None:
            cost.pushed_bytes, cost.pulled_bytes = self._wire_bytes
        return cost

    def spans(self) -> Iterator[api.TraceSpan]:
        """Where the time of the last steps went, from the first order on."""
        return self.costs.spans(origin_ns=self._first_order_at_ns)

    def set_workers(self, seats: Sequence[Seat]) -> None:
        """Divide the shards among these workers, in a new generation; any that are more than the shards get none."""
        self.generation += 1
        self.is_held = self.is_ordered = False
        self._gathered_at_ns = self.clock_ns()
        self._partial_sums.clear()
        self._rows = {}
        self._assembly = None
        self._pulled_step = -1
        admitted, ranges = self.roster.take(seats)
        self.costs.keep_clocks({*self.roster.seated})
        before = self._team.members
        self._team = Team.of(self.job, admitted, ranges, self._memory)
        for name in before.keys() - self._team.members.keys():
            self._send(name, pb.TrainResponse(release=pb.Release(job_id=self.job_id)))
        self._order_rows = OrderRows(self.job, self._team.subtrees)
        self.progress.workers = len(self._team.members)
        if not self._team.members:
            return
        for name, member in self._team.members.items():
            assignment = self._assignment(member.shards)
            descriptors = member.exchange.share(assignment)
            if descriptors:
                descriptors += self.job.rows.share(assignment)
            self._send(name, pb.TrainResponse(assignment=assignment), descriptors)
        self._wire_bytes = self._team.wire_bytes
        self.progress.transport = self._team.transport

    def look_after(self) -> bool:
        """Whether shards are to move because a worker is slow, or is to be tried again: then call `set_workers`."""
        now_ns = self.clock_ns()
        if self.is_held or not self._team.is_ready or not self.roster.is_due(now_ns / NS_IN_S):
            return False
        members = self._team.members
        waited_ns = now_ns - self._issued_at_ns if self.is_ordered else 0
        progress = {
            name: Progress(
                sum(self._rows.get(each, 0) for each in member.subtrees), member.took_ns or waited_ns, not member.owed
            )
            for name, member in members.items()
        }
        return self.roster.look(now_ns / NS_IN_S, members, progress, self.lease_of)

    def go_on(self) -> None:
        """Begin the step that was held back."""
        self.is_held = False
        if self._team.members and self._team.is_ready and not self.is_ordered:
            self._issue()

    def forget(self) -> None:
        """Give up the parameters and all that a step needs, once the model is stored; what can be told of it stays."""
        self._run.close()
        self.costs.add_up()
        self._memory = None
        self.best = self._assembly = None
        del self.state, self.published, self.job

    def ready(self, name: str, message: pb.Ready) -> None:
        """A worker holds its shards; once all do, the current order goes out."""
        if message.generation != self.generation or name not in self._team.members:
            return
        self._team.members[name].ready = True
        if self._team.is_ready:
            self._issue()

    def receive_part(self, name: str, part: RawPart) -> None:
        """A part of a gradient whose PartialSum is still to come. Parts for an older order are ignored.

        Raises ProtocolError."""
        member = self._team.members.get(name)
        if member is None or self._assembly is None or part.order != self._order_number:
            return
        if self._rows.get(Subtree(part.first_shard, part.shard_count)) == 0:
            raise ProtocolError(
                f"push of {Subtree(part.first_shard, part.shard_count)} refused: it has no rows in step "
                f"{self.state.step + 1}"
            )
        subtree, vector = member.exchange.receive_part(part)
        values = self._assembly.part_arrived(subtree, vector, part.offset)
        if values is not None:
            receivers = [name for name, other in self._team.members.items() if other.exchange.send_ahead(part.offset)]
            # Encoded once for all of them.
            encoded = encode_response(RawPart(part.offset, values, order=self._order_number + 1))
            for receiver in receivers:
                self._send(receiver, encoded)

    def receive(self, name: str, message: pb.PartialSum) -> None:
        """A worker's partial sum. Late ones are ignored; each counts once. Raises ProtocolError, TrainingFailed."""
        self.roster.heard_of(name)
        member = self._team.members.get(name)
        if member is None or message.generation != self.generation or message.order != self._order_number:
            return
        now_ns = self.clock_ns()
        subtree = Subtree(message.first_shard, message.shard_count)
        if subtree not in member.subtrees:
            raise ProtocolError(f"{name} pushed shards {subtree}, which are not its own")
        if message.HasField("not_finite"):
            is_step = self._order_kind == GRADIENT
            raise TrainingFailed(why_not_finite(message.not_finite, self.state, is_step=is_step))
        if subtree in self._partial_sums:
            return
        if subtree not in self._rows:
            raise ProtocolError(f"push of {subtree} refused: no order of this generation has been given yet")
        if message.row_count != self._rows[subtree]:
            raise ProtocolError(
                f"push of {subtree} refused: its sums are of {message.row_count} rows, but it has {self._rows[subtree]}"
            )
        self._partial_sums[subtree] = self._decode(member, subtree, message)
        member.owed -= 1
        if member.owed == 0:
            member.has_answered = True
            member.took_ns = now_ns - self._issued_at_ns
            if self._order_kind == GRADIENT:
                member.speed.answered(sum(self._rows[each] for each in member.subtrees), member.took_ns)
        self.costs.arrived(name, message.started_ns, message.finished_ns, now_ns)
        if covers(self._root, self._partial_sums):
            self._complete()

    def receive_failure(self, name: str, failure: pb.Failure) -> None:
        """A worker can't go on; one that speaks of an older generation is ignored.

        Raises TrainingFailed where that is the job's fault, or workers have failed too often without a step between
        them, and otherwise WorkerFailed: the shards may go to others."""
        if name not in self._team.members or failure.generation != self.generation:
            return
        what = f"{failure.type}: {failure.message}" if failure.type else failure.message
        if failure.is_of_job:
            raise TrainingFailed(f"worker {name}: {what}")
        self._failures.append(f"{name}: {what}")
        if len(self._failures) >= MOST_FAILURES:
            raise TrainingFailed(
                f"step {self.state.step + 1}: {len(self._failures)} times in a row a worker failed: "
                f"{'; '.join(self._failures)}"
            )
        raise WorkerFailed(f"{what} (step {self.state.step + 1} of job {self.job_id})")

    def shards_of(self, name: str) -> range:
        """The shards that a worker holds."""
        member = self._team.members.get(name)
        return range(0) if member is None else member.shards

    def rows_per_second(self, name: str) -> float:
        """How many training rows a worker answers for in a second; 0 where that isn't known yet."""
        member = self._team.members.get(name)
        ns_per_row = 0.0 if member is None else member.speed.ns_per_row
        return NS_IN_S / ns_per_row if ns_per_row else 0.0

    def owes(self, name: str) -> tuple[bool, bool]:
        """Whether a worker has shards to load or an order to answer, and whether it hasn't answered any yet."""
        member = self._team.members.get(name)
        if member is None:
            return self.roster.lags(name), False
        return not member.ready or member.owed > 0, not member.has_answered

    def _program(self) -> Generator[pb.OrderKind, PartialSum, None]:
        """Each `yield` is an order to all workers; what comes back is the sum over all shards."""
        while self.state.step < self.job.total_steps and not self.stopping.should_stop:
            started_at_ns = self.clock_ns()
            total = yield GRADIENT
            if not self._commit(total):
                total = yield GRADIENT
                self._commit(total)
            self._step_times_ms.append((self.clock_ns() - started_at_ns) / NS_IN_MS)
            epoch, rest = divmod(self.state.step, self.job.schedule.steps_per_epoch)
            evaluation = None
            if rest == 0:
                self.progress.epoch = epoch
                if self.job.has_validation:
                    evaluation = yield EVALUATE_VALIDATION
                    self.progress.validation_loss = float(evaluation.sums[0]) / evaluation.row_count
                    self._observe(self.progress.validation_loss, epoch)
            if self.step_ended is not None:
                self.step_ended(self, evaluation)
        self._take_best()
        if self.job.precision is not FLOAT32:
            # What is reported is what the user gets.
            self._publish_exactly()
        training_s = self.trained_s
        training = yield EVALUATE_TRAINING
        validation = (yield EVALUATE_VALIDATION) if self.job.has_validation else None
        self.result = result_of(self.job, self.state, training=training, validation=validation)
        self.result.training_s = training_s
        self.result.samples_per_second = self.progress.epoch * training.row_count / training_s if training_s else 0.0
        self.result.step_ms_median = float(np.median(self._step_times_ms)) if self._step_times_ms else 0.0
        if self.stopping.best_epoch is not None:
            self.result.best_epoch = self.stopping.best_epoch

    def _observe(self, validation_loss: float, epoch: int) -> None:
        """Decide after an epoch whether to stop; the parameters are kept where they are the best so far."""
        self.state.observe(validation_loss)
        if self.job.early_stopping is None:
            return
        self.stopping = self.job.early_stopping.observe(self.stopping, validation_loss, epoch)
        if self.stopping.best_epoch == epoch:
            self.best = self.state.parameters.copy(), self.state.statistics.copy()

    def _take_best(self) -> None:
        """With early stopping, go back to the parameters of the best epoch."""
        if self.best is not None:
            self.state.parameters[...], self.state.statistics[...] = self.best
            self._took_best = True
            self._publish_exactly()

    def _publish_exactly(self) -> None:
        self.published.publish_exactly(self.state.parameters)
        # The workers hold those of the last step, or rounded ones.
        self._pulled_step = -1

    def _commit(self, total: PartialSum) -> bool:
        """Apply a step. False: its result would not be finite, and the workers are to look where that comes from."""
        if self._assembly is None:
            raise TypeError("a step is committed that was not begun")
        complete_ns = self.clock_ns()
        try:
            reduce_ns = self._assembly.commit(total, self.pool, self.thread_count)
        except NotFinite as error:
            # The workers hold what was prepared and is no good.
            self._pulled_step = -1
            if not self._checks_gradients:
                self._checks_gradients = True
                return False
            raise TrainingFailed(why_parameters_not_finite(self.state)) from error
        self.costs.applied(
            self.state.step,
            complete_ns=complete_ns,
            reduced_ns=complete_ns + reduce_ns,
            updated_ns=self.clock_ns(),
            sample_count=total.row_count,
            wire_bytes=self._wire_bytes,
        )
        self._failures.clear()
        self.progress.step = self.state.step
        self.progress.loss = float(total.sums[0]) / total.row_count
        return True

    def _complete(self) -> None:
        total = finish(self._root, self._partial_sums)
        self._partial_sums.clear()
        self.is_ordered = False
        if total is None:
            raise ProtocolError("every partial sum is without rows")
        try:
            self._order_kind = self._run.send(total)
        except StopIteration:
            for name in self._team.members:
                self._send(name, pb.TrainResponse(release=pb.Release(job_id=self.job_id)))
            return
        if not (self.is_held and self.is_between_steps):
            self._issue()

    def _issue(self) -> None:
        """Give the current order to every member, with the parameters where they don't hold them yet."""
        self._order_number += 1
        self.is_ordered = True
        self._partial_sums.clear()
        order = pb.Order(
            job_id=self.job_id,
            generation=self.generation,
            order=self._order_number,
            kind=self._order_kind,
            step=self.state.step,
        )
        self._assembly = None
        if self._order_kind == GRADIENT:
            order.step += 1
            order.checks_gradients = self._checks_gradients
            self._rows, subtrees = self._order_rows.of_step(order.step)
            row_count = sum(self._rows.values())
            self._assembly = StepAssembly(self.state, self.published, row_count, subtrees, self.clock_ns)
        else:
            order.statistics.extend(self.state.statistics.tolist())
            self._rows = self._order_rows.of_evaluation(self._order_kind)
        published = None if self._pulled_step == self.state.step else self.published
        is_next = self._pulled_step == self.state.step - 1
        self._pulled_step = self.state.step
        self._issued_at_ns = self.clock_ns()
        self._first_order_at_ns = self._first_order_at_ns or self._issued_at_ns
        self.costs.issued(self._issued_at_ns)
        for name, member in self._team.members.items():
            member.owed, member.took_ns = len(member.subtrees), 0
            for response in member.exchange.order_messages(order, published, is_next=is_next):
                self._send(name, response)

    def _decode(self, member: Member, subtree: Subtree, message: pb.PartialSum) -> PartialSum | None:
        """The numbers of a partial sum; its gradient goes to the step's assembly. None where it has no rows."""
        if message.row_count == 0:
            return None
        wanted = 1 + (self.state.statistics.size if self._assembly else self.job.measure.sum_count)
        if len(message.sums) != wanted:
            raise ProtocolError(f"push for step {self.state.step + 1} refused: {len(message.sums)} sums, not {wanted}")
        if self._assembly is not None:
            self._assembly.arrived(subtree, member.exchange.take(message, subtree))
        return PartialSum(message.row_count, np.array(list(message.sums)))

    def _assignment(self, shards: range) -> pb.Assignment:
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

    def _send(self, name: str, response: OutgoingResponse, descriptors: tuple[int, ...] = ()) -> None:
        self.outbox.append(Outgoing(name, response, descriptors))
