"""The server's event loop waits for no disk, process or clock, whatever clients ask for: a job's steps go through it.

An audit hook of the interpreter tells of every file that is opened, listed, renamed or removed, in which thread.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chainrule.client.blocking.client import Client
from chainrule.v1 import job_pb2
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.preparation.prepare import prepare
from tests.server.in_process import RunningServer, add_data_sets, regression_spec
from tests.server.plain_worker import PlainWorker

TIMEOUT_S = 60.0
BLOCKING = ("open", "os.", "shutil.", "subprocess.", "sqlite3.connect", "time.sleep", "tempfile.")
# A hook can't be taken away: it does nothing while this is None.
_told: list[str] | None = None
_thread = "server"


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _told is not None and event.startswith(BLOCKING) and threading.current_thread().name == _thread:
        # Without the lines themselves, for which files would be opened here too.
        places = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_stack(None)]
        _told.append("\n  ".join([f"{event}{arguments}, called from", *places[:12]]))


@contextmanager
def listening(thread: str = "server") -> Iterator[list[str]]:
    """What the thread of an event loop waits for in the block."""
    global _told, _thread
    found: list[str] = []
    _thread = thread
    if not hasattr(listening, "is_added"):
        sys.addaudithook(_audit)
        listening.is_added = True  # type: ignore[attr-defined]
    _told = found
    try:
        yield found
    finally:
        _told = None


def test_nothing_that_clients_ask_for_blocks_the_event_loop(server: RunningServer, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n" + "".join(f"{number},{2 * number}\n" for number in range(40)))
    server.scheduler.archive.checkpoints_folder = tmp_path / "checkpoints"
    trained = server.add_finished(prepare(regression_spec())).job_id
    spec = regression_spec()
    spec.data.uri, spec.data.target = "dataset:rows.csv", "b"
    with Client(server.address) as client:
        for _ in range(2):  # the first time modules are loaded
            with listening() as told:
                client.upload(table)
                job = client.create_job(spec)
                client.list_jobs()
                client.list_data_sets()
                client.cancel_job(job.job_id)
                assert [update.state for update in client.watch_job(job.job_id)][-1] == job_pb2.JOB_STATE_CANCELLED
                client.delete_job(job.job_id)
                client.delete_data_set("rows.csv")
                client.download_model(trained, tmp_path / "model.safetensors")
                client.predict(trained, [[1.0, 2.0, 3.0]])
                client.explain(trained, row=1)
                client.explain_reduction(trained)
                client.list_checkpoints(trained)
                client.read_metrics(trained)
    assert told == []
    with listening() as told:
        server.run(table.read_text)
    assert len(told) == 1, "the hook hears nothing, so this test shows nothing"


def test_no_step_checkpoint_pause_or_end_of_a_job_blocks_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_data_sets(monkeypatch)
    spec = regression_spec()
    spec.training.checkpoint_every_steps = 2

    async def live() -> list[str]:
        archive = Archive(tmp_path, tmp_path / "checkpoints")
        scheduler, chance = Scheduler(JobRegistry(lambda: "job"), archive), random.Random(0)
        worker = PlainWorker(scheduler)
        job = await scheduler.submit(prepare(spec))
        with listening(threading.current_thread().name) as told:
            pausing = None
            while not job.is_final or worker.is_busy:
                if worker.is_busy:
                    worker.take_turn(chance)
                if pausing is None and job.training is not None and job.training.progress.step == 3:
                    pausing = asyncio.create_task(scheduler.pause(job))
                if job.state == job_pb2.JOB_STATE_PAUSED:
                    await scheduler.resume(job)
                await asyncio.sleep(0.001)
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED
        assert pausing is not None
        await archive.journal.close()
        archive.journal.store.close()
        return told

    assert asyncio.run(asyncio.wait_for(live(), TIMEOUT_S)) == []
