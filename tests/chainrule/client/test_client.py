"""The client against a small server in the same process."""

from __future__ import annotations

import os
import socket
import stat
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

import chainrule
from chainrule.client.channel import checked_address
from chainrule.errors import (
    AddressError,
    InvalidJob,
    JobNotFound,
    ModelFileError,
    PreconditionFailed,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
)
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api


def test_an_invalid_job_brings_every_wrong_field(connect: Any, fake_server: Any) -> None:
    violations = [("training.epochs", "must be at least 1"), ("data.uri", "is missing")]
    request = error_details_pb2.BadRequest()
    for path, message in violations:
        request.field_violations.add(field=path, description=message)
    fake_server.fail(grpc.StatusCode.INVALID_ARGUMENT, "two problems", request)
    with connect(fake_server.address) as client, pytest.raises(InvalidJob) as caught:
        client.create_job(job_pb2.JobSpec())
    assert caught.value.violations == violations
    assert caught.value.problems == violations


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidJob),
        (grpc.StatusCode.NOT_FOUND, JobNotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, PreconditionFailed),
        (grpc.StatusCode.UNAVAILABLE, ServerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ServerTimeout),
        (grpc.StatusCode.INTERNAL, ServerError),
        (grpc.StatusCode.UNIMPLEMENTED, ServerError),
    ],
)
def test_each_status_is_one_type_of_error_from_every_call(
    client_of: Any, fake_server: Any, tmp_path: Path, code: grpc.StatusCode, kind: type[ServerError]
) -> None:
    fake_server.fail(code, "what happened", error_details_pb2.ErrorInfo(reason="WHY", domain="chainrule"))
    with client_of(fake_server.address) as client:
        calls = [
            lambda: client.create_job(job_pb2.JobSpec()),
            lambda: client.get_job("abcd"),
            client.list_jobs,
            lambda: list(client.watch_job("abcd")),
            lambda: client.cancel_job("abcd"),
            lambda: client.download_model("abcd", tmp_path / "model"),
        ]
        for call in calls:
            with pytest.raises(ServerError) as caught:
                call()
            assert type(caught.value) is kind
            if code != grpc.StatusCode.UNIMPLEMENTED:
                assert caught.value.reason == "WHY"
    assert list(tmp_path.iterdir()) == []


def test_the_message_of_the_server_is_the_message_of_the_error(client_of: Any, fake_server: Any) -> None:
    fake_server.fail(grpc.StatusCode.NOT_FOUND, "there is no job 'abcd'")
    with client_of(fake_server.address) as client, pytest.raises(JobNotFound) as caught:
        client.get_job("abcd")
    assert str(caught.value) == "there is no job 'abcd'"


def test_a_server_that_is_not_there_is_named_with_its_address(client_of: Any) -> None:
    with socket.socket() as bound:
        # Bound but not listening: the port stays free of servers, and connections are refused.
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with client_of(address) as client, pytest.raises(ServerUnavailable) as caught:
            client.list_jobs()
    message = str(caught.value)
    assert message.startswith(f"no chainrule server answers at {address} (")
    assert message.endswith("start one with 'chainrule server' or name another")


def test_a_server_that_says_nothing_is_given_up_after_the_timeout(client_of: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with client_of(address, timeout_s=0.3) as client, pytest.raises(ServerTimeout) as caught:
            client.list_jobs()
    assert str(caught.value).startswith(f"the server at {address} didn't answer within 0.3 s")


def test_a_proxy_is_not_asked_for_a_server_on_this_machine(
    client_of: Any, fake_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with client_of(fake_server.address) as client:
        assert client.get_job("abcd").job_id == fake_server.job.job_id


def test_watching_tells_each_state_until_the_last(client_of: Any, fake_server: Any) -> None:
    fake_server.states = [job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_SUCCEEDED]
    with client_of(fake_server.address) as client:
        assert [job.state for job in client.watch_job("abcd")] == fake_server.states


def update(state: job_pb2.JobState, *events: job_pb2.JobState, last_event: int) -> api.WatchJobResponse:
    """The job in a state, with events that it came into others; the last of them has the number last_event."""
    response = api.WatchJobResponse(job=job_pb2.Job(job_id="abcdef012345", state=state), last_event=last_event)
    for number, event in enumerate(events, start=last_event - len(events) + 1):
        response.events.add(number=number).state_changed.state = event
    return response


QUEUED, RUNNING, SUCCEEDED = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_SUCCEEDED


def test_a_watcher_that_lost_its_server_is_told_the_states_that_passed_meanwhile(
    client_of: Any, fake_server: Any
) -> None:
    fake_server.updates = [[update(QUEUED, last_event=1)], [], [update(SUCCEEDED, RUNNING, SUCCEEDED, last_event=3)]]
    with client_of(fake_server.address) as client:
        jobs = list(client.watch_job("abcd"))
    assert [job.state for job in jobs] == [QUEUED, RUNNING, SUCCEEDED]
    first, *again = fake_server.watched
    assert not first.HasField("after_event")
    assert [(request.job_id, request.after_event) for request in again] == [("abcdef012345", 1)] * 2


def test_a_watcher_is_told_no_event_twice(client_of: Any, fake_server: Any) -> None:
    fake_server.updates = [
        [update(QUEUED, QUEUED, last_event=1), update(RUNNING, RUNNING, last_event=2)],
        [update(SUCCEEDED, SUCCEEDED, last_event=3)],
    ]
    losses: list[str] = []
    with client_of(fake_server.address) as client:
        updates = list(client.watch_updates("abcd", after_event=0, lost=lambda error: losses.append(str(error))))
    assert [event.number for each in updates for event in each.events] == [1, 2, 3]
    assert [request.after_event for request in fake_server.watched] == [0, 2]
    assert len(losses) == 1


def test_a_watcher_gives_up_a_server_that_stays_away(client_of: Any, fake_server: Any) -> None:
    fake_server.updates = [[update(QUEUED, last_event=1)], *([[]] * 100)]
    with client_of(fake_server.address) as client, pytest.raises(ServerUnavailable):
        list(client.watch_job("abcd", reconnect_timeout_s=0.5))
    assert len(fake_server.watched) > 1


def test_a_request_id_goes_along_with_every_job(client_of: Any, fake_server: Any) -> None:
    with client_of(fake_server.address) as client:
        client.create_job(job_pb2.JobSpec(), request_id="one")
        client.create_job(job_pb2.JobSpec())
    assert fake_server.request_ids[0] == "one"
    assert len(uuid.UUID(fake_server.request_ids[1]).hex) == 32


def test_a_model_replaces_the_file_and_leaves_nothing_else(client_of: Any, fake_server: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"the old one")
    with client_of(fake_server.address) as client:
        assert client.download_model("abcd", path) == path
    assert path.read_bytes() == b"model"
    assert list(path.parent.iterdir()) == [path]


def test_a_model_makes_no_folder_but_that_of_all_models(
    client_of: Any, fake_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with client_of(fake_server.address) as client:
        with pytest.raises(ModelFileError, match="there is no folder nowhere; make it or name another"):
            client.download_model("abcd", "nowhere/model.safetensors")
        client.download_model("abcd", "models/model.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "models"]


def test_a_model_has_the_permissions_that_the_umask_leaves(client_of: Any, fake_server: Any, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with client_of(fake_server.address) as client:
            path = client.download_model("abcd", tmp_path / "model")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_download_that_breaks_leaves_the_old_file(client_of: Any, fake_server: Any, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"the old one")
    fake_server.fail(grpc.StatusCode.INTERNAL, "a broken disk")
    fake_server.fails_after = 1
    with client_of(fake_server.address) as client, pytest.raises(ServerError, match="a broken disk"):
        client.download_model("abcd", path)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_never_replaced_by_a_model(client_of: Any, fake_server: Any) -> None:
    with client_of(fake_server.address) as client, pytest.raises(ModelFileError, match="is not a file"):
        client.download_model("abcd", "/dev/null")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("address", ["127.0.0.1:50051", "localhost:1", "[::1]:65535", "server_1.example.org:80"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    assert checked_address(address) == address


@pytest.mark.parametrize("address", ["", "foo", "foo:", ":5", "foo:0", "foo:65536", "::1:5", "http://foo:5", "a b:5"])
def test_anything_else_is_no_address(address: str) -> None:
    with pytest.raises(AddressError, match="write HOST:PORT"):
        checked_address(address)


def test_every_public_name_is_there() -> None:
    for name in chainrule.__all__:
        assert getattr(chainrule, name).__name__.removeprefix("chainrule.") == name
    with pytest.raises(AttributeError):
        _ = chainrule.nosuch


def test_every_public_error_is_public_in_the_package() -> None:
    from chainrule import errors

    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert {name for name in kinds if not name.startswith("_")} <= set(chainrule.__all__)
