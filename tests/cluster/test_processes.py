"""A user's day: what is learnt, what goes wrong, and that nothing is left running."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cluster.support import COMMAND, EXAMPLES, Train, processes_with, sha256_of_the_engine_alone, wait_for

pytestmark = pytest.mark.cluster


def run(*arguments: str | Path, timeout_s: float = 60, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_four_layer_network_is_within_005_of_linear_regression(train: Train) -> None:
    from chainrule.spec.job_file import load_job_file
    from chainrule_server.preparation.prepare import prepare

    result = train(EXAMPLES / "four_layer.toml", workers=2)
    job = prepare(load_job_file(EXAMPLES / "four_layer.toml"))
    features, y = job.rows.in_data_order()
    x = np.c_[features, np.ones(len(y))]
    training, validation = job.division.training_rows, job.division.validation_rows
    coefficients = np.linalg.lstsq(x[training], y[training])[0]
    error = x[validation] @ coefficients - y[validation]
    linear_r2 = 1 - float(error @ error) / float(((y[validation] - y[validation].mean()) ** 2).sum())
    assert result["exit_code"] == 0
    assert result["metrics"]["validation_r2"] > linear_r2 - 0.05


def test_the_linear_classifier_has_a_validation_accuracy_of_095(train: Train) -> None:
    result = train(EXAMPLES / "linear_hinge.toml", workers=2)
    assert result["metrics"]["validation_accuracy"] >= 0.95


def test_the_line_of_json_has_every_key_and_the_model_is_there(
    train: Train, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    result = train(shortened("two_layer", epochs=2), workers=2)
    keys = (
        "job state steps epochs row_count workers shards loss validation_loss metrics parameters_sha256 model_path "
        "samples_per_second step_ms_median wall_s"
    )
    assert set(keys.split()) <= set(result)
    assert (result["state"], result["epochs"], result["workers"], result["shards"]) == ("SUCCEEDED", 2, 2, 8)
    tensors = load_file(tmp_path / result["model_path"])
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"V": (16, 10), "w": (16,)}
    import hashlib

    assert hashlib.sha256(tensors["V"].tobytes() + tensors["w"].tobytes()).hexdigest() == result["parameters_sha256"]


def test_files_named_server_worker_and_engine_in_the_working_folder_do_no_harm(
    train: Train, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("server", "worker", "engine", "chainrule"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module was imported')\n")
    assert train(shortened("two_layer", epochs=1), workers=2, cwd=tmp_path)["state"] == "SUCCEEDED"


def test_a_worker_killed_in_mid_job_changes_no_bit(marker: str, shortened: Callable[..., Path], tmp_path: Path) -> None:
    job_file = shortened("four_layer", epochs=1500)
    with subprocess.Popen(
        [*COMMAND, "train", str(job_file), "--workers", "3", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        # Lines of progress come every few seconds; the first that counts a step says that the job is in its middle.
        for line in process.stderr:
            if re.search(r"step [1-9]\d*/", line):
                break
        workers = [int(folder.name) for folder in Path("/proc").iterdir() if is_worker(folder, marker)]
        assert len(workers) == 3
        os.kill(workers[0], signal.SIGKILL)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "the job goes on with 2 workers" in errors
    assert json.loads(output)["parameters_sha256"] == sha256_of_the_engine_alone(job_file)


def is_worker(folder: Path, marker: str) -> bool:
    try:
        if not folder.name.isdigit():
            return False
        command = (folder / "cmdline").read_bytes().split(b"\0")
        return b"chainrule_worker" in command and marker.encode() in (folder / "environ").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_ends_within_5_s_and_leaves_nothing(
    marker: str, shortened: Callable[..., Path], tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    job_file = shortened("four_layer", epochs=100_000)
    with subprocess.Popen(
        [*COMMAND, "train", str(job_file), "--workers", "2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: len(processes_with(marker)) == 4)
        time.sleep(1.5)
        process.send_signal(number)
        _, errors = process.communicate(timeout=5)
    assert process.returncode == exit_code
    assert "Traceback" not in errors
    assert processes_with(marker) == []


def test_children_leave_by_themselves_when_the_parent_is_killed(
    marker: str, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    job_file = shortened("four_layer", epochs=100_000)
    with subprocess.Popen(
        [*COMMAND, "train", str(job_file)], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: len(processes_with(marker)) == 4)
        time.sleep(1)
        process.kill()
    wait_for(lambda: processes_with(marker) == [])


BAD_JOBS = {
    "an unknown key": ("epochs = 3", "epoch = 3", "training.epoch", "epochs"),
    "an unknown name": ("V @ x", "V4 @ x", "model.prediction", "'V4'"),
    "an unknown function": ("phi(V @ x)", "psi(V @ x)", "model.prediction", "'psi'"),
    "shapes that don't fit": ('shape = [16, "d"]', "shape = [16, 11]", "(16, 11)", "(10,)"),
    "a batch size that the shards don't divide": ("batch_size = 64", "batch_size = 63", "training.batch_size", "56"),
    "shards that are no power of two": ("shards = 8", "shards = 6", "training.shards", "4 or 8"),
    "a data set that isn't there": ("sklearn:diabetes", "sklearn:diabetis", "data.uri", "sklearn:diabetes"),
    "bad TOML": ("[data]", "[data", "TOML", "line"),
    "an unknown optimizer": ('name = "sgd"', 'name = "sgdd"', "training.optimizer.name", "'sgd'"),
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_wrong_input_is_one_clear_line_and_exit_code_2(
    case: str, marker: str, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    job_file = shortened("two_layer", epochs=3)
    old, new, where, what = BAD_JOBS[case]
    text = job_file.read_text()
    assert old in text
    job_file.write_text(text.replace(old, new))
    done = run("train", job_file, "--workers", "1", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(lines) == 1, done.stderr
    assert where in lines[0], lines
    assert what in lines[0], lines


def test_a_missing_job_file_is_named(marker: str) -> None:
    done = run("train", "nowhere.toml")
    assert done.returncode == 2
    assert "nowhere.toml" in done.stderr


def test_a_loss_that_becomes_nan_fails_the_job_with_step_and_row(
    marker: str, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    job_file = shortened("two_layer", epochs=3)
    job_file.write_text(job_file.read_text().replace("(prediction - y)**2", "log(prediction - prediction - 1) + 0*y"))
    done = run("train", job_file, "--workers", "2", cwd=tmp_path)
    assert done.returncode == 1
    assert "step 1" in done.stderr
    assert "row" in done.stderr


def test_a_job_that_diverges_leaves_its_last_good_parameters(
    marker: str, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    job_file = shortened("two_layer", epochs=200)
    job_file.write_text(job_file.read_text().replace("learning_rate = 0.05", "learning_rate = 1e6"))
    done = run("train", job_file, "--workers", "2", "--output", "kept.safetensors", cwd=tmp_path)
    assert done.returncode == 1
    assert "not finite" in done.stderr
    assert "kept.safetensors" in done.stderr
    assert all(np.isfinite(tensor).all() for tensor in load_file(tmp_path / "kept.safetensors").values())


def test_more_workers_than_shards_are_refused(marker: str) -> None:
    done = run("train", EXAMPLES / "two_layer.toml", "--workers", "9")
    assert done.returncode == 2
    assert "8" in done.stderr


def test_a_port_in_use_is_said(marker: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("server", "--port", str(port), "--home", tmp_path / "home")
    assert done.returncode == 1
    assert "in use" in done.stderr


@pytest.mark.parametrize("command", [("list",), ("status", "abcd"), ("submit", EXAMPLES / "two_layer.toml")])
def test_a_server_that_is_not_there_is_said(command: tuple[str | Path, ...], marker: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = run(*command, "--server", address)
    assert done.returncode == 1
    assert address in done.stderr


def test_a_worker_without_a_server_ends_with_an_error(marker: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = run("worker", "--server", address, "--connect-timeout-s", "0.5")
    assert done.returncode == 1
    assert address in done.stderr


@pytest.fixture
def cluster(marker: str, tmp_path: Path) -> Any:
    """A server and two workers, started with the commands that a user types; its address."""
    stdin = subprocess.PIPE
    with subprocess.Popen(
        [*COMMAND, "server", "--port", "0", "--home", str(tmp_path / "home")],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["address"]
        workers = [
            subprocess.Popen([*COMMAND, "worker", "--server", address], stderr=subprocess.DEVNULL) for _ in range(2)
        ]
        yield address
        for process in [*workers, server]:
            process.send_signal(signal.SIGTERM)
        for process in [*workers, server]:
            assert process.wait(timeout=60) == 0


def test_submit_list_status_watch_cancel_and_download(
    cluster: str, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    def call(*arguments: str | Path) -> Any:
        done = run(*arguments, "--server", cluster, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    short = call("submit", shortened("two_layer", epochs=2))["job_id"]
    final = call("watch", short)
    assert final["state"] == "SUCCEEDED"
    assert call("status", short[:6])["job_id"] == short
    model = tmp_path / "model.safetensors"
    call("download", short, "-o", model)
    assert model.stat().st_size > 0

    path = shortened("four_layer", epochs=100_000)
    # It needs every worker, so the next one has to wait.
    path.write_text(path.read_text() + "min_workers = 2\n")
    long = call("submit", path)["job_id"]
    wait_for(lambda: call("status", long)["state"] == "RUNNING")
    queued = call("submit", shortened("two_layer", epochs=1))["job_id"]
    assert call("status", queued)["state"] == "QUEUED"
    assert "the jobs that run need them" in call("status", queued)["waiting_for"]
    assert call("cancel", long)["state"] == "CANCELLED"
    assert call("watch", queued)["state"] == "SUCCEEDED"
    refused = run("cancel", queued, "--server", cluster)
    assert refused.returncode == 1
    assert run("status", "ffffffff", "--server", cluster).returncode in (1, 2)
    listed = call("list")
    assert {job["job_id"] for job in listed["jobs"]} == {short, long, queued}
