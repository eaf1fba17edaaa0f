"""The server's event loop waits for no disk, process or clock, whatever clients ask for: a job's steps go through it.

An audit hook of the interpreter tells of every file that is opened, listed, renamed or removed, in which thread.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chainrule.client import Client
from chainrule.v1 import job_pb2
from tests.server.in_process import RunningServer, prepared, regression_spec

BLOCKING = ("open", "os.", "shutil.", "subprocess.", "sqlite3.connect", "time.sleep", "tempfile.")
# A hook can't be taken away: it does nothing while this is None.
_told: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _told is not None and event.startswith(BLOCKING) and threading.current_thread().name == "server":
        # Without the lines themselves, for which files would be opened here too.
        places = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_stack(None)]
        _told.append("\n  ".join([f"{event}{arguments}, called from", *places[:12]]))


@contextmanager
def listening() -> Iterator[list[str]]:
    """What the thread of the event loop waits for in the block."""
    global _told
    found: list[str] = []
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
    trained = server.add_finished(prepared(regression_spec())).job_id
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
