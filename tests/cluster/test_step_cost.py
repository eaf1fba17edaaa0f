"""What a step costs, as a user sees it: in JSON, in a trace file, in `chainrule status`."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from chainrule.client.blocking.client import Client
from chainrule.local.cluster import LocalCluster
from chainrule.spec.job_file import load_job_file
from tests.cluster.support import COMMAND

pytestmark = pytest.mark.cluster
PHASES = ("pull", "compute", "push", "wait", "reduce", "update")


@pytest.mark.parametrize("transport", ["auto", "grpc"])
def test_a_trace_file_and_the_line_of_json_tell_where_the_time_of_each_step_goes(
    transport: str, marker: str, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    trace_file = tmp_path / "trace.json"
    command = [*COMMAND, "train", str(shortened("two_layer", epochs=3)), "--workers", "2", "--json"]
    done = subprocess.run(
        [*command, "--transport", transport, "--trace", str(trace_file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["transport"] == ("grpc" if transport == "grpc" else "shared-memory")
    for phase in PHASES:
        assert all(math.isfinite(value) and value >= 0 for value in result["step_cost"][phase].values())
    moved = 4 * (16 * 10 + 16)
    expected = (2 * moved, 2 * moved) if transport == "grpc" else (0, 0)
    assert (int(result["step_cost"]["pushed_bytes"]), int(result["step_cost"]["pulled_bytes"])) == expected

    events = json.loads(trace_file.read_text())["traceEvents"]
    rows = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert list(rows.values()) == ["server", "worker-1", "worker-2"]
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["args"]["step"] for event in spans} == set(range(1, result["steps"] + 1))
    assert {event["name"] for event in spans} == set(PHASES)
    assert {event["name"] for event in spans if event["tid"] == 0} == {"reduce", "update"}
    # In the server's time line: from the first order to the end, each worker's phases one after the other.
    for tid in rows:
        end_us = 0.0
        for event in (event for event in spans if event["tid"] == tid):
            assert event["ts"] >= end_us - 0.01
            assert event["dur"] >= 0
            end_us = event["ts"] + event["dur"]
        assert end_us <= 1e6 * result["wall_s"]


def test_status_shows_the_transport_and_what_a_step_costs(
    marker: str, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    with LocalCluster(workers=1) as cluster, Client(cluster.address, credentials=cluster.credentials) as client:
        job = client.create_job(load_job_file(shortened("two_layer", epochs=3)))
        for _ in client.watch_job(job.job_id):
            pass
        command = [*COMMAND, "status", job.job_id, "--server", cluster.address]
        environment = {**os.environ, "CHAINRULE_TOKEN": str(cluster.credentials.token)}
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment).stdout
    lines = {line.split("  ")[0]: line for line in shown.splitlines()}
    assert "shared-memory" in lines["transport"]
    assert all(phase in lines["step, ms (p95)"] for phase in PHASES)
