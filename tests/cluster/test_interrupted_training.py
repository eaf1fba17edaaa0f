"""`chainrule train` that is interrupted keeps what it has, and --resume goes on to the bits of an undisturbed run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from chainrule.spec.job_file import load_job_file
from tests.cluster.jobs import Reference
from tests.cluster.support import COMMAND, processes_with

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
TIMEOUT_S = 120.0


def interrupted(
    tmp_path: Path, job_file: Path, *options: str, number: signal.Signals = signal.SIGINT
) -> tuple[int, dict[str, Any], str]:
    """Let a run make some steps and send it a signal: its exit code, its line of JSON, and what it said."""
    with subprocess.Popen(
        [*COMMAND, "train", str(job_file), "--json", *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = ""
        while not re.search(r"step [1-9]", said):
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(number)
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in errors, errors
    return process.returncode, json.loads(output), said + errors


def resumed(tmp_path: Path, job_file: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [*COMMAND, "train", str(job_file), "--resume", "--json", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"exit_code": done.returncode}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_interrupted_keeps_its_model_and_resume_goes_on_to_the_same_bits(
    marker: str,
    shortened: Callable[..., Path],
    tmp_path: Path,
    reference: Reference,
    number: signal.Signals,
    code: int,
) -> None:
    job_file = shortened("four_layer", epochs=1500)
    exit_code, said, errors = interrupted(tmp_path, job_file, number=number)
    assert (exit_code, said["state"]) == (code, "PAUSED")
    model = tmp_path / said["model_path"]
    assert f"after step {said['steps']} of " in errors
    assert f"its parameters are in {said['model_path']}, and the same command with --resume goes on" in errors
    with safe_open(model, framework="numpy") as file:
        assert int(file.metadata()["step"]) == said["steps"]

    # Another number of workers, and interrupted a second time, on a busy machine before it has made a step.
    assert interrupted(tmp_path, job_file, "--resume", "--workers", "3")[1]["steps"] >= said["steps"]
    result = resumed(tmp_path, job_file)
    assert (result["exit_code"], result["state"], result["job"]) == (0, "SUCCEEDED", said["job"])
    assert result["workers"] == 3
    assert result["parameters_sha256"] == reference(load_job_file(job_file))
    assert [path.name for path in (tmp_path / "models").iterdir()] == [model.name]
    assert processes_with(marker) == []


def test_what_was_not_interrupted_cannot_be_resumed(shortened: Callable[..., Path], tmp_path: Path) -> None:
    job_file = shortened("four_layer", epochs=2)
    refused = resumed(tmp_path, job_file)
    assert refused["exit_code"] == 2
    assert "--resume: nothing was interrupted of this job and these settings in models" in refused["error"]["message"]


def test_another_setting_is_another_run_and_fewer_workers_are_refused(
    shortened: Callable[..., Path], tmp_path: Path
) -> None:
    job_file = shortened("four_layer", epochs=100_000)
    assert interrupted(tmp_path, job_file, "--workers", "2")[0] == 130
    other = resumed(tmp_path, job_file, "--set", "training.seed=5")
    assert other["exit_code"] == 2
    assert "of other job files or settings; train without --resume" in other["error"]["message"]
    fewer = resumed(tmp_path, job_file, "--workers", "1")
    assert fewer["exit_code"] == 2
    assert "--workers: must be from 2 to 8" in fewer["error"]["message"]
