"""DataService over a real socket."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import grpc
import pytest

from chainrule.v1 import data_service_pb2 as api
from chainrule.v1 import job_pb2, job_service_pb2
from chainrule_server.api import data_service
from tests.server.in_process import RunningServer, refusal, upload

TIMEOUT_S = 60.0
CONTENT = b"a,b,target\n" + b"".join(b"%d,%d,%d\n" % (number, number % 7, 3 * number) for number in range(40))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def table_spec(uri: str = "dataset:rows.csv") -> job_pb2.JobSpec:
    spec = job_pb2.JobSpec(name="table")
    spec.model.loss = "(w @ x - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.data.uri = uri
    spec.data.target = "target"
    spec.training.epochs = 1
    spec.training.batch_size = 8
    return spec


def create(server: RunningServer, spec: job_pb2.JobSpec) -> job_pb2.Job:
    response: job_service_pb2.CreateJobResponse = server.jobs.CreateJob(
        job_service_pb2.CreateJobRequest(spec=spec), timeout=TIMEOUT_S
    )
    return response.job


def parts(sha256: str, *contents: bytes) -> Iterator[api.AppendUploadRequest]:
    offset = 0
    for content in contents:
        yield api.AppendUploadRequest(sha256=sha256, offset=offset, content=content)
        offset += len(content)


def test_a_job_trains_on_an_uploaded_data_set_by_its_name_and_keeps_its_hash(server: RunningServer) -> None:
    data_set = upload(server, "rows.csv", CONTENT)
    assert (data_set.sha256, data_set.size_bytes, list(data_set.names)) == (SHA256, len(CONTENT), ["rows.csv"])
    assert abs(data_set.create_time.ToDatetime().year - 2020) < 100
    job = create(server, table_spec())
    assert job.spec.data.uri == f"dataset:{SHA256}"
    upload(server, "rows.csv", CONTENT + b"1,2,3\n")
    assert create(server, table_spec()).spec.data.uri != job.spec.data.uri
    assert create(server, table_spec(f"dataset:{SHA256[:10]}")).spec.data.uri == job.spec.data.uri
    code, violations, _ = refusal(lambda: create(server, table_spec("dataset:none.csv")))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "there is no data set 'none.csv'" in violations["data.uri"]


def test_a_data_set_is_kept_while_a_job_that_has_not_ended_needs_it(server: RunningServer) -> None:
    upload(server, "rows.csv", CONTENT)
    job = create(server, table_spec())
    delete = api.DeleteDataSetRequest(data_set="rows.csv")
    code, _, reason = refusal(lambda: server.data.DeleteDataSet(delete, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    assert server.data.DeleteDataSet(delete, timeout=TIMEOUT_S).sha256 == SHA256
    code, _, _ = refusal(lambda: server.data.DeleteDataSet(delete, timeout=TIMEOUT_S))
    assert code == grpc.StatusCode.NOT_FOUND


def test_a_stream_that_breaks_keeps_the_parts_that_came(server: RunningServer) -> None:
    begin = api.BeginUploadRequest(sha256=SHA256, size_bytes=len(CONTENT), name="rows.csv")
    assert server.data.BeginUpload(begin, timeout=TIMEOUT_S).received_bytes == 0
    code, violations, _ = refusal(
        lambda: server.data.AppendUpload(
            iter([*parts(SHA256, CONTENT[:100]), *parts("0" * 64, b"x")]), timeout=TIMEOUT_S
        )
    )
    assert (code, list(violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["sha256"])
    assert server.data.BeginUpload(begin, timeout=TIMEOUT_S).received_bytes == 100
    code, _, _ = refusal(lambda: server.data.FinishUpload(api.FinishUploadRequest(sha256=SHA256), timeout=TIMEOUT_S))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    received = server.data.AppendUpload(parts(SHA256, CONTENT[:200], CONTENT[200:]), timeout=TIMEOUT_S).received_bytes
    assert received == len(CONTENT)
    assert server.data.CancelUpload(api.CancelUploadRequest(sha256=SHA256), timeout=TIMEOUT_S).sha256 == SHA256
    code, _, _ = refusal(lambda: server.data.AppendUpload(parts(SHA256, CONTENT), timeout=TIMEOUT_S))
    assert code == grpc.StatusCode.NOT_FOUND


def test_a_stream_that_brings_nothing_is_ended_with_what_to_do(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_service, "PART_TIMEOUT_S", 0.1)
    call = server.channel.stream_unary("/chainrule.v1.DataService/AppendUpload")

    def silent() -> Iterator[bytes]:
        ended.wait(TIMEOUT_S)
        yield b""

    ended = threading.Event()
    code, _, _ = refusal(lambda: call(silent(), timeout=TIMEOUT_S))
    ended.set()
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    code, _, _ = refusal(lambda: server.data.AppendUpload(iter(()), timeout=TIMEOUT_S))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


def test_data_sets_are_listed_in_pages_the_latest_first(server: RunningServer) -> None:
    for number in range(5):
        upload(server, f"{'even' if number % 2 == 0 else 'odd'}-{number}.csv", b"%d" % number)

    def listed(**fields: object) -> list[str]:
        names = []
        request = api.ListDataSetsRequest(page_size=2, **fields)  # type: ignore[arg-type]
        while True:
            response = server.data.ListDataSets(request, timeout=TIMEOUT_S)
            assert len(response.data_sets) <= 2
            names += [data_set.names[-1] for data_set in response.data_sets]
            if not response.next_page_token:
                return names
            request.page_token = response.next_page_token

    assert listed() == ["even-4.csv", "odd-3.csv", "even-2.csv", "odd-1.csv", "even-0.csv"]
    assert listed(name_prefix="even") == ["even-4.csv", "even-2.csv", "even-0.csv"]
    first = server.data.ListDataSets(api.ListDataSetsRequest(page_size=1), timeout=TIMEOUT_S)
    other = api.ListDataSetsRequest(page_size=1, page_token=first.next_page_token, name_prefix="odd")
    code, violations, _ = refusal(lambda: server.data.ListDataSets(other, timeout=TIMEOUT_S))
    assert (code, list(violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])
    get = api.GetDataSetRequest(data_set="odd-1.csv")
    assert server.data.GetDataSet(get, timeout=TIMEOUT_S).data_set.names == ["odd-1.csv"]
