"""Preparing jobs takes no thread from others, so many at once, and nobody waits for a turn without end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chainrule.v1 import job_service_pb2 as api
from chainrule_server.errors import LimitExceeded
from chainrule_server.jobs import submission
from chainrule_server.jobs.preparing_threads import MOST_AT_ONCE, PreparingThreads
from tests.server.in_process import RunningServer, add_data_sets, prepared, regression_spec, running_server

TIMEOUT_S = 60.0


def test_who_has_no_turn_in_time_is_told_why() -> None:
    async def story() -> None:
        threads, free = PreparingThreads(1, wait_timeout_s=0.05), threading.Event()
        first = asyncio.create_task(threads.run(free.wait, TIMEOUT_S))
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="1 other jobs are being prepared"):
            await threads.run(len, "")
        free.set()
        assert await first
        assert await threads.run(len, "abc") == 3

    asyncio.run(story())


def test_a_caller_that_gives_up_keeps_its_turn_until_its_work_is_done() -> None:
    async def story() -> None:
        threads, free = PreparingThreads(1, wait_timeout_s=0.05), threading.Event()
        first = asyncio.create_task(threads.run(free.wait, TIMEOUT_S))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        with pytest.raises(LimitExceeded):
            await threads.run(len, "")
        free.set()
        while True:
            try:
                assert await threads.run(len, "abc") == 3
                return
            except LimitExceeded:
                continue

    asyncio.run(story())


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    add_data_sets(monkeypatch)
    with running_server(tmp_path) as running:
        yield running


def test_many_validations_leave_a_download_its_thread(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    free, begun = threading.Event(), threading.Semaphore(0)
    job = server.add_finished(prepared(regression_spec()))

    def slow(*arguments: Any) -> api.JobEstimate:
        begun.release()
        free.wait(TIMEOUT_S)
        return api.JobEstimate()

    monkeypatch.setattr(submission, "estimate", slow)
    request = api.CreateJobRequest(spec=regression_spec(), validate_only=True)
    # More than the default pool of any machine has threads.
    with ThreadPoolExecutor(50) as callers:
        calls = [callers.submit(server.jobs.CreateJob, request, timeout=TIMEOUT_S) for _ in range(50)]
        try:
            for _ in range(MOST_AT_ONCE):
                assert begun.acquire(timeout=TIMEOUT_S)
            parts = server.jobs.DownloadModel(api.DownloadModelRequest(job_id=job.job_id), timeout=TIMEOUT_S)
            assert sum(len(part.content) for part in parts) > 0
            assert not any(call.done() for call in calls)
        finally:
            free.set()
        for call in calls:
            call.result()
