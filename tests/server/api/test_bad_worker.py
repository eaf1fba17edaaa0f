"""Whatever a worker sends on its stream, or a tool to health and reflection, nothing of the server's own breaks."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chainrule.v1 import worker_service_pb2 as pb
from tests.server.in_process import RunningServer, add_data_sets, prepared, regression_spec, running_server
from tests.server.messages import Wanted, messages

TIMEOUT_S = 60.0
ALLOWED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}
EXAMPLES = settings(
    max_examples=int(os.environ.get("CHAINRULE_FUZZ_EXAMPLES", "100")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


class KeptErrors(logging.Handler):
    """What the server logs of errors of its own."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.getMessage()}: {record.exc_info}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with pytest.MonkeyPatch.context() as patch, running_server(tmp_path_factory.mktemp("server")) as running:
        add_data_sets(patch)
        kept = KeptErrors(logging.ERROR)
        logging.getLogger("server").addHandler(kept)
        yield running
        logging.getLogger("server").removeHandler(kept)
    assert kept.messages == []


def running_job(server: RunningServer) -> str:
    """The id of a job that runs, or would with a worker: a new one where a worker's messages have ended the last."""
    for job in server.run(server.scheduler.jobs.all):
        if not job.is_final and not job.life.is_over:
            return job.job_id
    return server.submit(prepared(regression_spec())).job_id


def train(server: RunningServer, requests: list[bytes]) -> grpc.StatusCode:
    """Send these as a worker's stream and end it; the status of the call."""
    call = server.channel.stream_stream(
        "/chainrule.v1.WorkerService/Train", request_serializer=None, response_deserializer=None
    )(iter(requests), timeout=TIMEOUT_S)
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@EXAMPLES
@given(data=st.data())
def test_a_worker_that_talks_nonsense_is_refused_and_the_server_goes_on(
    server: RunningServer, data: st.DataObject
) -> None:
    known = {"job_id": [running_job(server)], "name": ["worker"]}
    requests = [pb.TrainRequest(hello=pb.Hello(name="worker"))] if data.draw(st.booleans()) else []
    for _ in range(data.draw(st.integers(0, 5))):
        request = data.draw(messages(Wanted(pb.TrainRequest.DESCRIPTOR, known)))
        part = getattr(request, request.WhichOneof("message") or "hello")
        for name in ("generation", "order"):
            if name in part.DESCRIPTOR.fields_by_name and data.draw(st.booleans()):
                setattr(part, name, data.draw(st.integers(1, 3)))
        requests.append(request)
    code = train(server, [request.SerializeToString() for request in requests])
    assert code in ALLOWED | {grpc.StatusCode.OK}


@EXAMPLES
@given(requests=st.lists(st.binary(max_size=40), max_size=3), greeted=st.booleans())
def test_a_worker_that_sends_any_bytes_is_refused_and_the_server_goes_on(
    server: RunningServer, requests: list[bytes], greeted: bool
) -> None:
    hello = pb.TrainRequest(hello=pb.Hello(name="worker")).SerializeToString()
    code = train(server, [hello, *requests] if greeted else requests)
    assert code in ALLOWED | {grpc.StatusCode.OK}


@EXAMPLES
@given(messages(Wanted(reflection_pb2.ServerReflectionRequest.DESCRIPTOR, {})))
def test_reflection_answers_any_question(server: RunningServer, request: Any) -> None:
    call = server.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = call(iter([request]), timeout=TIMEOUT_S)
    assert answer.WhichOneof("message_response") is not None


@EXAMPLES
@given(messages(Wanted(health_pb2.HealthCheckRequest.DESCRIPTOR, {"service": ["", "chainrule.v1.JobService"]})))
def test_health_answers_any_question(server: RunningServer, request: Any) -> None:
    call = server.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    if request.service in ("", "chainrule.v1.JobService"):
        assert call(request, timeout=TIMEOUT_S).status == health_pb2.HealthCheckResponse.SERVING
    else:
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=TIMEOUT_S)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
