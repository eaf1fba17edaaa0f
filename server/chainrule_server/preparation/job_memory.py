"""What a job's vectors take in the server, and whether that is there before any of it is spent.

Without this the kernel would end the server, and again whenever it is started and goes on with the job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainrule.process.available_memory import available_memory_bytes
from chainrule.text import size
from chainrule_engine.reduction import assign, maximal_subtrees
from chainrule_server.errors import OutOfMemory

if TYPE_CHECKING:
    from chainrule_server.preparation.prepared_job import PreparedJob

FLOAT32_BYTES = 4


def partial_sum_counts(job: PreparedJob) -> list[int]:
    """How many partial sums each of `min_workers` workers pushes in a step."""
    held = assign(shard_count=job.spec.training.shards, worker_count=job.spec.training.min_workers)
    return [len(maximal_subtrees(first=shards.start, stop=shards.stop)) for shards in held]


def vector_bytes(job: PreparedJob) -> int:
    """The bytes of parameters, optimizer state and partial sums in the server."""
    # Parameters and optimizer state are there twice; early stopping keeps the best parameters.
    state_count = 2 * (1 + len(job.recipe.rule.state_names))
    vector_count = state_count + sum(partial_sum_counts(job)) + (job.early_stopping is not None)
    return vector_count * FLOAT32_BYTES * job.model.layout.size


def check_memory(job: PreparedJob) -> None:
    """Refuse a job whose vectors are more than what this process can still take. Raises OutOfMemory."""
    wanted_bytes, free_bytes = vector_bytes(job), available_memory_bytes()
    if free_bytes is not None and wanted_bytes > free_bytes:
        raise OutOfMemory(
            f"the {job.model.layout.size} parameters, with optimizer state and partial sums, take {size(wanted_bytes)} "
            f"in the server, which has {size(free_bytes)} of memory left; take fewer parameters, submit it when other "
            "jobs have ended, or give the server more",
            field="model.parameters",
        )
