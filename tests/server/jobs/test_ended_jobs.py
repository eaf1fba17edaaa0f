"""What a job holds once it has ended: it stays in the list, its training doesn't."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from pathlib import Path

import pytest

from chainrule.v1 import job_pb2
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.preparation.prepare import prepare
from tests.server.in_process import TIMEOUT_S, add_data_sets, regression_spec
from tests.server.plain_worker import PlainWorker


@pytest.mark.parametrize("pauses", [False, True])
def test_a_job_that_ended_still_tells_of_its_steps_but_its_training_is_free_without_a_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: bool
) -> None:
    add_data_sets(monkeypatch)
    chance = random.Random(0)

    async def live() -> None:
        archive = Archive(tmp_path, tmp_path / "checkpoints")
        scheduler = Scheduler(JobRegistry(lambda: "job"), archive)
        worker = PlainWorker(scheduler)
        job = await scheduler.submit(prepare(regression_spec()))
        pausing, states = None, []
        while not job.is_final or worker.is_busy:
            if worker.is_busy:
                worker.take_turn(chance)
            if job.training is not None and not any(ref() is job.training for ref in states):
                states.append(weakref.ref(job.training))
            if pauses and pausing is None and job.training is not None and job.training.progress.step == 3:
                pausing = asyncio.create_task(scheduler.pause(job))
            if job.state == job_pb2.JOB_STATE_PAUSED:
                await scheduler.resume(job)
            await asyncio.sleep(0)
        await scheduler.stop()
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED
        assert len(states) == 1 + pauses
        assert [state() for state in states] == [None] * len(states)
        assert len(list(job.spans())) > 0
        assert len(job.worker_kinds) == 1
        await archive.journal.close()
        archive.journal.store.close()

    gc.collect()
    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(live(), TIMEOUT_S))
    finally:
        gc.enable()
