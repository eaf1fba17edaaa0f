"""The connection for people, against a small server in the same process."""

from __future__ import annotations

import _thread
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import chainrule
from chainrule.errors import JobCancelled, JobFailed, JobNotEnded, JobNotFound, ServerTimeout, ServerUnavailable
from chainrule.v1 import job_pb2, job_service_pb2_grpc
from tests.chainrule.conftest import FakeServer

FINISHED = job_pb2.JOB_STATE_SUCCEEDED


@pytest.fixture
def free_address() -> str:
    """An address at which nobody listens yet."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def test_a_connection_waits_for_a_server_that_is_being_started(client_of: Any, connect: Any, free_address: str) -> None:
    fake = FakeServer(address=free_address)
    with ThreadPoolExecutor(max_workers=2) as executor:
        server = grpc.server(executor)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(fake, server)

        def start() -> None:
            server.add_insecure_port(free_address)
            server.start()

        with client_of(free_address) as client, pytest.raises(ServerUnavailable):
            client.get_job("abcd")  # what the commands use answers at once
        timer = threading.Timer(0.6, start)
        timer.start()
        try:
            with connect(free_address) as connection:
                job = connection.submit(name="one")
        finally:
            timer.join()
            server.stop(0).wait()
    assert job.id == "abcdef012345"
    assert len(fake.request_ids) == 1
    assert uuid.UUID(fake.request_ids[0])


@pytest.mark.parametrize("states", [["bad"], "bad", [3]])
def test_a_state_that_there_is_not_is_refused(connect: Any, free_address: str, states: list[str]) -> None:
    with connect(free_address) as connection, pytest.raises(chainrule.ArgumentError, match="states: must be"):
        connection.jobs(states=states)


def test_the_deadline_of_a_call_ends_its_repeats_too(connect: Any, free_address: str) -> None:
    with (
        connect(free_address, timeout_s=0.5) as connection,
        pytest.raises(ServerTimeout, match=r"within 0\.5 s"),
    ):
        connection.job("abcd")


def test_a_job_is_waited_for_until_it_has_succeeded(connect: Any, fake_server: Any) -> None:
    fake_server.states = [job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING, FINISHED]
    fake_server.job.result.loss = 0.25
    fake_server.job.result.metrics.add(name="r2", value=0.5)
    with connect(fake_server.address) as client:
        job = client.submit(name="one")
        assert (job.state, job.has_ended) == ("UNSPECIFIED", False)
        assert job.wait() is job
        assert (job.state, job.has_ended) == ("SUCCEEDED", True)
        assert job.result.items() >= {"loss": 0.25, "r2": 0.5}.items()
        assert repr(job) == "<Job abcdef012345 (): succeeded>"
        fake_server.states = [job_pb2.JOB_STATE_RUNNING, FINISHED]
        assert [message.state for message in job.watch()] == [job_pb2.JOB_STATE_RUNNING, FINISHED]


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (job_pb2.JOB_STATE_FAILED, JobFailed, r"job abcdef012345 \(\) failed: NaN in step 3"),
        (job_pb2.JOB_STATE_CANCELLED, JobCancelled, "was cancelled after step 0"),
    ],
)
def test_a_job_that_ends_otherwise_is_an_error(
    connect: Any, fake_server: Any, state: Any, kind: Any, message: str
) -> None:
    fake_server.states = [state]
    fake_server.job.error.message = "NaN in step 3"
    with connect(fake_server.address) as client, pytest.raises(kind, match=message):
        client.job("abcd").wait()


def test_a_wait_ends_after_its_time(connect: Any, fake_server: Any) -> None:
    fake_server.states = [job_pb2.JOB_STATE_RUNNING]
    fake_server.hangs = True
    with (
        connect(fake_server.address) as client,
        pytest.raises(JobNotEnded, match=r"still running after 0\.3 s"),
    ):
        client.job("abcd").wait(timeout_s=0.3)


def test_a_watch_ends_with_its_connection(fake_server: Any) -> None:
    fake_server.states, fake_server.hangs = [job_pb2.JOB_STATE_RUNNING], True
    client = chainrule.connect(fake_server.address)
    # Not by the end of this time: a watch goes on through a lost connection for so long.
    watch = client.watch_job("abcd", reconnect_timeout_s=3600.0)
    next(watch)
    closing = threading.Timer(0.2, client.close)
    closing.start()
    with pytest.raises(ServerUnavailable):
        next(watch)
    closing.join()


@pytest.mark.parametrize("token", [None, "0123456789abcdef-token"])
def test_a_watch_that_is_left_and_a_wait_that_is_interrupted_cancel_their_calls(
    fake_server: Any, token: str | None
) -> None:
    fake_server.states, fake_server.hangs = [job_pb2.JOB_STATE_RUNNING], True
    # Ctrl-C goes there.
    assert threading.current_thread() is threading.main_thread()
    with chainrule.connect(fake_server.address, token=token) as client:
        job = client.job("abcd")
        for _ in job.watch():
            break
        interrupt = threading.Timer(0.3, _thread.interrupt_main)
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            job.wait()
        interrupt.join()
        # The connection is still there: the calls themselves were ended.
        while fake_server.ended < 2:
            time.sleep(0.02)


def test_jobs_are_found_by_state(connect: Any, fake_server: Any) -> None:
    with connect(fake_server.address) as client:
        assert [job.id for job in client.jobs(states=["running"])] == ["abcdef012345"]
        with pytest.raises(ValueError, match="got 'idle'"):
            client.jobs(states=["idle"])
        fake_server.fail(grpc.StatusCode.NOT_FOUND, "no job 'abcd'")
        with pytest.raises(JobNotFound):
            client.job("abcd")
