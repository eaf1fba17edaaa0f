"""`chainrule check`: right jobs agree, wrong gradients are named, and a cluster's reduced gradient is held too."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.cli.app import run
from chainrule.spec.job_file import load_job_file
from chainrule_engine.operations import OPERATIONS, Elementwise
from chainrule_engine.synchronous_sgd import train_in_one_process
from chainrule_server.offline.gradient_check import CheckFailed, check_microbatch, check_step, one_step, rate_exponent
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from tests.cluster.support import COMMAND, EXAMPLES, processes_with

pytest.importorskip("sklearn")
JOB = """
name = "regularized"
[model]
prediction = "w @ dropout(relu(V @ x + b), 0.5) + c"
loss = "{loss}"
[model.parameters]
V = [4, "d"]
b = {{ shape = [4], initializer = "zeros" }}
w = [4]
c = []
[data]
uri = "sklearn:diabetes"
[training]
epochs = 3
batch_size = 32
shards = 4
seed = 5
optimizer = {{ name = "adam", learning_rate = 0.01 }}
penalties = {{ l2 = 0.1 }}
clipping = {{ global_norm = 0.001 }}
schedule = {{ name = "cosine", warmup_steps = 5 }}
"""
LOSSES = ["(prediction - y)**2", "absolute(prediction, y)", "huber(prediction, y, 0.1) + max(w[0], b[0])"]


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    """A job with everything that works on a gradient, and dropout."""
    path = tmp_path / "job.toml"
    path.write_text(JOB.format(loss=LOSSES[0]))
    return str(path)


def prepared(text: str, tmp_path: Path) -> PreparedJob:
    path = tmp_path / "prepared.toml"
    path.write_text(text)
    return prepare(load_job_file(path))


def after_the_step(job: PreparedJob) -> dict[str, Any]:
    """The parameters after a job's only step, made in this process."""
    from chainrule_engine.microbatch import MicrobatchComputer

    shards = {number: job.shard(number, validation=False) for number in range(job.spec.training.shards)}
    computer = MicrobatchComputer(job.model, job.schedule, job.measure, shards, {})
    state = job.first_state()
    assert job.total_steps == 1
    train_in_one_process(computer, state, steps=1)
    return job.model.layout.views(state.parameters)


def problems_of(answer: dict[str, Any]) -> dict[str, list[str]]:
    return {each["name"]: each["problems"] for each in answer["parameters"] if each["problems"]}


@pytest.mark.parametrize("example", ["four_layer", "two_layer", "linear_hinge"])
def test_the_examples_agree(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(EXAMPLES / f"{example}.toml"), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert answer["agrees"] is True
    assert answer["microbatch"]["row_count"] == 8
    for each in answer["microbatch"]["parameters"]:
        assert each["checked"] == min(200, each["element_count"])
        assert each["difference_error"] < 1e-6
        assert each["float64_error"] < 1e-5
        assert each["problems"] == []


def test_people_get_a_line_for_each_parameter(job_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", job_file, "--row-count", "20"]) == 0
    title, _, head, *lines = capsys.readouterr().out.splitlines()
    assert title == "regularized: 20 rows, first parameters, seed 5"
    assert head.split()[0] == "parameter"
    assert [line.split()[0] for line in lines] == ["V", "b", "w", "c"]
    assert all(line.endswith("agrees") for line in lines)
    assert "40 of 40" in lines[0]


@pytest.mark.parametrize("loss", LOSSES)
def test_dropout_penalties_and_clipping_leave_the_check_of_the_step_right(tmp_path: Path, loss: str) -> None:
    job = prepared(JOB.format(loss=loss), tmp_path)
    assert problems_of(check_microbatch(job)) == {}
    step = prepare(one_step(job))
    answer = check_step(step, after_the_step(step))
    assert problems_of(answer) == {}
    assert answer["row_count"] == sum(len(rows) for rows in job.division.training)
    assert max(each["difference_error"] for each in answer["parameters"]) < 1e-5


def test_a_kink_at_every_element_is_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = JOB.format(loss="relu(b[0] + b[1]) + sum(relu(b)) + (prediction - y)**2").replace('"d"]', '"d"]\nu = [2]')
    (tmp_path / "job.toml").write_text(text)
    assert run(["check", str(tmp_path / "job.toml")]) == 0
    output = capsys.readouterr().out
    assert "0 of 4, 4 at a kink" in output
    assert "differences say nothing; those elements are left out" in output
    assert next(line for line in output.splitlines() if line.startswith("u ")).endswith("not differenced")


def test_a_wrong_derivative_is_found_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = prepared(JOB.format(loss="sin(prediction - y)"), tmp_path)
    step = prepare(one_step(job))
    wrong = Elementwise("sin", "sin a", 1, value=lambda a: np.sin(a), partials=(lambda _, a: np.cos(a) + 0.01,))
    monkeypatch.setitem(OPERATIONS, "sin", wrong)
    for answer in (check_microbatch(job), check_step(step, after_the_step(step))):
        found = problems_of(answer)
        assert {"V", "w", "c"} <= set(found)
        assert found["c"][0].startswith("the number: backpropagation gives ")
        assert found["w"][0].startswith("element [")
        assert ", differences give " in found["w"][0]


def test_one_wrong_element_of_the_reduced_gradient_is_found_and_named(tmp_path: Path) -> None:
    step = prepare(one_step(prepared(JOB.format(loss=LOSSES[0]), tmp_path)))
    trained = {name: value.copy() for name, value in after_the_step(step).items()}
    trained["V"][2, 3] += 1e-3 * np.abs(trained["V"]).max()
    found = problems_of(check_step(step, trained))
    assert set(found) == {"V"}
    assert found["V"][0].startswith("element [2, 3]: the reduced gradient is ")


def test_a_gradient_of_which_a_shard_is_missing_is_found(tmp_path: Path) -> None:
    step = prepare(one_step(prepared(JOB.format(loss=LOSSES[0]), tmp_path)))
    before = step.model.layout.views(step.first_state().parameters)
    trained = {name: value - 0.75 * (value - after_the_step(step)[name]) for name, value in before.items()}
    assert set(problems_of(check_step(step, trained))) == {"V", "b", "w", "c"}


def test_the_one_step_takes_a_part_of_many_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("chainrule_server.offline.gradient_check.MOST_ROWS", 100)
    step = prepare(one_step(prepared(JOB.format(loss=LOSSES[0]), tmp_path)))
    assert sum(step.schedule.shard_sizes) == 100
    assert step.total_steps == 1
    assert problems_of(check_step(step, after_the_step(step))) == {}


def test_the_rate_moves_each_parameter_as_far_as_it_is_large_and_no_further_than_float32_goes() -> None:
    assert rate_exponent({"P": np.array([3.0])}, {"P": np.array([1e-3])}) == 12
    assert rate_exponent({"P": np.array([1e-3])}, {"P": np.array([3.0])}) == 0
    assert rate_exponent({"P": np.zeros(2)}, {"P": np.zeros(2)}) == 0
    parameters, gradients = {"P": np.ones(1), "Q": np.ones(1)}, {"P": np.array([1e-30]), "Q": np.array([1e10])}
    assert np.isfinite(np.float32(2.0 ** rate_exponent(parameters, gradients)) * np.float32(1e10))


def test_a_loss_that_is_not_finite_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="the loss is not finite with the first parameters"):
        check_microbatch(prepared(JOB.format(loss="log(-prediction**2)"), tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch.toml"], "nosuch.toml: there is no such file"),
        (["job.toml", "--workers", "0"], "--workers: must be from 1 to 4, the job's number of shards, got 0"),
        (["job.toml", "--workers", "5"], "--workers: must be from 1 to 4, the job's number of shards, got 5"),
        (["job.toml", "--row-count", "0"], "--row-count: must be from 1 to 89, the number of training rows of the"),
        (["job.toml", "--row-count", "90"], "of the first shard, got 90"),
        (["wrong.toml"], "model.prediction: column 1: unknown name 'u'"),
        (["odd.toml", "--workers", "2"], "training.shards: must be a power of two, got 3"),
    ],
)
def test_wrong_input_has_exit_code_2_and_its_path(
    job_file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = Path(job_file).read_text()
    Path("wrong.toml").write_text(text.replace("w @ dropout", "u @ dropout"))
    Path("odd.toml").write_text(text.replace("shards = 4", "shards = 3"))
    assert run(["check", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.fixture
def marker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A mark in the environment of every process that the test starts; at the end none may be left."""
    value = f"CHAINRULE_TEST_MARK={tmp_path.name}-{os.urandom(4).hex()}"
    monkeypatch.setenv(*value.split("=", 1))
    yield value
    # A process that a signal met while it was being started sees the end of its standard input, and leaves.
    deadline_s = time.monotonic() + 60
    while processes_with(value):
        assert time.monotonic() < deadline_s, processes_with(value)
        time.sleep(0.05)


@pytest.mark.cluster
@pytest.mark.parametrize("workers", [1, 3])
def test_what_a_cluster_reduces_agrees_with_differences(
    marker: str, job_file: str, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", job_file, "--workers", str(workers), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    reduction = json.loads(line)["reduction"]
    assert (reduction["workers"], reduction["shards"], reduction["row_count"]) == (workers, 4, 354)
    assert [each["name"] for each in reduction["parameters"]] == ["V", "b", "w", "c"]
    for each in reduction["parameters"]:
        assert each["checked"] + each["skipped"] == min(50, each["element_count"])
        assert each["difference_error"] < 1e-5
        assert each["problems"] == []


@pytest.mark.cluster
def test_a_worker_that_dies_before_the_step_ends_the_check(marker: str, job_file: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "check", job_file, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline_s = time.monotonic() + 60
        while not (workers := workers_of(marker)):
            assert time.monotonic() < deadline_s, "waited too long"
            time.sleep(0.005)
        os.kill(workers[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.fullmatch(r"error: the step can't be made: worker-\d ended \(killed by SIGKILL\)\n", errors)


def workers_of(marker: str) -> list[int]:
    """The processes of workers that the test started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                is_ours = marker.encode() in (folder / "environ").read_bytes()
                if is_ours and b"-m\0chainrule_worker\0" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it has ended meanwhile, or it isn't ours
                continue
    return found


@pytest.mark.cluster
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_check_and_all_its_processes(marker: str, job_file: str, number: int, code: int) -> None:
    with subprocess.Popen(
        [*COMMAND, "check", job_file, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline_s = time.monotonic() + 60
        while not workers_of(marker):
            assert time.monotonic() < deadline_s, "waited too long"
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.startswith("error: ")
    assert "Traceback" not in errors


@pytest.mark.cluster
def test_a_killed_check_takes_the_process_that_reads_data_with_it(marker: str, job_file: str) -> None:
    with subprocess.Popen([*COMMAND, "check", job_file], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline_s = time.monotonic() + 60
        while not any("chainrule_server.offline.gradient_check" in command for command in processes_with(marker)):
            assert time.monotonic() < deadline_s, "waited too long"
            time.sleep(0.02)
        process.kill()
        process.wait(timeout=60)
