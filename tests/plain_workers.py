"""The server's program with workers that are plain objects in this process."""

from __future__ import annotations

import numpy as np

from chainrule.v1 import worker_service_pb2 as pb
from engine.microbatch import MicrobatchComputer
from engine.parameters import Vector
from engine.reduction import PartialSum, Subtree
from server.prepared_job import PreparedJob
from server.training import Training
from worker.held_job import HeldJob


class Computer(MicrobatchComputer):
    """One that holds every shard."""

    def gradient_of_step(self, step: int, parameters: Vector) -> PartialSum:
        total = self.gradient(Subtree(0, len(self.schedule.shard_sizes)), step=step, parameters=parameters)
        assert total is not None
        return total


def computer_of(job: PreparedJob) -> Computer:
    shards = range(job.spec.training.shards)
    return Computer(
        job.model,
        job.schedule,
        job.measure,
        training={shard: job.shard(shard, validation=False) for shard in shards},
        validation={shard: job.shard(shard, validation=True) for shard in shards},
    )


def train_with_plain_workers(job: PreparedJob, *, worker_count: int) -> Training:
    """The server's program with workers that are plain objects here; tests/cluster does it with processes."""
    training = Training("job", job, clock=lambda: 0.0)
    training.set_workers([f"worker-{number}" for number in range(worker_count)])
    held: dict[str, HeldJob] = {}
    while training.outbox:
        name_of_worker, response = training.outbox.pop(0)
        kind = response.WhichOneof("message")
        if kind == "assignment":
            held[name_of_worker] = HeldJob(
                response.assignment, computer_of(job), np.empty(job.model.layout.size, np.float32)
            )
            training.ready(name_of_worker, pb.Ready(job_id="job", generation=response.assignment.generation))
        elif kind == "order":
            for request in held[name_of_worker].compute(response.order):
                training.receive(name_of_worker, request.partial_sum)
    assert training.result is not None
    return training
