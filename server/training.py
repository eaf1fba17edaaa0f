"""One job's training as a program of orders: the parameter server's heart, without any gRPC in it.

`_program` reads like the algorithm: order the gradient of a step, apply the reduced sum, go on. Around it stands what
workers do: shards are assigned by generation, an order goes out once every worker of the generation is ready, and its
partial sums are reduced along the fixed tree once they cover every shard. When a worker comes or goes, a new generation
starts and the current order is given out again: what is computed twice gives the same bits.

It knows no sockets and no clock of its own: messages to send pile up in `outbox`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from chainrule import wire
from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from engine.early_stopping import EarlyStoppingState
from engine.microbatch import NotFinite
from engine.parameters import Vector, sha256_of
from engine.reduction import PartialSum, Subtree, assign, covers, finish, maximal_subtrees
from engine.synchronous_sgd import ParameterState
from server.errors import ProtocolError
from server.prepared_job import PreparedJob

GRADIENT = pb.ORDER_KIND_GRADIENT
EVALUATE_TRAINING = pb.ORDER_KIND_EVALUATE_TRAINING
EVALUATE_VALIDATION = pb.ORDER_KIND_EVALUATE_VALIDATION

Clock = Callable[[], float]
# An order younger than this is no reason to say that the job waits.
ADVANCING_S = 1.0
MEDIAN_STEPS = 100_000


class TrainingFailed(Exception):
    """The job can't go on; the message says at which step and why."""


@dataclass
class _Member:
    """A worker of the current generation."""

    shards: range
    ready: bool = False
    # Order vectors arrive in parts, before the message that they belong to.
    assembler: wire.VectorAssembler | None = None


@dataclass
class Training:
    """The run of one job. `clock` gives seconds, monotonic; it is used for figures only, never for a decision."""

    job_id: str
    job: PreparedJob
    clock: Clock
    outbox: list[tuple[str, pb.TrainResponse]] = field(default_factory=list)
    progress: job_pb2.Progress = field(default_factory=job_pb2.Progress)
    result: job_pb2.Result | None = None
    state: ParameterState = field(init=False)
    generation: int = 0
    _members: dict[str, _Member] = field(default_factory=dict)
    _order_number: int = 0
    _order_kind: pb.OrderKind = GRADIENT
    # Whether the members of this generation hold the current parameters.
    _pulled_step: int = -1
    _issued_at_s: float = 0.0
    _partial_sums: dict[Subtree, PartialSum | None] = field(default_factory=dict)
    _step_times_s: deque[float] = field(default_factory=lambda: deque(maxlen=MEDIAN_STEPS))
    _first_order_at_s: float = 0.0
    _stopping: EarlyStoppingState = field(default_factory=EarlyStoppingState)
    _best_parameters: Vector | None = None

    def __post_init__(self) -> None:
        self.state = self.job.first_state()
        self.progress.total_steps = self.job.total_steps
        self._root = Subtree(0, self.job.spec.training.shards)
        self._run = self._program()
        self._order_kind = next(self._run)

    @property
    def workers(self) -> list[str]:
        """The workers that hold shards."""
        return list(self._members)

    @property
    def waiting_for(self) -> str:
        """For whom the training waits, in words; empty while its orders are answered within a second."""
        if not self._members:
            return "a worker: none is connected; the job goes on with the first that joins"
        loading = [name for name, member in self._members.items() if not member.ready]
        if loading:
            return f"{', '.join(loading)} to load shards"
        owing = [
            name
            for name, member in self._members.items()
            if any(subtree not in self._partial_sums for subtree in _subtrees(member.shards))
        ]
        silent_s = self.clock() - self._issued_at_s
        if silent_s < ADVANCING_S:
            return ""
        what = f"step {self.state.step + 1}" if self._order_kind == GRADIENT else "an evaluation"
        return f"partial sums of {what} from {', '.join(owing)}, for {silent_s:.1f} s"

    def set_workers(self, names: Sequence[str]) -> None:
        """Divide the shards among these workers, in a new generation; any that are more than the shards get none."""
        self.generation += 1
        self._partial_sums.clear()
        self._pulled_step = -1
        for name in self._members.keys() - set(names):
            self._send(name, pb.TrainResponse(release=pb.Release(job_id=self.job_id)))
        names = list(names)[: self._root.count]
        self._members = {}
        self.progress.workers = len(names)
        if not names:
            return
        ranges = assign(shard_count=self._root.count, worker_count=len(names))
        for name, shards in zip(names, ranges, strict=True):
            self._members[name] = _Member(shards)
            self._send(name, pb.TrainResponse(assignment=self._assignment(shards)))

    def ready(self, name: str, message: pb.Ready) -> None:
        """A worker holds its shards; once all do, the current order goes out."""
        if message.generation != self.generation or name not in self._members:
            return
        self._members[name].ready = True
        if all(member.ready for member in self._members.values()):
            self._issue()

    def receive_part(self, name: str, part: pb.VectorPart) -> None:
        """A part of a gradient whose PartialSum is still to come."""
        member = self._members.get(name)
        if member is not None:
            try:
                self._assembler(member).add(part)
            except ValueError as error:
                raise ProtocolError(f"push for job {self.job_id} refused: {error}") from error

    def receive(self, name: str, message: pb.PartialSum) -> None:
        """A worker's partial sum. Late ones are ignored; each counts once. Raises ProtocolError, TrainingFailed."""
        member = self._members.get(name)
        if member is None:
            return
        current = message.generation == self.generation and message.order == self._order_number
        if not current:
            member.assembler = None
            return
        subtree = Subtree(message.first_shard, message.shard_count)
        if subtree not in _subtrees(member.shards):
            raise ProtocolError(f"{name} pushed shards {subtree}, which are not its own")
        if message.HasField("not_finite"):
            raise TrainingFailed(self._not_finite(message.not_finite))
        partial_sum = self._decode(member, message)
        if subtree in self._partial_sums:
            return
        self._partial_sums[subtree] = partial_sum
        if covers(self._root, self._partial_sums):
            self._complete()

    def _program(self) -> Generator[pb.OrderKind, PartialSum, None]:
        """Each `yield` is an order to all workers; what comes back is the sum over all shards."""
        self._first_order_at_s = self.clock()
        for step in range(1, self.job.total_steps + 1):
            started_at_s = self.clock()
            total = yield GRADIENT
            self._apply(total)
            self._step_times_s.append(self.clock() - started_at_s)
            epoch, rest = divmod(step, self.job.schedule.steps_per_epoch)
            if rest == 0:
                self.progress.epoch = epoch
                if self.job.has_validation:
                    total = yield EVALUATE_VALIDATION
                    self.progress.validation_loss = float(total.sums[0]) / total.row_count
                    if self._observe(self.progress.validation_loss, epoch):
                        break
        self._take_best()
        finished_at_s = self.clock()
        training = yield EVALUATE_TRAINING
        validation = (yield EVALUATE_VALIDATION) if self.job.has_validation else None
        self.result = self._result(training, validation, finished_at_s - self._first_order_at_s)

    def _observe(self, validation_loss: float, epoch: int) -> bool:
        """Whether to stop after an epoch; the parameters are kept where they are the best so far."""
        self.state.observe(validation_loss)
        if self.job.early_stopping is None:
            return False
        self._stopping = self.job.early_stopping.observe(self._stopping, validation_loss, epoch)
        if self._stopping.best_epoch == epoch:
            self._best_parameters = self.state.parameters.copy()
        return self._stopping.should_stop

    def _take_best(self) -> None:
        """With early stopping, go back to the parameters of the best epoch."""
        if self._best_parameters is not None:
            self.state.parameters[...] = self._best_parameters
            # The workers hold those of the last step.
            self._pulled_step = -1

    def _apply(self, total: PartialSum) -> None:
        loss = float(total.sums[0]) / total.row_count
        try:
            self.state.apply(total)
        except NotFinite as error:
            raise TrainingFailed(
                f"step {self.state.step + 1}: the parameters would not be finite; the last good ones are those of step "
                f"{self.state.step}; a smaller training.optimizer.learning_rate often helps"
            ) from error
        self.progress.step = self.state.step
        self.progress.loss = loss

    def _complete(self) -> None:
        total = finish(self._root, self._partial_sums)
        self._partial_sums.clear()
        if total is None:
            raise ProtocolError("every partial sum is without rows")
        try:
            self._order_kind = self._run.send(total)
        except StopIteration:
            for name in self._members:
                self._send(name, pb.TrainResponse(release=pb.Release(job_id=self.job_id)))
        else:
            self._issue()

    def _issue(self) -> None:
        """Give the current order to every member, with the parameters where they don't hold them yet."""
        self._issued_at_s = self.clock()
        self._order_number += 1
        self._partial_sums.clear()
        order = pb.Order(
            job_id=self.job_id,
            generation=self.generation,
            order=self._order_number,
            kind=self._order_kind,
            step=self.state.step + 1 if self._order_kind == GRADIENT else self.state.step,
        )
        parts: list[pb.VectorPart] = []
        if self._pulled_step != self.state.step:
            parts, last = wire.split(self.state.parameters)
            order.vector.CopyFrom(last)
            self._pulled_step = self.state.step
        responses = [pb.TrainResponse(part=part) for part in parts] + [pb.TrainResponse(order=order)]
        for name, member in self._members.items():
            member.assembler = None
            for response in responses:
                self._send(name, response)

    def _decode(self, member: _Member, message: pb.PartialSum) -> PartialSum | None:
        if message.row_count == 0:
            return None
        gradient = None
        if self._order_kind == GRADIENT:
            try:
                self._assembler(member).add(message.vector)
                gradient = self._assembler(member).take()
            except ValueError as error:
                raise ProtocolError(f"push for step {self.state.step + 1} refused: {error}") from error
        wanted = 1 if self._order_kind == GRADIENT else 1 + self.job.measure.sum_count
        if len(message.sums) != wanted:
            raise ProtocolError(f"push for step {self.state.step + 1} refused: {len(message.sums)} sums, not {wanted}")
        return PartialSum(message.row_count, np.array(message.sums), gradient)

    def _assembler(self, member: _Member) -> wire.VectorAssembler:
        if member.assembler is None:
            member.assembler = wire.VectorAssembler(self.job.model.layout.size)
        return member.assembler

    def _assignment(self, shards: range) -> pb.Assignment:
        return pb.Assignment(
            job_id=self.job_id,
            generation=self.generation,
            spec=self.job.spec,
            feature_count=self.job.features.shape[1],
            class_count=self.job.class_count,
            first_shard=shards.start,
            shard_count=len(shards),
            shard_sizes=self.job.schedule.shard_sizes,
        )

    def _not_finite(self, bad: pb.NotFinite) -> str:
        what = f"the loss of row {bad.row}" if bad.row >= 0 else "the gradient"
        step = self.state.step + 1 if self._order_kind == GRADIENT else self.state.step
        return (
            f"step {step}: {what} is not finite (shard {bad.shard}); the last good parameters are those of step "
            f"{self.state.step}; a smaller training.optimizer.learning_rate or a stable formula often helps"
        )

    def _result(self, training: PartialSum, validation: PartialSum | None, training_s: float) -> job_pb2.Result:
        scale = self.job.preprocessing.target_scale or 1.0
        result = job_pb2.Result(
            loss=float(training.sums[0]) / training.row_count,
            parameters_sha256=sha256_of(self.state.parameters),
            parameter_count=self.job.model.layout.size,
            row_count=training.row_count,
            samples_per_second=self.progress.epoch * training.row_count / training_s if training_s else 0.0,
            step_ms_median=1000 * float(np.median(self._step_times_s)),
            training_s=training_s,
        )
        for prefix, total in (("", training), ("validation_", validation)):
            if total is not None:
                measures = self.job.measure.values(total.sums[1:], total.row_count, target_scale=scale)
                for name, value in measures.items():
                    result.metrics.add(name=prefix + name, value=value)
        if self._stopping.best_epoch is not None:
            result.best_epoch = self._stopping.best_epoch
        if validation is not None:
            result.validation_loss = float(validation.sums[0]) / validation.row_count
            result.validation_row_count = validation.row_count
        return result

    def _send(self, name: str, response: pb.TrainResponse) -> None:
        self.outbox.append((name, response))


def _subtrees(shards: range) -> list[Subtree]:
    return maximal_subtrees(first=shards.start, stop=shards.stop)
