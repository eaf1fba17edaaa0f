"""A job as a worker holds it: the model, its shards' rows, and the parameters that it pulled last."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from chainrule import wire
from chainrule.modeling import build_model
from chainrule.v1 import worker_service_pb2 as pb
from engine.metrics import Measure
from engine.microbatch import MicrobatchComputer, NotFinite, ShardRows
from engine.model import Model
from engine.parameters import Vector
from engine.reduction import PartialSum, Subtree, maximal_subtrees
from engine.sharding import BatchSchedule

# (shard, whether the validation rows) → the rows, read from the server.
ReadShard = Callable[[int, bool], Awaitable[ShardRows]]


@dataclass
class HeldJob:
    """One assignment and what came after it."""

    assignment: pb.Assignment
    computer: MicrobatchComputer
    parameters: Vector
    _assembler: wire.VectorAssembler = field(init=False)

    def __post_init__(self) -> None:
        self._assembler = wire.VectorAssembler(self.parameters.size)

    @classmethod
    def accept(cls, assignment: pb.Assignment, before: HeldJob | None) -> HeldJob:
        """The job of an assignment; rows that an earlier generation of the same job loaded are kept.

        Raises EngineError where the formula can't be built, which the server has ruled out."""
        if before is not None and before.assignment.job_id == assignment.job_id:
            computer = before.computer
        else:
            computer = _computer(assignment)
        return cls(assignment, computer, np.empty(computer.model.layout.size, dtype=np.float32))

    async def load(self, read_shard: ReadShard) -> None:
        """Read the shards that aren't held yet, and drop those of other workers."""
        first, count = self.assignment.first_shard, self.assignment.shard_count
        mine = range(first, first + count)
        computer = self.computer
        training, validation = dict(computer.training), dict(computer.validation)
        for held, is_validation in ((training, False), (validation, True)):
            for shard in held.keys() - set(mine):
                del held[shard]
            for shard in mine:
                if shard not in held:
                    held[shard] = await read_shard(shard, is_validation)
        computer.training, computer.validation = training, validation

    def receive_part(self, part: pb.VectorPart) -> None:
        """A part of the parameters of the order that follows. Raises ValueError where they become too long."""
        self._assembler.add(part)

    def compute(self, order: pb.Order) -> Iterator[pb.TrainRequest]:
        """The messages that answer an order: for each maximal subtree its parts and its PartialSum.

        Raises ValueError where the parameters have a wrong length."""
        if order.HasField("vector"):
            self._assembler.add(order.vector)
            self.parameters = self._assembler.take()
        first, count = self.assignment.first_shard, self.assignment.shard_count
        for subtree in maximal_subtrees(first=first, stop=first + count):
            started_ns = time.monotonic_ns()
            answer = pb.PartialSum(
                job_id=order.job_id,
                generation=order.generation,
                order=order.order,
                first_shard=subtree.first,
                shard_count=subtree.count,
            )
            parts: list[pb.VectorPart] = []
            try:
                total = self._sum(order, subtree)
            except NotFinite as error:
                answer.not_finite.CopyFrom(pb.NotFinite(shard=error.shard, row=-1 if error.row is None else error.row))
            else:
                if total is not None:
                    answer.row_count = total.row_count
                    answer.sums.extend(total.sums.tolist())
                    if total.gradient is not None:
                        parts, last = wire.split(total.gradient)
                        answer.vector.CopyFrom(last)
            answer.started_ns, answer.finished_ns = started_ns, time.monotonic_ns()
            yield from (pb.TrainRequest(part=part) for part in parts)
            yield pb.TrainRequest(partial_sum=answer)

    def _sum(self, order: pb.Order, subtree: Subtree) -> PartialSum | None:
        if order.kind == pb.ORDER_KIND_GRADIENT:
            return self.computer.gradient(subtree, step=order.step, parameters=self.parameters)
        validation = order.kind == pb.ORDER_KIND_EVALUATE_VALIDATION
        return self.computer.evaluate(subtree, parameters=self.parameters, validation=validation)


def decode_rows(responses: list[pb.ReadShardResponse], assignment: pb.Assignment) -> ShardRows:
    """The rows of a shard from the messages that carried them."""
    target_type = "<i8" if assignment.class_count else "<f4"
    features = np.frombuffer(b"".join(response.features for response in responses), dtype="<f4")
    return ShardRows(
        features=features.reshape(-1, assignment.feature_count),
        targets=np.frombuffer(b"".join(response.targets for response in responses), dtype=target_type),
        numbers=np.frombuffer(b"".join(response.row_numbers for response in responses), dtype="<i8"),
    )


def _computer(assignment: pb.Assignment) -> MicrobatchComputer:
    spec = assignment.spec
    model: Model = build_model(spec, feature_count=assignment.feature_count, class_count=assignment.class_count)
    return MicrobatchComputer(
        model=model,
        schedule=BatchSchedule(
            seed=spec.training.seed,
            shard_sizes=tuple(assignment.shard_sizes),
            microbatch_size=spec.training.batch_size // spec.training.shards,
        ),
        measure=Measure.of(
            None if model.prediction is None else model.prediction.root.shape,
            class_count=assignment.class_count,
            labels=spec.data.labels,
        ),
        training={},
        validation={},
    )
