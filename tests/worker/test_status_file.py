"""What a health check is told of a worker, and what it makes of it."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from chainrule_worker.heartbeat import Heartbeat
from chainrule_worker.status_file import StatusFile, StatusFileError
from tests.worker.health_check import all_are_joined


def test_a_container_is_well_once_each_of_its_workers_has_joined(tmp_path: Path) -> None:
    assert not all_are_joined(tmp_path), "no worker has started"
    status = StatusFile(tmp_path)
    assert not all_are_joined(tmp_path)
    status.joined()
    assert all_are_joined(tmp_path)
    another = tmp_path / str(os.getppid())
    another.touch()
    assert all_are_joined(tmp_path)
    os.utime(another, (time.time() - 30, time.time() - 30))
    assert not all_are_joined(tmp_path), "another has said nothing for long"
    another.unlink()
    status.left()
    assert not all_are_joined(tmp_path)


def test_a_file_from_the_future_is_no_sign_of_life(tmp_path: Path) -> None:
    StatusFile(tmp_path).joined()
    # The clock was put back by a day, and the worker has been killed since.
    os.utime(tmp_path / str(os.getpid()), (time.time() + 86_400, time.time() + 86_400))
    assert not all_are_joined(tmp_path)


def test_what_a_killed_worker_left_behind_is_cleared_away(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(60)
    (tmp_path / str(ended.pid)).touch()
    (tmp_path / "notes").touch()
    StatusFile(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {str(os.getpid()), "notes"}


def test_a_worker_is_joined_for_as_long_as_its_stream_lives(tmp_path: Path) -> None:
    said = threading.Event()
    stream = Mock(is_active=True, say=lambda _: said.set())
    signs = Heartbeat(queue.SimpleQueue(), StatusFile(tmp_path))
    signs.begin(stream, interval_s=0.01)
    assert all_are_joined(tmp_path)
    # It dies, which the computing thread hasn't seen yet: from now on nothing is touched.
    stream.is_active = False
    said.clear()
    assert said.wait(60)
    os.utime(tmp_path / str(os.getpid()), (0, 0))
    said.clear()
    assert said.wait(60)
    assert not all_are_joined(tmp_path)
    signs.end()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CHAINRULE_WORKER_STATUS", str(tmp_path / "file"))
    with pytest.raises(StatusFileError, match=r"CHAINRULE_WORKER_STATUS: the folder .*file can't be used"):
        StatusFile.of_environment(os.environ)
    assert StatusFile.of_environment({}) is None
