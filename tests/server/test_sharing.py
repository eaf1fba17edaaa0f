"""Jobs share workers through everything that can happen to them, in any order, and lose no bit.

Workers are plain objects in this process whose messages arrive whenever chance wants it. CHAINRULE_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
from collections import deque
from pathlib import Path

import pytest

from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.wire_codec import OutgoingResponse, RawPart, Request, decode_response
from engine.reduction import maximal_subtrees
from server.archive import Archive
from server.errors import NotFound, PermissionDenied, WrongState
from server.jobs import Job, JobBook
from server.prepared_job import prepare
from server.scheduler import Scheduler
from tests.plain_workers import computer_of, train_with_plain_workers
from tests.server.in_process import add_data_sets, regression_spec
from worker.held_job import HeldJob
from worker.vectors import OwnVectors

PAUSED, SUCCEEDED = job_pb2.JOB_STATE_PAUSED, job_pb2.JOB_STATE_SUCCEEDED
JOBS, MOST_WORKERS = 5, 5
MOST_TURNS = 100_000
RUNS = 8
# Of numpy, so to speak: no job may have workers of two.
KINDS = ("1", "1", "2")


def spec(seed: int, **training: int) -> job_pb2.JobSpec:
    """A job of 24 steps and 6 evaluations."""
    found = regression_spec()
    found.training.CopyFrom(job_pb2.TrainingSpec(epochs=6, batch_size=8, shards=4, seed=seed, **training))
    found.training.optimizer.name, found.training.optimizer.learning_rate = "adam", 0.01
    return found


@functools.cache
def undisturbed(seed: int) -> str:
    result = train_with_plain_workers(prepare(spec(seed)), worker_count=1).result
    assert result is not None
    return result.parameters_sha256


class PlainWorker:
    """A worker and the link to it. Each turn it takes in one message, or one of its answers arrives at the server."""

    shares_memory = False

    def __init__(self, scheduler: Scheduler, *, kind: str = "") -> None:
        self._scheduler = scheduler
        self.name = scheduler.register(pb.Hello(name="worker", numpy_version=kind)).name
        self._inbox: deque[OutgoingResponse] = deque()
        self._answers: deque[Request] = deque()
        self._held: HeldJob | None = None
        scheduler.join(self.name, self)

    def send(self, response: OutgoingResponse, descriptors: tuple[int, ...] = ()) -> None:  # noqa: ARG002
        """See server.links.Link."""
        self._inbox.append(response)

    def without_memory(self) -> PlainWorker:
        """See server.links.Link."""
        return self

    def close(self) -> None:
        """See server.links.Link."""

    def leave(self) -> None:
        """It is gone, with what was on its way."""
        self._scheduler.leave(self.name)

    @property
    def is_busy(self) -> bool:
        return bool(self._inbox or self._answers)

    def take_turn(self, chance: random.Random) -> None:
        if self._answers and (not self._inbox or chance.random() < 0.5):
            self._scheduler.receive(self.name, self._answers.popleft())
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
            assert len(self._scheduler.book.find(response.order.job_id).worker_kinds) == 1
            self._answers += [pb.TrainRequest(partial_sum=each) for each in self._held.compute(response.order)]
        elif kind == "release":
            assert held_id in (None, response.release.job_id)
            self._held = None

    def _accept(self, assignment: pb.Assignment) -> HeldJob | None:
        try:
            job = self._scheduler.shard_source(assignment.job_id, assignment.first_shard, worker=self.name)
        except (NotFound, PermissionDenied):
            return None  # it runs no longer, or the shard is another worker's by now; what follows is on its way
        first = assignment.first_shard
        subtrees = maximal_subtrees(first=first, stop=first + assignment.shard_count)
        return HeldJob(assignment, computer_of(job), OwnVectors(subtrees, job.model.layout.size, self, job.precision))

    def wait_copied(self, number: int) -> None:
        """See worker.vectors.Outlet."""


async def live(chance: random.Random, folder: Path) -> list[Job]:
    """Submit JOBS jobs and let chance have its way until all of them have ended."""
    numbers = iter(range(1000))
    scheduler = Scheduler(JobBook(lambda: f"job-{next(numbers)}"), Archive(folder, folder / "checkpoints"))
    workers = [PlainWorker(scheduler, kind=KINDS[0])]
    jobs: list[Job] = []
    changes: set[asyncio.Task[None]] = set()
    for _ in range(MOST_TURNS):
        if len(jobs) == JOBS and all(job.is_final for job in jobs):
            break
        busy = [worker for worker in workers if worker.is_busy]
        event = chance.random()
        if len(jobs) < JOBS and event < 0.02:
            most = chance.randint(1, 4)
            wanted = spec(chance.randrange(3), min_workers=chance.randint(1, min(3, most)), max_workers=most)
            wanted.priority = chance.randint(-1, 1)
            jobs.append(await scheduler.submit(prepare(wanted)))
        elif event < 0.04 and len(workers) < MOST_WORKERS:
            workers.append(PlainWorker(scheduler, kind=chance.choice(KINDS)))
        elif event < 0.05 and len(workers) > 1:
            workers.pop(chance.randrange(len(workers))).leave()
        elif event < 0.06 and jobs:
            job = chance.choice(jobs)
            change = scheduler.resume if job.state == PAUSED else scheduler.pause
            changes.add(asyncio.create_task(change(job)))
        elif busy:
            chance.choice(busy).take_turn(chance)
        else:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        if not busy:
            for job in jobs:
                if job.state == PAUSED:
                    changes.add(asyncio.create_task(scheduler.resume(job)))
    for found in await asyncio.gather(*changes, return_exceptions=True):
        assert found is None or isinstance(found, WrongState), found
    await scheduler.stop()
    await scheduler.archive.journal.close()
    scheduler.archive.journal.store.close()
    return jobs


def test_whatever_happens_in_whatever_order_every_job_has_the_bits_of_an_undisturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_data_sets(monkeypatch)
    first = int(os.environ.get("CHAINRULE_SEED", random.randrange(1 << 32)))
    for seed in range(first, first + RUNS):
        print(f"CHAINRULE_SEED={seed}")  # noqa: T201 - shown where the test fails
        jobs = asyncio.run(live(random.Random(seed), tmp_path / str(seed)))
        assert [job.state for job in jobs] == [SUCCEEDED] * JOBS, [job.message(now_s=0.0) for job in jobs]
        for job in jobs:
            assert job.result is not None
            assert job.result.parameters_sha256 == undisturbed(job.spec.training.seed)
