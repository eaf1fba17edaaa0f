"""The server's program with workers that are plain objects in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chainrule.v1 import worker_service_pb2 as pb
from chainrule.wire_codec import RawPart, decode_response
from engine.microbatch import MicrobatchComputer
from engine.parameters import Vector
from engine.reduction import PartialSum, Subtree, maximal_subtrees
from server.prepared_job import PreparedJob
from server.team import Seat
from server.training import Training
from worker.held_job import HeldJob
from worker.vectors import OwnVectors


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
        precision=job.precision,
    )


@dataclass
class _Outlet:
    """Takes a part to the server at once."""

    training: Training
    name: str

    def send(self, message: RawPart) -> int:
        self.training.receive_part(self.name, message)
        return 0

    def wait_copied(self, number: int) -> None:
        """It is copied."""


def train_with_plain_workers(
    job: PreparedJob,
    *,
    worker_count: int,
    restore: Callable[[Training], None] | None = None,
    step_ended: Callable[[Training, PartialSum | None], None] | None = None,
) -> Training:
    """The server's program with workers that are plain objects here; tests/cluster does it with processes."""
    training = Training("job", job, clock_ns=lambda: 0, restore=restore, step_ended=step_ended)
    training.set_workers([Seat(f"worker-{number}") for number in range(worker_count)])
    held: dict[str, HeldJob] = {}
    while training.outbox:
        message = training.outbox.pop(0)
        name, response = message.name, message.response
        if isinstance(response, bytes):
            response = decode_response(response)
        if isinstance(response, RawPart):
            held[name].receive_part(response)
            continue
        kind = response.WhichOneof("message")
        if kind == "assignment":
            assignment = response.assignment
            first = assignment.first_shard
            subtrees = maximal_subtrees(first=first, stop=first + assignment.shard_count)
            vectors = OwnVectors(subtrees, job.model.layout.size, _Outlet(training, name), job.precision)
            held[name] = HeldJob(assignment, computer_of(job), vectors)
            training.ready(name, pb.Ready(job_id="job", generation=assignment.generation))
        elif kind == "order":
            for partial_sum in held[name].compute(response.order):
                training.receive(name, partial_sum)
    assert training.result is not None
    return training
