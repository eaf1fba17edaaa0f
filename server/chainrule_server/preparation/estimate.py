"""What a job would be and take, before anything of it is started."""

from __future__ import annotations

from chainrule.v1 import job_service_pb2 as api
from chainrule_engine.microbatch import EVALUATION_BLOCK_ROWS
from chainrule_engine.plan import EvaluationPlan, TrainingPlan
from chainrule_engine.reduction import assign
from chainrule_server.preparation.job_memory import FLOAT32_BYTES, partial_sum_counts, vector_bytes
from chainrule_server.preparation.prepared_job import PreparedJob

ROW_NUMBER_BYTES = 8


def estimate(job: PreparedJob) -> api.JobEstimate:
    """The counts of a job, and the bytes that the server and each of `min_workers` workers hold for it.

    The plans are compiled for it, so it takes as long as a worker's start."""
    training = job.spec.training
    size = job.model.layout.size
    row_bytes = FLOAT32_BYTES * job.feature_count + job.rows.target_type.itemsize
    held = assign(shard_count=training.shards, worker_count=training.min_workers)
    row_counts = [sum(_row_count(job, shard) for shard in shards) for shards in held]
    # Besides its partial sums a worker holds the parameters, and a sum that waits at each level of the tree.
    levels = int(training.shards).bit_length() - 1
    start_bytes = 0 if job.start is None else len(job.start.content)
    return api.JobEstimate(
        parameter_count=size,
        feature_count=job.feature_count,
        class_count=job.class_count,
        row_count=sum(job.rows.training_sizes),
        validation_row_count=sum(job.rows.validation_sizes),
        total_steps=job.total_steps,
        server_bytes=vector_bytes(job) + start_bytes,
        row_file_bytes=job.rows.ends[-1],
        worker_bytes=max(row_counts) * (row_bytes + ROW_NUMBER_BYTES)
        + (1 + max(partial_sum_counts(job)) + levels) * FLOAT32_BYTES * size
        + _plan_bytes(job, row_bytes),
    )


def _row_count(job: PreparedJob, shard: int) -> int:
    return job.rows.training_sizes[shard] + job.rows.validation_sizes[shard]


def _plan_bytes(job: PreparedJob, row_bytes: int) -> int:
    """What the plans of a microbatch and of an evaluation hold, and the rows of the microbatch."""
    microbatch = max(1, max(job.schedule.row_count(shard, 0) for shard in range(len(job.schedule.shard_sizes))))
    block = min(
        EVALUATION_BLOCK_ROWS, max(1, *(_row_count(job, shard) for shard in range(len(job.rows.training_sizes))))
    )
    plan_bytes = TrainingPlan(job.model, microbatch).size_bytes + EvaluationPlan(job.model, block).size_bytes
    return microbatch * row_bytes + plan_bytes
