"""The command line against a small server in the same process: what it prints, and where, and its exit codes."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from google.rpc import error_details_pb2, status_pb2

from chainrule.cli.app import COMMANDS, command_of, run
from chainrule.cli.options import DATA_FILES
from chainrule.v1 import job_pb2
from chainrule_server.data import table_files

JOB_ID = "abcdef012345"


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHAINRULE_SERVER", raising=False)
    return tmp_path


@pytest.fixture
def at(fake_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The small server, which is the one that commands talk to."""
    monkeypatch.setenv("CHAINRULE_SERVER", fake_server.address)
    fake_server.job = job_pb2.Job(
        job_id=JOB_ID,
        spec=job_pb2.JobSpec(name="line"),
        state=job_pb2.JOB_STATE_SUCCEEDED,
        progress=job_pb2.Progress(step=10, total_steps=10, epoch=5, loss=float("nan")),
        result=job_pb2.Result(
            loss=0.5,
            validation_loss=0.625,
            metrics=[job_pb2.Metric(name="r2", value=0.75), job_pb2.Metric(name="validation_r2", value=0.25)],
            parameters_sha256="ab" * 32,
            row_count=80,
            validation_row_count=20,
        ),
    )
    return fake_server


def job_file(text: str = 'name = "line"\n') -> str:
    """The path of a job file in the working folder."""
    Path("job.toml").write_text(text)
    return "job.toml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["train"], "Missing argument 'JOB.toml'"),
        (["list", "--bogus"], "No such option"),
        (["list", "--server", "foo"], "'foo' is no server address; write HOST:PORT"),
        (["train", "nosuch.toml"], "nosuch.toml: there is no such file"),
        (["submit", "nosuch.toml"], "nosuch.toml: there is no such file"),
        (["train", "job.toml", "--workers", "many"], "--workers"),
        (["train", "job.toml", "--workers", "0"], "--workers: must be from 1 to 4, the job's number of shards, got 0"),
        (["train", "job.toml", "--workers", "5"], "--workers: must be from 1 to 4, the job's number of shards, got 5"),
        (["server", "--port", "65536"], "--port"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job_file("training.shards = 4")
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_each_problem_of_a_job_file_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", job_file("nam = 1\ntraining.epoch = 1\n")]) == 2
    assert capsys.readouterr().err == (
        "error: nam: unknown key; did you mean 'name'?\nerror: training.epoch: unknown key; did you mean 'epochs'?\n"
    )


def test_with_json_a_failure_is_a_line_of_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", job_file("nam = 1"), "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "job": None,
        "state": "FAILED",
        "steps": 0,
        "error": {
            "message": "nam: unknown key; did you mean 'name'?",
            "reason": "JOB_FILE_ERROR",
            "problems": [{"path": "nam", "message": "unknown key; did you mean 'name'?"}],
        },
    }
    assert printed.err == "error: nam: unknown key; did you mean 'name'?\n"


@pytest.mark.parametrize("command", ["train", "datasets upload", "wait"])
def test_a_usage_error_names_the_help_of_its_own_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.split()) == 2
    assert f"see 'chainrule {command} --help'" in capsys.readouterr().err


def test_with_json_a_usage_error_is_a_line_of_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--bogus", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "USAGE"


def test_the_fields_that_the_server_refuses_have_their_lines(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    request = error_details_pb2.BadRequest()
    request.field_violations.add(field="training.epochs", description="must be at least 1")
    request.field_violations.add(field="data.uri", description="is\nmissing\x1b[2J")
    at.fail(grpc.StatusCode.INVALID_ARGUMENT, "two problems", request)
    assert run(["submit", job_file()]) == 2
    assert capsys.readouterr().err == (
        "error: training.epochs: must be at least 1\nerror: data.uri: is missing\\x1b[2J\n"
    )


@pytest.mark.parametrize("command", ["status", "watch", "cancel", "download"])
def test_an_unknown_job_is_wrong_input(at: Any, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    at.fail(grpc.StatusCode.NOT_FOUND, "there is no job 'abcd'")
    assert run([command, "abcd"]) == 2
    assert capsys.readouterr().err == "error: there is no job 'abcd'\n"


@pytest.mark.parametrize("command", [["status"], ["delete"], ["logs"], ["list", "--name"]])
def test_what_is_no_text_is_wrong_input(at: Any, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    # Python makes this of the byte FF.
    assert run([*command, "\udcff"]) == 2
    assert capsys.readouterr().err == "error: '\\udcff' is no text in UTF-8\n"


def test_a_call_that_the_state_forbids_has_failed(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    at.fail(grpc.StatusCode.FAILED_PRECONDITION, "job abcd has ended already")
    assert run(["cancel", "abcd"]) == 1
    assert capsys.readouterr().err == "error: job abcd has ended already\n"


def test_submit_says_the_id_and_sends_the_job(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", job_file()]) == 0
    assert JOB_ID in capsys.readouterr().out
    assert at.specs == [job_pb2.JobSpec(name="line")]


def test_status_shows_the_result_for_people(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", JOB_ID]) == 0
    assert capsys.readouterr().out.splitlines()[:9] == [
        f"job    {JOB_ID} (line)",
        "state  succeeded",
        "step   10 of 10, epoch 5 of 0",
        "",
        "      training  validation",
        "loss  0.5       0.625",
        "R²    0.75      0.25",
        "rows  80        20",
        "",
    ]


def test_status_as_json_has_the_names_of_the_proto(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", JOB_ID, "--json"]) == 0
    job = json.loads(capsys.readouterr().out)
    assert (job["job_id"], job["state"], job["progress"]["step"]) == (JOB_ID, "SUCCEEDED", 10)
    assert job["progress"]["loss"] is None, "NaN is no JSON"
    assert "validation_loss" not in job["progress"]


def test_list_has_a_line_for_each_job(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["JOB", "NAME", "STATE", "STEP", "LOSS", "CREATED"]
    assert line.split()[:5] == [JOB_ID, "line", "succeeded", "10/10", "0.5"]


def test_watch_as_json_is_a_line_for_each_state(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    at.states = [job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_SUCCEEDED]
    assert run(["watch", JOB_ID, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["QUEUED", "RUNNING", "SUCCEEDED"]


def test_set_replaces_keys_of_the_job_file_that_is_sent(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "training.epochs=77", "--set", "labels.team=vision"]
    assert run(["submit", job_file(), *settings]) == 0
    assert at.specs[0].training.epochs == 77
    assert at.specs[0].labels == {"team": "vision"}
    assert run(["submit", job_file(), "--set", "training.epoch=1"]) == 2
    assert "training.epoch: unknown key; did you mean 'epochs'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["watch", JOB_ID], ["submit", "job.toml", "--watch"]])
def test_watching_a_job_that_fails_has_exit_code_1(
    at: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    job_file()
    at.job.ClearField("result")
    at.job.error.CopyFrom(status_pb2.Status(code=9, message="step 3: the loss of row 7 is not finite"))
    at.states = [job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_FAILED]
    assert run(arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: job {JOB_ID} failed: step 3: the loss of row 7 is not finite"
    )


def test_watching_a_job_that_is_cancelled_has_exit_code_1(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    at.states = [job_pb2.JOB_STATE_CANCELLED]
    assert run(["watch", JOB_ID]) == 1
    assert f"error: job {JOB_ID} was cancelled after step 10" in capsys.readouterr().err


def test_download_names_the_file_after_the_job(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["download", JOB_ID, "--json"]) == 0
    path = f"models/line-{JOB_ID}.safetensors"
    assert json.loads(capsys.readouterr().out) == {"job": JOB_ID, "model_path": path, "size_bytes": 5}
    assert Path(path).read_bytes() == b"model"


def test_a_server_that_is_not_there_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--server", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("error: no chainrule server answers at 127.0.0.1:1")


def test_help_loads_neither_grpc_nor_numpy() -> None:
    program = (
        "import sys; from chainrule.cli.app import run; assert run(['--help']) == 0; "
        "print([name for name in ('grpc', 'numpy', 'google.protobuf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_of_a_command_what_its_own_help_begins_with(name: str) -> None:
    assert command_of(name).get_short_help_str(limit=1000) == COMMANDS[name][1]
    assert command_of(name).name == name


def test_the_table_names_every_command_that_a_module_declares() -> None:
    for module in {module for module, _ in COMMANDS.values()}:
        whole = typer.Typer()
        whole.add_typer(importlib.import_module(f"chainrule.cli.commands.{module}").app)
        assert set(typer.main.get_group(whole).commands) == {name for name, (at, _) in COMMANDS.items() if at == module}


def test_a_wrong_name_is_told_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["heath"]) == 2
    assert "Did you mean 'health'" in capsys.readouterr().err


def test_options_that_commands_share_are_made_once() -> None:
    # Made for each command they took half the time of making one.
    made = {id(each) for name in ("list", "cancel") for each in command_of(name).params if "--tls-ca" in each.opts}
    assert len(made) == 1


@pytest.mark.parametrize("process", ["server", "worker"])
def test_a_process_takes_by_its_command_every_option_that_it_has(process: str) -> None:
    options = [
        set(re.findall(r"--[a-z][a-z-]*", subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        for command in (
            [sys.executable, "-P", "-m", f"chainrule_{process}", "--help"],
            [sys.executable, "-P", "-m", "chainrule", process, "--help"],
        )
    ]
    # It is for parents that hold the other end of standard input.
    assert options[0] - options[1] == {"--exit-with-stdin"}


@pytest.mark.parametrize("options", [["--help"], ["wait", "--help"]])
@pytest.mark.parametrize("is_buffered", [True, False])
def test_output_that_nobody_reads_ends_a_command_as_a_signal_would(options: list[str], is_buffered: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | ({} if is_buffered else {"PYTHONUNBUFFERED": "1"})
    command = [sys.executable, "-P", "-m", "chainrule", *options]
    with open(writer, "wb") as output:  # noqa: PTH123 - of a descriptor
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_the_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    printed = capsys.readouterr().out
    codes = re.findall(r"\b\d+\b", printed[printed.index("Exit codes") :])
    assert codes == ["0", "1", "2", "130", "141", "143", "3", "124"]


def test_the_help_names_every_kind_of_data_file() -> None:
    assert DATA_FILES == ".csv, .tsv, .tab, .parquet, .arrow, .feather, .npz or .npy"
    assert re.findall(r"\.\w+", DATA_FILES) == list(table_files.ENDINGS)
