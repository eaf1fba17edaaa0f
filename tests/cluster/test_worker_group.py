"""`chainrule worker --workers N`: several workers that live and end together."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule import Client, load_job_file
from chainrule.client.job_text import FINAL_STATES
from chainrule.v1 import job_pb2
from tests.cluster.support import COMMAND, EXAMPLES, RestartableServer, processes_with
from tests.worker.health_check import all_are_joined

pytestmark = pytest.mark.cluster


@pytest.fixture
def server(marker: str, tmp_path: Path) -> Iterator[RestartableServer]:
    """A server without workers."""
    with RestartableServer(tmp_path / "home") as server:
        yield server


@pytest.fixture
def group(server: RestartableServer, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Three workers as one command, of which the log is in group.log."""
    command = [*COMMAND, "worker", "--server", server.address, "--workers", "3", "--name", "w"]
    environment = os.environ | {"CHAINRULE_WORKER_STATUS": str(tmp_path / "status")}
    with (tmp_path / "group.log").open("wb") as log, subprocess.Popen(command, stderr=log, env=environment) as process:
        wait_for_line(tmp_path / "group.log", "joined", count=3)
        yield process
        process.terminate()
        process.wait(60)


def wait_for_line(path: Path, text: str, *, count: int = 1) -> None:
    deadline_s = time.monotonic() + 60
    while (found := path.read_text()).count(text) < count:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.02)


def workers_of(marker: str) -> dict[str, int]:
    """The name and the process of each worker with this marker."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if marker.encode() in (folder / "environ").read_bytes():
                    arguments = (folder / "cmdline").read_text().split("\0")
                    if "chainrule_worker" in arguments and "--exit-with-stdin" in arguments:
                        found[arguments[arguments.index("--name") + 1]] = int(folder.name)
            except OSError:  # it has ended meanwhile, or it isn't ours
                continue
    return found


def test_a_group_trains_a_job_that_needs_all_of_it(
    server: RestartableServer, group: subprocess.Popen[bytes], marker: str
) -> None:
    assert set(workers_of(marker)) == {"w-1", "w-2", "w-3"}
    spec = load_job_file(EXAMPLES / "two_layer.toml")
    spec.training.epochs, spec.training.min_workers = 3, 3
    with Client(server.address) as client:
        job_id = client.create_job(spec).job_id
        *_, last = client.watch_job(job_id)
    assert last.state in FINAL_STATES
    assert last.state == job_pb2.JOB_STATE_SUCCEEDED


def test_a_health_check_sees_whether_all_workers_have_joined(
    server: RestartableServer, group: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert all_are_joined(tmp_path / "status")
    assert len([*(tmp_path / "status").iterdir()]) == 3
    server.end()
    deadline_s = time.monotonic() + 60
    while all_are_joined(tmp_path / "status"):
        assert time.monotonic() < deadline_s, "the workers without a server are called well"
        time.sleep(0.1)


def test_sigterm_ends_all_workers_of_a_group(group: subprocess.Popen[bytes], marker: str) -> None:
    group.send_signal(signal.SIGTERM)
    assert group.wait(60) == 0
    assert workers_of(marker) == {}


def test_a_killed_group_leaves_no_worker_behind(group: subprocess.Popen[bytes], marker: str) -> None:
    group.kill()
    deadline_s = time.monotonic() + 60
    while workers_of(marker):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_a_group_ends_with_an_error_when_one_of_its_workers_does(
    group: subprocess.Popen[bytes], marker: str, tmp_path: Path
) -> None:
    os.kill(workers_of(marker)["w-2"], signal.SIGKILL)
    assert group.wait(60) == 1
    assert workers_of(marker) == {}
    assert re.search(
        r"^error: worker w-2 ended by itself \(killed by SIGKILL\)", (tmp_path / "group.log").read_text(), re.M
    )


@pytest.mark.parametrize("count", ["0", "-1", "two", "1025", "²"])
def test_a_number_of_workers_that_is_none_is_refused(count: str, marker: str) -> None:
    command = [*COMMAND, "worker", "--workers", count]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, processes_with(marker)) == (2, [])
    assert "--workers: must be auto, or a number from 1 to 1024" in done.stderr
