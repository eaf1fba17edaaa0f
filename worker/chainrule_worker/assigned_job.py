"""A job as a worker holds it: the model, its shards' rows, and the parameters that it pulled last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from chainrule.bridge.model_of_spec import build_model
from chainrule.transport.wire_codec import RawPart
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.metrics import Measure
from chainrule_engine.microbatch import MicrobatchComputer, NotFinite, ShardRows
from chainrule_engine.model import Model
from chainrule_engine.parameters import Vector
from chainrule_engine.precision import PRECISIONS
from chainrule_engine.reduction import PartialSum, Subtree, maximal_subtrees
from chainrule_engine.sharding import BatchSchedule
from chainrule_worker.shared_rows import SharedRows, rows_of
from chainrule_worker.vectors import Outlet, OwnVectors, SharedVectors, Vectors

# (shard, whether the validation rows) → the rows, read from the server.
ReadShard = Callable[[int, bool], ShardRows]


@dataclass
class AssignedJob:
    """One assignment and what came after it."""

    assignment: pb.Assignment
    computer: MicrobatchComputer
    vectors: Vectors
    rows: SharedRows | None = None
    # What it computes for others, by subtree.
    _helps: dict[Subtree, AssignedJob] = field(default_factory=dict)

    @classmethod
    def accept(
        cls,
        assignment: pb.Assignment,
        before: AssignedJob | None,
        *,
        link: Outlet,
        descriptors: Sequence[int] = (),
        worked: Callable[[], None] = lambda: None,
    ) -> AssignedJob:
        """The job of an assignment; rows that an earlier generation of the same job loaded are kept.

        worked: called after each microbatch and each block of an evaluation.
        Raises EngineError where the formula can't be built, which the server has ruled out, and SegmentError."""
        if before is not None and before.assignment.job_id == assignment.job_id:
            computer = before.computer
            computer.forget_vectors(max(subtree.count for subtree in _subtrees(assignment)))
        else:
            before = None
            computer = _computer(assignment, worked)
        if assignment.HasField("shared_memory"):
            return cls._sharing_memory(assignment, computer, descriptors)
        size, subtrees = computer.model.layout.size, _subtrees(assignment)
        vectors = None if before is None else before.vectors
        return cls(assignment, computer, OwnVectors(subtrees, size, link, computer.precision, before=vectors))

    @classmethod
    def _sharing_memory(
        cls, assignment: pb.Assignment, computer: MicrobatchComputer, descriptors: Sequence[int]
    ) -> AssignedJob:
        rows = rows_of(assignment, descriptors)
        vector_descriptors = descriptors if rows is None else descriptors[:-1]
        size, shared = computer.model.layout.size, assignment.shared_memory
        vectors = SharedVectors(_subtrees(assignment), size, shared, vector_descriptors, computer.precision)
        return cls(assignment, computer, vectors, rows)

    def help(self, asked: pb.Help, descriptors: Sequence[int], read_shard: ReadShard) -> Iterator[pb.PartialSum]:
        """The partial sum of another worker's subtree; its rows are kept until the next assignment.

        Raises WrongMessage, and SegmentError where there is no memory to share."""
        subtree = Subtree(asked.assignment.first_shard, asked.assignment.shard_count)
        held = self._helps.get(subtree)
        if held is None:
            if isinstance(self.vectors, OwnVectors):
                held = AssignedJob(asked.assignment, self.computer, self.vectors.for_help(subtree))
            else:
                held = AssignedJob._sharing_memory(asked.assignment, self.computer, descriptors)
            held.load(read_shard, keeps_others=True)
            self._helps[subtree] = held
        return held.compute(asked.order)

    def load(self, read_shard: ReadShard, *, keeps_others: bool = False) -> None:
        """Read the shards that aren't held yet, where memory is shared or by read_shard; drop those of others."""
        read = read_shard if self.rows is None else self.rows.shard
        first, count = self.assignment.first_shard, self.assignment.shard_count
        mine = range(first, first + count)
        computer = self.computer
        training, validation = dict(computer.training), dict(computer.validation)
        for held, is_validation in ((training, False), (validation, True)):
            for shard in () if keeps_others else held.keys() - set(mine):
                del held[shard]
            for shard in mine:
                if shard not in held:
                    held[shard] = read(shard, is_validation)
        computer.training, computer.validation = training, validation

    def pull_part(self, part: RawPart) -> None:
        """A part of the parameters of the order that follows. Raises WrongMessage where it doesn't fit."""
        self.vectors.pull_part(part)

    def compute(self, order: pb.Order) -> Iterator[pb.PartialSum]:
        """The partial sum of each maximal subtree, as an order asks for it.

        Raises WrongMessage where the parameters are not what was assigned."""
        started_ns = time.monotonic_ns()
        parameters = self.vectors.parameters(order)
        for subtree in _subtrees(self.assignment):
            answer = pb.PartialSum(
                job_id=order.job_id,
                generation=order.generation,
                order=order.order,
                first_shard=subtree.first,
                shard_count=subtree.count,
                started_ns=started_ns,
            )
            try:
                total = self._sum(order, subtree, parameters)
            except NotFinite as error:
                answer.not_finite.CopyFrom(pb.NotFinite(shard=error.shard, row=-1 if error.row is None else error.row))
            else:
                if total is not None:
                    answer.row_count = total.row_count
                    answer.sums.extend(total.sums.tolist())
                    if order.kind == pb.ORDER_KIND_GRADIENT:
                        self.vectors.attach(answer, subtree)
            answer.finished_ns = started_ns = time.monotonic_ns()
            yield answer

    def _sum(self, order: pb.Order, subtree: Subtree, parameters: Vector) -> PartialSum | None:
        if order.kind == pb.ORDER_KIND_GRADIENT:
            return self.computer.gradient(
                subtree,
                step=order.step,
                parameters=parameters,
                out=self.vectors.gradient(subtree),
                final=self.vectors.pusher(order, subtree),
                is_checked=order.checks_gradients,
            )
        validation = order.kind == pb.ORDER_KIND_EVALUATE_VALIDATION
        statistics = np.array(order.statistics)
        return self.computer.evaluate(subtree, parameters=parameters, validation=validation, statistics=statistics)


def decode_rows(responses: list[pb.ReadShardResponse], assignment: pb.Assignment) -> ShardRows:
    """The rows of a shard from the messages that carried them."""
    target_type = "<i8" if assignment.class_count else "<f4"
    features = np.frombuffer(b"".join(response.features for response in responses), dtype="<f4")
    return ShardRows(
        features=features.reshape(-1, assignment.feature_count),
        targets=np.frombuffer(b"".join(response.targets for response in responses), dtype=target_type),
        numbers=np.frombuffer(b"".join(response.row_numbers for response in responses), dtype="<i8"),
    )


def _subtrees(assignment: pb.Assignment) -> list[Subtree]:
    first = assignment.first_shard
    return maximal_subtrees(first=first, stop=first + assignment.shard_count)


def _computer(assignment: pb.Assignment, worked: Callable[[], None]) -> MicrobatchComputer:
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
        backend=spec.training.backend,
        precision=PRECISIONS[spec.training.precision],
        worked=worked,
    )
