"""What workers say is short wherever it goes, and nobody fills a job's events: who watches is told them in pieces."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.transport.wire_codec import open_train
from chainrule.v1 import cluster_service_pb2, cluster_service_pb2_grpc, job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_server.jobs import worker_sharing
from chainrule_server.jobs.job import Job
from chainrule_server.workers.departure import Departure
from chainrule_server.workers.hello import LONGEST_NAME_BYTES, LONGEST_TEXT_BYTES, bounded, short
from tests.server.in_process import RunningServer, prepared, regression_spec

TIMEOUT_S = 60.0
MIB = 1 << 20
LONG = "\x1b[2J\u202e" + "long " * (3 * MIB // 5)
EVENTS = 5000


@given(st.text(), st.integers(4, 40))
def test_a_short_text_is_printable_and_within_its_bytes(text: str, size_bytes: int) -> None:
    found = short(text, size_bytes)
    assert len(found.encode()) <= size_bytes
    assert found.isprintable()
    if text.isprintable() and text.isascii() and len(text) <= size_bytes and text == text.strip():
        assert found == text


def test_whatever_a_worker_says_of_itself_is_short() -> None:
    found = bounded(pb.Hello(**{f.name: LONG for f in pb.Hello.DESCRIPTOR.fields if f.type == f.TYPE_STRING}))
    for field, value in found.ListFields():
        assert len(value.encode()) <= (LONGEST_NAME_BYTES if field.name == "name" else LONGEST_TEXT_BYTES), field.name
    assert bounded(pb.Hello(name=" \n")).name == "worker"


@pytest.fixture
def join(server: RunningServer) -> Iterator[Callable[[str], tuple[str, Callable[[pb.TrainRequest], None]]]]:
    """Join as a worker; its name, and what says something as that worker."""
    with ExitStack() as stack:

        def joined(name: str) -> tuple[str, Callable[[pb.TrainRequest], None]]:
            requests: queue.SimpleQueue[pb.TrainRequest | None] = queue.SimpleQueue()
            call = open_train(server.channel)(iter(requests.get, None), timeout=TIMEOUT_S)
            stack.callback(requests.put, None)
            stack.callback(call.cancel)
            requests.put(pb.TrainRequest(hello=pb.Hello(name=name, blas=LONG[: MIB // 2])))
            welcome = next(call)
            return welcome.welcome.name, requests.put

        yield joined


def events_of(server: RunningServer, job: Job) -> list[api.WatchJobResponse]:
    """What a watcher is told until the job has ended."""
    found = []
    call = server.jobs.WatchJob(api.WatchJobRequest(job_id=job.job_id, after_event=0), timeout=TIMEOUT_S)
    for response in call:
        found.append(response)
        if response.job.state in (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED):
            break
    call.cancel()
    return found


def test_long_names_and_reports_are_short_in_lists_and_events(
    server: RunningServer, join: Callable[[str], tuple[str, Callable[[pb.TrainRequest], None]]]
) -> None:
    job = server.submit(prepared(regression_spec()))
    name, say = join(LONG)
    assert len(name.encode()) <= LONGEST_NAME_BYTES
    cluster = cluster_service_pb2_grpc.ClusterServiceStub(server.channel)
    listed = cluster.ListWorkers(cluster_service_pb2.ListWorkersRequest(), timeout=TIMEOUT_S)
    assert listed.ByteSize() < 4096
    say(pb.TrainRequest(goodbye=pb.Goodbye(reason=LONG)))
    while server.run(lambda: server.scheduler.workers.joined):
        pass
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    assert sum(response.ByteSize() for response in events_of(server, job)) < 32_768


def test_a_report_that_is_repeated_is_one_event(
    server: RunningServer, join: Callable[[str], tuple[str, Callable[[pb.TrainRequest], None]]]
) -> None:
    job = server.submit(prepared(regression_spec()))
    name, _ = join("w")
    while not server.run(lambda: job.training is not None and name in job.training.workers):
        pass
    cluster = cluster_service_pb2_grpc.ClusterServiceStub(server.channel)
    for _ in range(20):
        cluster.ReportWorkerEnd(
            cluster_service_pb2.ReportWorkerEndRequest(worker=name, details=LONG), timeout=TIMEOUT_S
        )
    with pytest.raises(grpc.RpcError) as caught:
        cluster.ReportWorkerEnd(
            cluster_service_pb2.ReportWorkerEndRequest(worker="nobody", details="x"), timeout=TIMEOUT_S
        )
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    lost = [e for r in events_of(server, job) for e in r.events if e.HasField("worker_lost")]
    assert len([e for e in lost if e.worker_lost.reason == job_pb2.LOSS_REASON_PROCESS_ENDED]) == 1


def test_however_often_workers_come_and_go_a_job_keeps_only_so_many_events(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_sharing, "MOST_WORKER_EVENTS", 10)
    lost = Departure(job_pb2.LOSS_REASON_FAILED, "x")
    job = server.submit(prepared(regression_spec()))
    for _ in range(20):
        server.run(lambda: server.scheduler.sharing._note(job.job_id, lost.event("w")))
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    told = [event for response in events_of(server, job) for event in response.events]
    assert len([event for event in told if event.HasField("worker_lost")]) == 10
    # What the job itself passes is told all the same.
    assert told[-1].state_changed.state == job_pb2.JOB_STATE_CANCELLED


def test_many_events_are_told_in_pieces_and_the_end_with_the_last(server: RunningServer) -> None:
    job = server.submit(prepared(regression_spec()))
    lost = Departure(job_pb2.LOSS_REASON_FAILED, "x" * 900)

    def note() -> None:
        for _ in range(EVENTS):
            server.scheduler.archive.journal.append_event(job.job_id, lost.event("w"))

    server.run(note)
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    told = events_of(server, job)
    numbers = [event.number for response in told for event in response.events]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > EVENTS
    assert len(told) > 4
    assert max(response.ByteSize() for response in told) < 2 * MIB
    assert all(not response.job.HasField("end_time") for response in told[:-1])
    assert told[-1].job.state == job_pb2.JOB_STATE_CANCELLED
