"""How many rows of each pushed subtree take part in an order: known before any partial sum is there."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.reduction import Subtree
from chainrule_server.preparation.prepared_job import PreparedJob

Rows = dict[Subtree, int]


class OrderRows:
    """For the subtrees that the workers of one generation push."""

    def __init__(self, job: PreparedJob, subtrees: Sequence[Subtree]) -> None:
        self._job = job
        self._subtrees = subtrees
        # So many steps of an epoch take a whole microbatch from every shard.
        self._full_steps = min(job.schedule.shard_sizes) // job.schedule.microbatch_size
        self._of_full_step: tuple[Rows, tuple[Subtree, ...]] | None = None

    def of_step(self, step: int) -> tuple[Rows, tuple[Subtree, ...]]:
        """The rows of each subtree in a step, which counts from 1, and the subtrees that have any."""
        _, step_in_epoch = self._job.schedule.position(step)
        if step_in_epoch >= self._full_steps:
            return self._counted(self._of_shards(step_in_epoch))
        if self._of_full_step is None:
            self._of_full_step = self._counted(self._of_shards(step_in_epoch))
        return self._of_full_step

    def of_evaluation(self, kind: pb.OrderKind) -> Rows:
        """The rows of each subtree in an evaluation."""
        rows = self._job.rows
        is_validation = kind == pb.ORDER_KIND_EVALUATE_VALIDATION
        return self._counted(rows.validation_sizes if is_validation else rows.training_sizes)[0]

    def _of_shards(self, step_in_epoch: int) -> list[int]:
        schedule = self._job.schedule
        return [schedule.row_count(shard, step_in_epoch) for shard in range(len(schedule.shard_sizes))]

    def _counted(self, counts: Sequence[int]) -> tuple[Rows, tuple[Subtree, ...]]:
        rows = {subtree: sum(counts[subtree.first : subtree.first + subtree.count]) for subtree in self._subtrees}
        return rows, tuple(subtree for subtree, row_count in rows.items() if row_count)
