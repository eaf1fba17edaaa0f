"""Uploads to a real server that is killed, and from a real client that is interrupted."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from chainrule.client import upload_file
from chainrule.client.blocking.client import Client
from tests.cluster.support import COMMAND, RestartableServer

pytestmark = pytest.mark.cluster


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An .npy of 32 MiB."""
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(1 << 20, 4)))
    return path


def test_a_server_killed_during_an_upload_loses_nothing_that_it_acknowledged(
    tmp_path: Path, file: Path, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_file, "CALL_BYTES", 4 << 20)
    kills = [5 << 20, 17 << 20, 18 << 20]
    with RestartableServer(tmp_path / "home") as server, Client(server.address) as client:

        def kill(what: str, done_bytes: int, _: int) -> None:
            if what == "uploading" and kills and done_bytes >= kills[0]:
                kills.pop(0)
                server.end()
                (upload,) = (tmp_path / "home" / "uploads").iterdir()
                # All calls but the last were answered.
                assert (upload / "content").stat().st_size >= done_bytes - upload_file.CALL_BYTES
                server.start()

        data_set = client.upload(file, told=kill)
        assert kills == []
        assert data_set.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        server.end()
        server.start()
        assert [each.sha256 for each in client.list_data_sets()] == [data_set.sha256]
    stored = tmp_path / "home" / "datasets" / data_set.sha256 / "content"
    assert stored.read_bytes() == file.read_bytes()
    assert list((tmp_path / "home" / "uploads").iterdir()) == []


def test_an_upload_that_ctrl_c_ends_goes_on_with_the_same_command(tmp_path: Path, file: Path, marker: str) -> None:
    with RestartableServer(tmp_path / "home") as server:
        command = [*COMMAND, "datasets", "upload", str(file), "--server", server.address, "--json"]
        uploads = tmp_path / "home" / "uploads"
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            wait_until(lambda: any(path.stat().st_size for path in uploads.glob("*/content")))
            os.kill(server.process_id, signal.SIGSTOP)
            time.sleep(0.2)
            client.send_signal(signal.SIGINT)
            output, errors = client.communicate(timeout=60)
        os.kill(server.process_id, signal.SIGCONT)
        assert client.returncode == 130, (output, errors)
        assert "goes on from there" in errors
        assert "Traceback" not in errors
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert hashlib.sha256(file.read_bytes()).hexdigest() in done.stdout


def wait_until(holds: object, *, timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
