"""What a server refuses because its operator said so: the error names the limit and the setting, nothing was spent."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chainrule.cli.failures import FAILED, WRONG_INPUT, CommandFailed
from chainrule.client.blocking.client import Client
from chainrule.errors import InvalidJob, ServerError
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.limits import Limits, add_limit_options, limits_of
from chainrule_server.preparation import job_memory, prepare, prepared_job
from tests.server.in_process import TIMEOUT_S, RunningServer, add_data_sets, regression_spec, running_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    add_data_sets(monkeypatch)
    with running_server(tmp_path) as running:
        yield running


def limit(server: RunningServer, **limits: int) -> None:
    server.run(lambda: setattr(server.scheduler, "limits", dataclasses.replace(Limits(), **limits)))


def create(server: RunningServer, spec: job_pb2.JobSpec, **fields: Any) -> job_pb2.Job:
    return server.jobs.CreateJob(api.CreateJobRequest(spec=spec, **fields), timeout=TIMEOUT_S).job


def refused(server: RunningServer, spec: job_pb2.JobSpec, **fields: Any) -> str:
    """What a refused CreateJob says, in its QuotaFailure."""
    with pytest.raises(grpc.RpcError) as caught:
        create(server, spec, **fields)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    info, failure = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    details = rpc_status.from_call(caught.value).details
    assert details[0].Unpack(info)
    assert details[1].Unpack(failure)
    assert info.reason == "LIMIT_EXCEEDED"
    return failure.violations[0].description


def test_one_job_too_many_that_has_not_ended_is_refused(server: RunningServer) -> None:
    limit(server, max_active_jobs=2)
    first = create(server, regression_spec(), request_id="one")
    second = create(server, regression_spec())
    message = refused(server, regression_spec())
    assert "2 jobs have not ended" in message
    assert "--max-active-jobs (CHAINRULE_MAX_ACTIVE_JOBS)" in message
    # A retry makes no job, and paused is not ended.
    assert create(server, regression_spec(), request_id="one").job_id == first.job_id
    server.jobs.PauseJob(api.PauseJobRequest(job_id=second.job_id), timeout=TIMEOUT_S)
    refused(server, regression_spec())
    server.jobs.CancelJob(api.CancelJobRequest(job_id=second.job_id), timeout=TIMEOUT_S)
    create(server, regression_spec())


def test_jobs_that_ended_count_until_they_are_deleted(server: RunningServer) -> None:
    limit(server, max_jobs=1)
    job = create(server, regression_spec())
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    message = refused(server, regression_spec())
    assert "chainrule delete" in message
    assert "--max-jobs (CHAINRULE_MAX_JOBS)" in message
    server.jobs.DeleteJob(api.DeleteJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    create(server, regression_spec())


@pytest.mark.parametrize("validate_only", [False, True])
def test_too_many_parameters_are_refused_before_any_is_drawn(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, validate_only: bool
) -> None:
    draw = Mock()
    monkeypatch.setattr(prepared_job, "initialize", draw)
    spec = regression_spec()
    spec.model.parameters.add(name="V", shape=["30000", "30000"])
    message = refused(server, spec, validate_only=validate_only)
    assert "900000004 parameters" in message
    assert "--max-parameters (CHAINRULE_MAX_PARAMETERS)" in message
    draw.assert_not_called()


def test_too_many_features_are_refused_before_they_are_prepared(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(server, max_data_bytes=4 * 40 * 3)
    create(server, regression_spec())
    limit(server, max_data_bytes=4 * 40 * 3 - 1)
    lay_out = Mock()
    monkeypatch.setattr(prepare, "lay_out", lay_out)
    message = refused(server, regression_spec())
    assert "40 rows with 3 places in x take 480 bytes" in message
    assert "--max-data-bytes (CHAINRULE_MAX_DATA_BYTES)" in message
    lay_out.assert_not_called()


def test_a_message_that_is_too_long_is_refused_with_the_setting_and_one_far_too_long_unread(
    server: RunningServer,
) -> None:
    spec = regression_spec()
    spec.model.prediction += " " * (5 << 20)
    message = refused(server, spec)
    assert "--max-message-bytes (CHAINRULE_MAX_MESSAGE_BYTES)" in message
    spec.model.prediction += " " * (20 << 20)
    with pytest.raises(grpc.RpcError) as caught:
        create(server, spec)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    # gRPC answers that one, in its own words; our clients say what they mean.
    with Client(server.address) as client, pytest.raises(ServerError) as refusal:
        client.create_job(spec)
    assert "reads none of more than 16777216" in str(refusal.value)
    assert "--max-message-bytes (CHAINRULE_MAX_MESSAGE_BYTES)" in str(refusal.value)
    assert refusal.value.reason == "LIMIT_EXCEEDED"


def test_an_answer_that_is_longer_than_a_client_takes_is_its_own_limit(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = regression_spec()
    spec.model.prediction += " " * 9000
    job = create(server, spec)
    monkeypatch.setattr(
        "chainrule.client.blocking.client.channel_options", lambda **_: [("grpc.max_receive_message_length", 5000)]
    )
    with (
        Client(server.address) as client,
        pytest.raises(ServerError, match="and this client takes 5000; ask") as caught,
    ):
        client.get_job(job.job_id)
    assert caught.value.reason == "LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    ("limits", "field", "reason"),
    [
        ({"max_parameters": 1}, "model.parameters", "LIMIT_EXCEEDED"),
        ({"max_data_bytes": 10}, "data", "LIMIT_EXCEEDED"),
        ({}, "model.parameters", "OUT_OF_MEMORY"),
    ],
)
def test_a_job_that_asks_for_too_much_is_wrong_input_and_no_failed_server(
    server: RunningServer, limits: dict[str, int], field: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(server, **limits)
    if reason == "OUT_OF_MEMORY":
        monkeypatch.setattr(job_memory, "available_memory_bytes", lambda: 1)
    with Client(server.address) as client, pytest.raises(InvalidJob) as caught:
        client.create_job(regression_spec())
    assert [path for path, _ in caught.value.violations] == [field]
    assert caught.value.reason == reason
    assert CommandFailed.of(caught.value).code == WRONG_INPUT
    assert "failed" not in str(caught.value)


def test_a_server_that_has_too_many_jobs_is_no_wrong_input(server: RunningServer) -> None:
    limit(server, max_active_jobs=1)
    create(server, regression_spec())
    with Client(server.address) as client, pytest.raises(ServerError) as caught:
        client.create_job(regression_spec())
    assert CommandFailed.of(caught.value).code == FAILED


def parsed(*options: str, **environment: str) -> Limits:
    parser = argparse.ArgumentParser()
    add_limit_options(parser, environment)
    return limits_of(parser.parse_args(options))


def test_an_option_comes_before_the_environment_and_that_before_the_default() -> None:
    assert parsed() == Limits()
    assert parsed(CHAINRULE_MAX_JOBS="7") == dataclasses.replace(Limits(), max_jobs=7)
    assert parsed("--max-jobs", "9", CHAINRULE_MAX_JOBS="7") == dataclasses.replace(Limits(), max_jobs=9)


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Limits)])
def test_a_limit_that_lets_nothing_through_is_refused_by_name(name: str) -> None:
    variable = f"CHAINRULE_{name.upper()}"
    with pytest.raises(ValueError, match=variable):
        parsed(**{variable: "0"})


def test_a_limit_that_is_no_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(CHAINRULE_MAX_JOBS="many")
    assert "--max-jobs: invalid int value: 'many'" in capsys.readouterr().err


def test_the_command_has_every_limit_of_the_server() -> None:
    from chainrule.cli.app import command_of

    known = {option for parameter in command_of("server").params for option in parameter.opts}
    assert {f"--{each.name.replace('_', '-')}" for each in dataclasses.fields(Limits)} <= known
