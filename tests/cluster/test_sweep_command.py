"""`chainrule sweep` with real processes: on a server, taken up again, cancelled, and on a cluster of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from chainrule.client.blocking.client import Client
from chainrule.v1 import job_pb2
from tests.cluster.support import COMMAND, EXAMPLES, RestartableServer

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("marker")]
TIMEOUT_S = 120.0


def sweep_file(folder: Path, sweep: str, *, epochs: int = 2) -> Path:
    text = (EXAMPLES / "two_layer.toml").read_text().replace("epochs = 100", f"epochs = {epochs}")
    path = folder / "sweep.toml"
    path.write_text(f"{text}\n[sweep]\n{sweep}\n")
    return path


def run(*arguments: str | Path, folder: Path) -> dict[str, Any]:
    command = [*COMMAND, "sweep", *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_folds_choose_the_best_setting_and_the_sweep_is_taken_up_again_by_the_same_command(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, "folds = 2\ntraining.optimizer.learning_rate = [1e-9, 0.02]")
    with RestartableServer(tmp_path / "home", workers=2) as server:
        found = run(path, "--server", server.address, folder=tmp_path)
        assert [trial["state"] for trial in found["trials"]] == ["SUCCEEDED", "SUCCEEDED"]
        assert found["best"] == 2
        losses = [trial["validation_loss"] for trial in found["trials"]]
        assert losses[1] < losses[0]
        with safe_open(tmp_path / found["model_path"], framework="numpy") as file:
            metadata = file.metadata()
        assert (metadata["job"], metadata["parameters_sha256"]) == (found["job"], found["parameters_sha256"])
        with Client(server.address) as client:
            jobs = {job.job_id: job for job in client.list_jobs(labels={"sweep": found["sweep"]})}
        assert len(jobs) == 5
        folds = [jobs[each] for each in found["trials"][0]["jobs"]]
        assert sum(job.result.validation_row_count for job in folds) == folds[0].result.row_count + (
            folds[0].result.validation_row_count
        )
        assert not jobs[found["job"]].spec.data.HasField("fold")
        assert run(path, "--server", server.address, folder=tmp_path) == found
    local = run(path, "--workers", "1", folder=tmp_path)
    assert local["parameters_sha256"] == found["parameters_sha256"]
    assert [trial["validation_loss"] for trial in local["trials"]] == losses


def test_an_interrupted_sweep_leaves_its_jobs_and_cancel_ends_them(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, "training.seed = [1, 2, 3]", epochs=1_000_000)
    with RestartableServer(tmp_path / "home", workers=1) as server, Client(server.address) as client:
        command = [*COMMAND, "sweep", str(path), "--server", server.address]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            deadline_s = time.monotonic() + TIMEOUT_S
            while len(client.list_jobs()) < 3:
                assert time.monotonic() < deadline_s
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
        assert process.returncode == 130
        assert "the jobs go on" in said
        final = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
        assert not any(job.state in final for job in client.list_jobs())
        cancelled = run(path, "--server", server.address, "--cancel", folder=tmp_path)
        assert len(cancelled["cancelled"]) == 3
        assert {job.state for job in client.list_jobs()} == {job_pb2.JOB_STATE_CANCELLED}
