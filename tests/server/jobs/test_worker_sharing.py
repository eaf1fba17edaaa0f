"""Jobs share workers through everything that can happen to them, in any order, and lose no bit.

Workers are plain objects in this process whose messages arrive whenever chance wants it. CHAINRULE_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
from pathlib import Path

import pytest

from chainrule.v1 import job_pb2
from chainrule_server.errors import WrongState
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.preparation.prepare import prepare
from tests.plain_workers import train_with_plain_workers
from tests.server.in_process import add_data_sets, regression_spec
from tests.server.plain_worker import PlainWorker

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


async def live(chance: random.Random, folder: Path) -> list[Job]:
    """Submit JOBS jobs and let chance have its way until all of them have ended."""
    numbers = iter(range(1000))
    scheduler = Scheduler(JobRegistry(lambda: f"job-{next(numbers)}"), Archive(folder, folder / "checkpoints"))
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
