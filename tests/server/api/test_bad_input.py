"""Whatever a client sends to a method, the answer is a result or a status that it can act on: never our own failure."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chainrule.v1 import (
    cluster_service_pb2,
    data_service_pb2,
    job_pb2,
    job_service_pb2,
    model_service_pb2,
    worker_service_pb2,
)
from chainrule_server.jobs.job import Job
from tests.server.in_process import (
    RunningServer,
    add_data_sets,
    classes_spec,
    prepared,
    refusal,
    regression_spec,
    running_server,
    upload,
)
from tests.server.messages import Wanted, messages

TIMEOUT_S = 60.0
SERVICES = [
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (job_service_pb2, "JobService"),
        (data_service_pb2, "DataService"),
        (model_service_pb2, "ModelService"),
        (cluster_service_pb2, "ClusterService"),
        (worker_service_pb2, "WorkerService"),
    )
]
METHODS = {
    f"{service.name}/{method.name}": method
    for service in SERVICES
    for method in service.methods
    if not method.client_streaming
}
# What a caller can act on; INTERNAL, UNKNOWN and UNAVAILABLE aren't among it.
ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
}
DETAILS = (error_details_pb2.BadRequest, error_details_pb2.ErrorInfo, error_details_pb2.QuotaFailure)
FORMULAS = ["w @ x", "(w @ x - y)**2", "(prediction - y)**2", "sum(V @ x)", "w @", "(" * 300, "x ** y ** 1e9", "1/0"]
EXAMPLES = settings(
    max_examples=int(os.environ.get("CHAINRULE_FUZZ_EXAMPLES", "100")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass
class Tried:
    """A server with a job of each kind, and sensible values for fields by name."""

    server: RunningServer
    jobs: list[Job]
    data_set: data_service_pb2.DataSet

    @property
    def known(self) -> dict[str, list[Any]]:
        ids = [job.job_id for job in self.jobs]
        return {
            "job_id": ids,
            "spec": [regression_spec()],
            "loss": FORMULAS,
            "prediction": FORMULAS,
            "phi": ["sigmoid", "tanh", "relu"],
            "name": ["w", "V", "b", "sgd", "adam", "cosine", "job", "rows.csv", "rows.npz", ".csv", "a/b.csv"],
            "shape": ["d", "k", "1", "4", "99999999999", "-1"],
            "uri": ["test:regression", "test:classes", "file:../x.npz", "file:/etc/passwd", "dataset:rows.csv"],
            "sha256": [self.data_set.sha256, "0" * 64, "0" * 63],
            "data_set": [*self.data_set.names, self.data_set.sha256, self.data_set.sha256[:8], "0" * 64],
            "columns": ["a", "b", "c"],
            "rows": [row(1, 2, 3), row(1, 2), row("x", None, True)],
            "features": [row(1, 2, 3), row(1, 2)],
            "target": [struct_pb2.Value(number_value=1), struct_pb2.Value(string_value="red")],
            "string_value": ["red", "blue", "1"],
        }


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    with pytest.MonkeyPatch.context() as patch, running_server(tmp_path_factory.mktemp("server")) as server:
        add_data_sets(patch)
        without_prediction = regression_spec()
        without_prediction.model.prediction, without_prediction.model.loss = "", "(w @ x + b - y)**2"
        jobs = [server.add_finished(prepared(spec)) for spec in (regression_spec(), classes_spec(), without_prediction)]
        cancelled = server.submit(prepared(regression_spec()))
        server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=cancelled.job_id), timeout=TIMEOUT_S)
        yield Tried(server, [*jobs, cancelled], upload(server, "rows.csv", b"a,target\n1,2\n3,4\n"))


def row(*values: Any) -> struct_pb2.ListValue:
    found = struct_pb2.ListValue()
    found.extend(values)
    return found


def answered(server: RunningServer, method: MethodDescriptor, request: Message) -> grpc.RpcError | None:
    """Call a method; None, or the error that it ends with."""
    make = server.channel.unary_stream if method.server_streaming else server.channel.unary_unary
    call = make(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=lambda content: content,
    )
    try:
        if method.server_streaming:
            for _ in call(request, timeout=TIMEOUT_S):
                pass
        else:
            call(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return error
    return None


def check(error: grpc.RpcError | None) -> None:
    """Hold that an error can be acted on: its code, and details of the kind that the code promises."""
    if error is None:
        return
    assert error.code() in ALLOWED, f"{error.code()}: {error.details()}"
    kinds = set()
    for detail in rpc_status.from_call(error).details:
        assert any(detail.Is(kind.DESCRIPTOR) for kind in DETAILS)
        kinds.add(detail.type_url.rpartition(".")[2])
    assert "ErrorInfo" in kinds
    if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
        assert "BadRequest" in kinds


@pytest.mark.parametrize("name", METHODS)
def test_any_message_gets_an_answer_that_the_caller_can_act_on(tried: Tried, name: str) -> None:
    method = METHODS[name]

    @EXAMPLES
    @given(messages(Wanted(method.input_type, tried.known)))
    def holds(request: Message) -> None:
        if name == "JobService/CreateJob":
            # A job that is right would wait for workers, and watching it never end.
            request.validate_only = True  # type: ignore[attr-defined]
        check(answered(tried.server, method, request))

    holds()


@pytest.mark.parametrize("name", METHODS)
def test_any_bytes_get_an_answer_that_the_caller_can_act_on(tried: Tried, name: str) -> None:
    method = METHODS[name]

    class Raw:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def SerializeToString(self) -> bytes:  # noqa: N802
            return self.content

    @EXAMPLES
    @given(st.binary(max_size=60))
    def holds(content: bytes) -> None:
        if name == "JobService/CreateJob":
            content += b"\x18\x01"
        check(answered(tried.server, method, Raw(content)))  # type: ignore[arg-type]

    holds()


@EXAMPLES
@given(data=st.data())
def test_any_stream_of_parts_gets_an_answer_that_the_caller_can_act_on(tried: Tried, data: st.DataObject) -> None:
    parts = st.lists(messages(Wanted(data_service_pb2.AppendUploadRequest.DESCRIPTOR, tried.known)), max_size=3)
    try:
        tried.server.data.AppendUpload(iter(data.draw(parts)), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        check(error)


@EXAMPLES
@given(st.binary(max_size=60))
def test_any_stream_of_bytes_gets_an_answer_that_the_caller_can_act_on(tried: Tried, content: bytes) -> None:
    append = tried.server.channel.stream_unary("/chainrule.v1.DataService/AppendUpload")
    try:
        append(iter([content]), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        check(error)


@EXAMPLES
@given(data=st.data())
def test_a_job_with_a_field_or_two_gone_wrong_is_refused_or_right(tried: Tried, data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from([regression_spec, classes_spec]))()
    part = getattr(spec, data.draw(st.sampled_from(["model", "data", "training"])))
    drawn = data.draw(messages(Wanted(part.DESCRIPTOR, tried.known)))
    kept = data.draw(st.lists(st.sampled_from(sorted(part.DESCRIPTOR.fields_by_name)), min_size=1, max_size=2))
    for field, value in drawn.ListFields():
        if field.name in kept:
            part.ClearField(field.name)
            if field.message_type is None and not field.is_repeated:
                setattr(part, field.name, value)
            else:
                getattr(part, field.name).MergeFrom(value)
    request = job_service_pb2.CreateJobRequest(spec=spec, validate_only=True)
    check(answered(tried.server, METHODS["JobService/CreateJob"], request))


def test_a_deadline_that_passes_ends_the_call_and_the_work(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    from chainrule_server.api import model_service
    from chainrule_server.models.cancellation import Stop, Stopped

    ended = []

    def slow(trained: Any, request: Any, stop: Stop) -> Any:
        try:
            for _ in range(10_000):
                time.sleep(0.01)
                stop.check()
        except Stopped:
            ended.append("stopped")
            raise

    monkeypatch.setattr(model_service, "predict", slow)
    request = model_service_pb2.PredictRequest(job_id=tried.jobs[0].job_id)
    with pytest.raises(grpc.RpcError) as caught:
        tried.server.models.Predict(request, timeout=0.3)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: len(ended) == 1)
    call = tried.server.models.Predict.future(request, timeout=TIMEOUT_S)
    time.sleep(0.1)
    call.cancel()
    wait_until(lambda: len(ended) == 2)


def test_memory_that_is_not_there_is_said(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(spec: job_pb2.JobSpec, **arguments: Any) -> Any:
        raise MemoryError("Unable to allocate 8.00 GiB")

    monkeypatch.setattr(tried.server.scheduler.archive, "prepare", too_large)
    request = job_service_pb2.CreateJobRequest(spec=regression_spec())
    code, _, reason = refusal(lambda: tried.server.jobs.CreateJob(request, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY")


def test_a_create_that_is_cancelled_makes_no_job(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def slow(spec: job_pb2.JobSpec, **arguments: Any) -> Any:
        begun.append(spec)
        time.sleep(0.5)
        return prepared(spec)

    monkeypatch.setattr(tried.server.scheduler.archive, "prepare", slow)
    before = len(tried.server.run(tried.server.scheduler.jobs.all))
    request = job_service_pb2.CreateJobRequest(spec=regression_spec())
    with pytest.raises(grpc.RpcError) as caught:
        tried.server.jobs.CreateJob(request, timeout=0.2)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(begun) == 1
    time.sleep(0.8)
    assert len(tried.server.run(tried.server.scheduler.jobs.all)) == before


def wait_until(holds: Any, *, timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
