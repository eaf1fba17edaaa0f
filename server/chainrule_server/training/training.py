"""One job's training as a program of orders: the parameter server's heart, without any gRPC in it.

`_program` reads like the algorithm: order the gradient of a step, commit the update, go on. Around it stands what
workers do: shards are assigned by generation, and an order goes out once every worker of the generation is ready
(`chainrule_server.training.orders`); its partial sums are reduced along the fixed tree. When a worker comes or goes, a
new generation starts and the current order is given out again: what is computed twice gives the same bits.

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

from chainrule.holding.lease import Lease
from chainrule.holding.parameter_memory import ParameterMemory
from chainrule.process.logs import log_event
from chainrule.transport.wire_codec import OutgoingResponse, RawPart
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.early_stopping import EarlyStoppingState
from chainrule_engine.microbatch import NotFinite
from chainrule_engine.parameters import Vector
from chainrule_engine.precision import FLOAT32
from chainrule_engine.published import PublishedParameters
from chainrule_engine.reduction import PartialSum
from chainrule_engine.synchronous_sgd import ParameterState
from chainrule_server.errors import WorkerFailed
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.ended import EndedTraining
from chainrule_server.training.orders import GRADIENT, Clock, Orders, Send
from chainrule_server.training.result import TrainingFailed, result_of, why_parameters_not_finite
from chainrule_server.training.step_cost import StepCosts
from chainrule_server.training.worker_group import WorkerGroup
from chainrule_server.workers.hello import LONGEST_FAILURE_BYTES, short
from chainrule_server.workers.roster import Roster
from chainrule_server.workers.waiting import Waiting
from chainrule_server.workers.worker import Outgoing, Worker

EVALUATE_TRAINING = pb.ORDER_KIND_EVALUATE_TRAINING
EVALUATE_VALIDATION = pb.ORDER_KIND_EVALUATE_VALIDATION

log = logging.getLogger(__name__)

NS_IN_MS = 1e6
NS_IN_S = 1e9
MEDIAN_STEPS = 100_000
MOST_FAILURES = 3


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
    # After the first step, whether nothing moved in it.
    is_first_gradient_zero: bool = field(default=False, init=False)
    # What early stopping knows, and the parameters and statistics of the best epoch, which are never changed.
    stopping: EarlyStoppingState = field(default_factory=EarlyStoppingState)
    best: tuple[Vector, NDArray[np.float64]] | None = None
    _is_best_restored: bool = False
    # In the processes before this one.
    trained_before_s: float = 0.0
    # No step is begun: workers are about to change, or the job to pause. `set_workers` and `go_on` end it.
    is_held: bool = False
    _orders: Orders = field(init=False)
    _send: Send = field(init=False)
    _gathered_at_ns: int = 0
    # What workers have failed with since the last step.
    _failures: list[str] = field(default_factory=list)
    _step_times_ms: deque[float] = field(default_factory=lambda: deque(maxlen=MEDIAN_STEPS))

    def __post_init__(self) -> None:
        memory = ParameterMemory.allocate(self.job.model.layout.size, share=self.share_memory)
        self._memory = memory
        # What workers map: in float32 the parameters themselves.
        precision, shared = self.job.precision, memory.vectors
        self.state = self.job.first_state(shared if precision is FLOAT32 else None)
        self.published = PublishedParameters(precision, self.state.parameters, memory=shared)
        self.progress.total_steps = self.job.total_steps
        self.roster = Roster(self.job.spec.training)
        # It knows the outbox alone: what holds itself is freed only by a full collection, and with it all vectors.
        self._send = _sender(self.outbox)
        self._orders = Orders(self.job_id, self.job, self.state, self.published, self.costs, self.clock_ns, self._send)
        if self.restore is not None:
            self.restore(self)
            self.restore = None  # it holds a whole checkpoint
        self._run = self._program()
        self._orders.kind = next(self._run)

    @property
    def _group(self) -> WorkerGroup:
        return self._orders.group

    @property
    def workers(self) -> list[str]:
        """The workers that hold shards."""
        return list(self._group.members)

    @property
    def is_ordered(self) -> bool:
        """Whether an order is out, whose answers would be lost if the workers changed now."""
        return self._orders.is_out

    @property
    def waiting(self) -> Waiting | None:
        """For whom the training waits; None while its orders are answered within a second."""
        now_ns = self.clock_ns()
        return self._group.waiting(
            f"step {self.state.step + 1}" if self._orders.kind == GRADIENT else "an evaluation",
            lease_of=self.lease_of,
            refused=self.roster.refused,
            helpers=self._orders.helpers(),
            silent_s=(now_ns - self._orders.issued_at_ns) / NS_IN_S,
            gathered_s=(now_ns - self._gathered_at_ns) / NS_IN_S,
        )

    @property
    def without_room(self) -> list[str]:
        """The workers that could share memory, had there been room: they must now be reached over gRPC."""
        return self._group.without_room

    @property
    def parameters_step(self) -> int:
        """The step after which the current parameters were these: with early stopping, at the end, one of before."""
        return self.best_step if self._is_best_restored else self.state.step

    @property
    def best_step(self) -> int:
        """With early stopping, the step that the best epoch ended with; 0 before the first epoch's end."""
        return (self.stopping.best_epoch or 0) * self.job.schedule.steps_per_epoch

    @property
    def trained_s(self) -> float:
        """The time from the first order on, that of the processes before this one included."""
        first_ns = self._orders.first_issued_at_ns
        here_ns = self.clock_ns() - first_ns if first_ns else 0
        return self.trained_before_s + here_ns / NS_IN_S

    @property
    def is_between_steps(self) -> bool:
        """Whether nothing is there of the next step yet that a checkpoint would miss."""
        return self._orders.kind == GRADIENT

    def step_cost(self) -> job_pb2.StepCost | None:
        """What the last steps cost; None before the first."""
        cost = self.costs.message()
        if cost is not None:
            cost.pushed_bytes, cost.pulled_bytes = self._wire_bytes
        return cost

    def spans(self) -> Iterator[api.TraceSpan]:
        """Where the time of the last steps went, from the first order on."""
        return self.costs.spans(origin_ns=self._orders.first_issued_at_ns)

    def set_workers(self, workers: Sequence[Worker]) -> None:
        """Divide the shards among these workers, in a new generation; any that are more than the shards get none."""
        self.generation += 1
        self.is_held = False
        self._gathered_at_ns = self.clock_ns()
        admitted, ranges = self.roster.divide_shards(workers)
        self.costs.keep_clocks({*self.roster.given})
        before = self._group.members
        self._orders.set_group(WorkerGroup.of(self.job, admitted, ranges, self._memory), generation=self.generation)
        for name in before.keys() - self._group.members.keys():
            self._send(name, pb.TrainResponse(release=pb.Release(job_id=self.job_id)), ())
        self.progress.workers = len(self._group.members)
        self.progress.resting_workers = len(self.roster.resting)
        if not self._group.members:
            return
        for name, member in self._group.members.items():
            assignment = self._orders.assignment(member.shards)
            descriptors = member.exchange.describe_memory(assignment)
            if descriptors:
                descriptors += self.job.rows.describe_memory(assignment)
            self._send(name, pb.TrainResponse(assignment=assignment), descriptors)
        self._wire_bytes = self._group.wire_bytes
        self.progress.transport = self._group.transport

    def relieve_stragglers(self) -> bool:
        """See to it that nobody waits for a slow worker: ask others for what it owes, or find that shards are to move,
        or that it is to be tried again. True: then call `set_workers`."""
        now_s = self.clock_ns() / NS_IN_S
        if self.is_held or not self._group.is_ready or not self.roster.is_due(now_s):
            return False
        progress = self._orders.progress()
        late = self.roster.late(progress)
        helpers = self._orders.help(late) if late else []
        if helpers:
            step = self.state.step + self.is_between_steps
            self.roster.report_help(now_s, late, helpers, progress, step=step)
        # Who is helped gets its time: only when the order was answered without it, do its shards move.
        settled = {
            name: each
            for name, each in progress.items()
            if each.is_done or self._group.members[name].behind is not None or not self._orders.is_helped(name)
        }
        members = self._group.members
        return self.roster.should_move_shards(
            now_s,
            settled,
            self.lease_of,
            speeds={name: member.speed for name, member in members.items()},
            shard_counts={name: len(member.shards) for name, member in members.items()},
        )

    def go_on(self) -> None:
        """Begin the step that was held back."""
        self.is_held = False
        if self._group.members and self._group.is_ready and not self.is_ordered:
            self._orders.issue()

    def end(self) -> EndedTraining:
        """No step is made any more. What is left to be told; all else is free once nobody holds this training."""
        self._run.close()
        self.costs.add_up()
        return EndedTraining(self.roster.kinds, self.costs, self._orders.first_issued_at_ns)

    def report_ready(self, name: str, message: pb.Ready) -> None:
        """A worker holds its shards; once all do, the current order goes out."""
        member = self._group.members.get(name)
        if message.generation != self.generation or member is None or member.ready:
            return
        member.ready = True
        if self._group.is_ready:
            self._orders.issue()

    def push_part(self, name: str, part: RawPart) -> None:
        """See Orders. Raises ProtocolError."""
        self._orders.collect_part(name, part)

    def push_partial_sum(self, name: str, message: pb.PartialSum) -> None:
        """A worker's partial sum. Late ones are ignored; each counts once. Raises ProtocolError, TrainingFailed."""
        self.roster.heard_of(name)
        total = self._orders.collect_partial_sum(name, message)
        if total is not None:
            self._answered(total)

    def report_failure(self, name: str, failure: pb.Failure) -> None:
        """A worker can't go on; one that speaks of an older generation is ignored.

        Raises TrainingFailed where that is the job's fault, or workers have failed too often without a step between
        them, and otherwise WorkerFailed: the shards may go to others."""
        if name not in self._group.members or failure.generation != self.generation:
            return
        what = f"{failure.type}: {failure.message}" if failure.type else failure.message
        what = short(what, LONGEST_FAILURE_BYTES)
        if failure.is_of_help:
            extra = log_event("help_failed", job=self.job_id, worker=name)
            log.warning("job %s: %s can't help: %s", self.job_id, name, what, extra=extra)
            self._orders.help_failed(name)
            return
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
        member = self._group.members.get(name)
        return range(0) if member is None else member.shards

    def may_read(self, name: str, shard: int) -> bool:
        """Whether a worker holds a shard, or helps with it."""
        return shard in self.shards_of(name) or self._group.backup_tasks.holds(name, shard)

    def rows_per_second(self, name: str) -> float:
        """How many training rows a worker answers for in a second; 0 where that isn't known yet."""
        member = self._group.members.get(name)
        ns_per_row = 0.0 if member is None else member.speed.ns_per_row
        return NS_IN_S / ns_per_row if ns_per_row else 0.0

    def owes(self, name: str) -> tuple[bool, bool]:
        """Whether a worker has shards to load or an order to answer, and whether it hasn't answered any yet."""
        member = self._group.members.get(name)
        if member is None:
            return self.roster.lags(name), False
        owes = bool(not member.ready or member.owed or member.behind or name in self._orders.helpers())
        return owes, not member.has_answered

    def _program(self) -> Generator[pb.OrderKind, PartialSum, None]:
        """Each `yield` is an order to all workers; what comes back is the sum over all shards."""
        while self.state.step < self.job.total_steps and not self.stopping.should_stop:
            started_at_ns = self.clock_ns()
            total = yield GRADIENT
            if not self._commit_step(total):
                total = yield GRADIENT
                self._commit_step(total)
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
        self._restore_best()
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

    def _restore_best(self) -> None:
        """With early stopping, go back to the parameters of the best epoch."""
        if self.best is not None:
            self.state.parameters[...], self.state.statistics[...] = self.best
            self._is_best_restored = True
            self._publish_exactly()

    def _publish_exactly(self) -> None:
        self.published.publish_exactly(self.state.parameters)
        # The workers hold those of the last step, or rounded ones.
        self._group.hold_nothing()

    def _commit_step(self, total: PartialSum) -> bool:
        """Apply a step. False: its result would not be finite, and the workers are to look where that comes from."""
        if self._orders.assembly is None:
            raise TypeError("a step is committed that was not begun")
        complete_ns = self.clock_ns()
        # One that is NaN isn't 0.
        if self.state.step == 0:
            self.is_first_gradient_zero = self._orders.assembly.is_zero
        try:
            reduce_ns = self._orders.assembly.commit(total, self.pool, self.thread_count)
        except NotFinite as error:
            # The workers hold what was prepared and is no good.
            self._group.hold_nothing()
            if not self._orders.checks_gradients:
                self._orders.checks_gradients = True
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
        self.roster.has_computed = True
        self.progress.step = self.state.step
        self.progress.loss = float(total.sums[0]) / total.row_count
        return True

    def _answered(self, total: PartialSum) -> None:
        try:
            self._orders.kind = self._run.send(total)
        except StopIteration:
            for name in self._group.members:
                self._send(name, pb.TrainResponse(release=pb.Release(job_id=self.job_id)), ())
            return
        if not (self.is_held and self.is_between_steps):
            self._orders.issue()


def _sender(outbox: list[Outgoing]) -> Send:
    """What puts a message for a worker into the outbox."""

    def send(name: str, response: OutgoingResponse, descriptors: tuple[int, ...]) -> None:
        outbox.append(Outgoing(name, response, descriptors))

    return send
