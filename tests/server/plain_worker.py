"""A worker that is a plain object on the scheduler's own event loop, whose messages arrive when the test wants it."""

from __future__ import annotations

import random
from collections import deque

from chainrule.transport.wire_codec import OutgoingResponse, RawPart, Request, decode_response
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.reduction import maximal_subtrees
from chainrule_server.errors import NotFound, PermissionDenied
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_worker.assigned_job import AssignedJob
from chainrule_worker.vectors import OwnVectors
from tests.plain_workers import computer_of


class PlainWorker:
    """A worker and the link to it. Each turn it takes in one message, or one of its answers arrives at the server."""

    shares_memory = False

    def __init__(self, scheduler: Scheduler, *, kind: str = "") -> None:
        self._scheduler = scheduler
        self.name = scheduler.workers.register(pb.Hello(name="worker", numpy_version=kind)).name
        self._inbox: deque[OutgoingResponse] = deque()
        self._answers: deque[Request] = deque()
        self._held: AssignedJob | None = None
        scheduler.workers.join(self.name, self)

    def send(self, response: OutgoingResponse, descriptors: tuple[int, ...] = ()) -> None:  # noqa: ARG002
        """See chainrule.holding.worker_links.WorkerLink."""
        self._inbox.append(response)

    def without_memory(self) -> PlainWorker:
        """See chainrule.holding.worker_links.WorkerLink."""
        return self

    def close(self) -> None:
        """See chainrule.holding.worker_links.WorkerLink."""

    def leave(self) -> None:
        """It is gone, with what was on its way."""
        self._scheduler.workers.leave(self.name)

    @property
    def is_busy(self) -> bool:
        return bool(self._inbox or self._answers)

    def take_turn(self, chance: random.Random) -> None:
        if self._answers and (not self._inbox or chance.random() < 0.5):
            self._scheduler.sharing.route_message(self.name, self._answers.popleft())
            return
        response = self._inbox.popleft()
        if isinstance(response, bytes):
            response = decode_response(response)
        if isinstance(response, RawPart):
            raise TypeError("these models are too small for parts")
        kind = response.WhichOneof("message")
        held_id = None if self._held is None else self._held.assignment.job_id
        if kind == "assignment":
            assignment = response.assignment
            assert held_id in (None, assignment.job_id), "assigned to one job before it was released from another"
            self._held = self._accept(assignment)
            if self._held is not None:
                ready = pb.Ready(job_id=assignment.job_id, generation=assignment.generation)
                self._answers.append(pb.TrainRequest(ready=ready))
        elif kind == "order":
            assert self._held is not None
            assert held_id == response.order.job_id
            assert len(self._scheduler.jobs.find(response.order.job_id).worker_kinds) == 1
            self._answers += [pb.TrainRequest(partial_sum=each) for each in self._held.compute(response.order)]
        elif kind == "release":
            assert held_id in (None, response.release.job_id)
            self._held = None

    def _accept(self, assignment: pb.Assignment) -> AssignedJob | None:
        try:
            job = self._scheduler.sharing.shard_source(assignment.job_id, assignment.first_shard, worker=self.name)
        except (NotFound, PermissionDenied):
            return None  # it runs no longer, or the shard is another worker's by now; what follows is on its way
        first = assignment.first_shard
        subtrees = maximal_subtrees(first=first, stop=first + assignment.shard_count)
        return AssignedJob(
            assignment, computer_of(job), OwnVectors(subtrees, job.model.layout.size, self, job.precision)
        )

    def wait_copied(self, number: int) -> None:
        """See chainrule_worker.vectors.Outlet."""
