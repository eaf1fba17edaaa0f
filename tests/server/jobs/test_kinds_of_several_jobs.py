"""A worker that a job refuses, as it would compute other bits, is free for other jobs; the job says who it misses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chainrule.holding.worker_links import WorkerStreamLink
from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.preparation.prepare import prepare
from tests.server.in_process import add_data_sets, regression_spec

Story = Callable[["Cluster"], Awaitable[None]]


class Cluster:
    """A scheduler whose workers take everything in and answer nothing."""

    def __init__(self, folder: Path) -> None:
        numbers = iter(range(100))
        self.scheduler = Scheduler(JobRegistry(lambda: f"job-{next(numbers)}"), Archive(folder, folder / "checkpoints"))

    def join(self, name: str, *, kind: str) -> None:
        self.scheduler.workers.register(pb.Hello(name=name, numpy_version=kind))
        self.scheduler.workers.join(name, WorkerStreamLink())

    async def submit(self, *, min_workers: int = 1) -> Job:
        spec = regression_spec()
        spec.training.shards, spec.training.min_workers = 4, min_workers
        return await self.scheduler.submit(prepare(spec))


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    """Run a story on a cluster, on an event loop of its own."""
    add_data_sets(monkeypatch)

    async def run(story: Story) -> None:
        cluster = Cluster(tmp_path)
        await story(cluster)
        await cluster.scheduler.stop()
        await cluster.scheduler.archive.journal.close()
        cluster.scheduler.archive.journal.store.close()

    return lambda story: asyncio.run(run(story))


def members(job: Job) -> tuple[str, ...]:
    assert job.training is not None
    return job.training.roster.given


def waiting_for(job: Job) -> str:
    return job.message(now_s=time.monotonic()).waiting_for


def test_a_worker_that_one_job_refuses_serves_the_next_at_once(
    live: Callable[[Story], None],
) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.join("like", kind="1")
        first = await cluster.submit()
        cluster.join("odd", kind="2")
        assert (members(first), first.training and first.training.roster.refused) == (("like",), ("odd",))
        second = await cluster.submit()
        assert members(second) == ("odd",)
        assert second.worker_kinds == ("numpy 2",)
        await cluster.scheduler.archive.journal.written_at_once()
        events = await cluster.scheduler.archive.journal.events(first.job_id, after=0)
        told = [each.worker_differs for each in events if each.HasField("worker_differs")]
        assert [(each.worker, each.is_refused) for each in told] == [("odd", True)]

    live(story)


def test_a_job_does_not_begin_with_workers_of_several_kinds_and_says_what_it_misses(
    live: Callable[[Story], None],
) -> None:
    async def story(cluster: Cluster) -> None:
        for name, kind in (("a", "1"), ("x", "2"), ("b", "1")):
            cluster.join(name, kind=kind)
        job = await cluster.submit(min_workers=3)
        assert job.state == job_pb2.JOB_STATE_QUEUED
        assert waiting_for(job) == (
            "workers: 2 of the 3 that it asks for are connected; besides, 1 of other kinds, which may not compute with "
            "these; it begins once enough have joined"
        )
        cluster.join("c", kind="1")
        assert members(job) == ("a", "b", "c")

    live(story)


def test_a_job_all_whose_like_are_gone_waits_though_others_are_free(
    live: Callable[[Story], None],
) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.join("like", kind="1")
        job = await cluster.submit()
        assert job.training is not None
        job.training.roster.has_computed = True
        cluster.join("odd", kind="2")
        cluster.scheduler.workers.leave("like")
        assert members(job) == ()
        assert waiting_for(job).startswith("workers: odd may compute other bits than those before, and get no shards")
        cluster.join("late", kind="1")
        assert members(job) == ("late",)

    live(story)


def test_workers_that_go_before_the_first_step_fix_no_kind(
    live: Callable[[Story], None],
) -> None:
    async def story(cluster: Cluster) -> None:
        for name in ("x", "y"):
            cluster.join(name, kind="2")
        job = await cluster.submit()
        assert members(job) == ("x", "y")
        cluster.join("like", kind="1")
        # Those who are there are not sent away for it.
        cluster.scheduler.workers.leave("x")
        assert members(job) == ("y",)
        cluster.scheduler.workers.leave("y")
        assert members(job) == ("like",)
        assert job.worker_kinds == ("numpy 1",)

    live(story)


def test_a_job_that_nobody_serves_before_its_first_step_takes_whoever_comes(
    live: Callable[[Story], None],
) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.join("x", kind="2")
        job = await cluster.submit()
        cluster.scheduler.workers.leave("x")
        assert members(job) == ()
        cluster.join("like", kind="1")
        assert members(job) == ("like",)

    live(story)
