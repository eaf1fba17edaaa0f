"""`chainrule workers`: who is connected."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster.support import COMMAND, RestartableServer, wait_for

pytestmark = pytest.mark.cluster


def workers(address: str, *options: str) -> str:
    command = [*COMMAND, "workers", "--server", address, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_workers_are_listed_as_a_table_and_as_json(marker: str, tmp_path: Path) -> None:
    with RestartableServer(tmp_path / "home", workers=1) as server:
        wait_for(lambda: json.loads(workers(server.address, "--json"))["workers"])
        header, row = workers(server.address).splitlines()
        (worker,) = json.loads(workers(server.address, "--json"))["workers"]
    assert header.split()[:4] == ["WORKER", "HOST", "PROCESS", "TRANSPORT"]
    assert row.startswith("worker-0")
    assert f"numpy {worker['numpy_version']}, {worker['blas']}" in row
    assert {"name", "address", "process_id", "connect_time", "silent_s", "lease_s", "job_id"} <= set(worker)


def test_without_workers_it_says_how_to_start_one(marker: str, tmp_path: Path) -> None:
    with RestartableServer(tmp_path / "home") as server:
        assert workers(server.address) == (
            f"no worker is connected; 'chainrule worker --server {server.address}' starts one\n"
        )
