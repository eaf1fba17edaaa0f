"""The server's program with workers that are plain objects in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chainrule.transport.wire_codec import OutgoingResponse, RawPart, decode_response
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.microbatch import MicrobatchComputer, ShardRows
from chainrule_engine.parameters import Vector
from chainrule_engine.reduction import PartialSum, Subtree, maximal_subtrees
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.training import Training
from chainrule_server.workers.worker import Worker
from chainrule_worker.assigned_job import AssignedJob
from chainrule_worker.vectors import OwnVectors


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


# Takes a worker's message to the server.
Deliver = Callable[[str, RawPart | pb.PartialSum | pb.Ready], None]


@dataclass
class _Outlet:
    """Where a worker's parts go."""

    deliver: Deliver
    name: str

    def send(self, message: RawPart) -> int:
        self.deliver(self.name, message)
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
    training.set_workers([Worker(f"worker-{number}") for number in range(worker_count)])
    workers = PlainWorkers(training)
    while training.outbox:
        message = training.outbox.pop(0)
        workers.take(message.name, message.response)
    assert training.result is not None
    return training


def receive(training: Training, name: str, message: RawPart | pb.PartialSum | pb.Ready) -> None:
    """The server receives a worker's message."""
    if isinstance(message, RawPart):
        training.push_part(name, message)
    elif isinstance(message, pb.Ready):
        training.report_ready(name, message)
    else:
        training.push_partial_sum(name, message)


class PlainWorkers:
    """The workers of a training, by their names: each takes the messages that it is sent, and answers at once.

    deliver: where the answers go; a part's values must be copied there."""

    def __init__(self, training: Training, deliver: Deliver | None = None) -> None:
        self._job = training.job
        self._deliver = deliver or partial(receive, training)
        self._held: dict[str, AssignedJob] = {}
        # How often one helped another.
        self.help_count = 0

    def take(self, name: str, response: OutgoingResponse) -> None:
        """Do what a message says."""
        job = self._job
        if isinstance(response, bytes):
            response = decode_response(response)
        if isinstance(response, RawPart):
            self._held[name].pull_part(response)
            return
        kind = response.WhichOneof("message")
        if kind == "assignment":
            assignment = response.assignment
            first = assignment.first_shard
            subtrees = maximal_subtrees(first=first, stop=first + assignment.shard_count)
            vectors = OwnVectors(subtrees, job.model.layout.size, _Outlet(self._deliver, name), job.precision)
            self._held[name] = AssignedJob(assignment, computer_of(job), vectors)
            self._deliver(name, pb.Ready(job_id="job", generation=assignment.generation))
        elif kind == "order":
            for partial_sum in self._held[name].compute(response.order):
                self._deliver(name, partial_sum)
        elif kind == "help":
            self.help_count += 1
            for partial_sum in self._held[name].help(response.help, (), self._read_shard):
                self._deliver(name, partial_sum)

    def _read_shard(self, shard: int, validation: bool) -> ShardRows:
        return self._job.shard(shard, validation=validation)
