"""Whoever talks to the server badly is refused with the right code and costs it little; the job ends with its bits."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest

from chainrule.client.blocking.client import Client
from chainrule.transport.wire_codec import open_train
from chainrule.v1 import job_pb2, job_service_pb2_grpc, model_pb2, worker_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_server.access.connection_limits import MAX_CONNECTIONS, MIN_CONNECTIONS, connection_limit
from chainrule_server.api.job_service import JobService
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.jobs.submission import Submission
from tests.plain_workers import train_with_plain_workers
from tests.server.attacked import CONNECTIONS, DESCRIPTORS, Attacked, ended, spec
from tests.server.in_process import RunningServer, add_data_sets, prepared, refusal, regression_spec

TIMEOUT_S = 60.0
MIB = 1 << 20


def test_connections_leave_the_server_descriptors_of_its_own() -> None:
    assert connection_limit(DESCRIPTORS) == CONNECTIONS
    assert connection_limit(100) == MIN_CONNECTIONS
    assert connection_limit(1 << 20) == MAX_CONNECTIONS


# A worker's rows


@dataclass
class Peer:
    """A worker that the test plays."""

    call: Any
    welcome: pb.Welcome
    assignment: pb.Assignment

    @classmethod
    def join(cls, server: RunningServer, send: Callable[[pb.TrainRequest], None], requests: Iterator[Any]) -> Peer:
        call = open_train(server.channel)(requests, timeout=TIMEOUT_S)
        send(pb.TrainRequest(hello=pb.Hello(name="peer")))
        welcome = next(call).welcome
        assignment = next(call).assignment
        return cls(call, welcome, assignment)


@contextmanager
def peer(server: RunningServer) -> Iterator[tuple[Peer, Callable[[pb.TrainRequest], None]]]:
    import queue

    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    found = Peer.join(server, requests.put, iter(requests.get, None))
    try:
        yield found, requests.put
    finally:
        requests.put(None)
        found.call.cancel()


def test_a_worker_reads_the_shards_that_it_was_given_and_nobody_else_any(server: RunningServer) -> None:
    job = server.submit(prepared(regression_spec()))
    stub = worker_service_pb2_grpc.WorkerServiceStub(server.channel)

    def read(session: bytes, shard: int = 0, job_id: str = job.job_id) -> list[pb.ReadShardResponse]:
        request = pb.ReadShardRequest(job_id=job_id, shard=shard, session=session)
        return list(stub.ReadShard(request, timeout=TIMEOUT_S))

    with peer(server) as (first, _), peer(server) as (second, _):
        # With the second, each has one of the two shards.
        shards = {}
        for each in (first, second):
            assignment = each.assignment
            while assignment.shard_count != 1:
                assignment = next(each.call).assignment
            shards[each.welcome.session] = assignment.first_shard
        assert sorted(shards.values()) == [0, 1]
        for session, shard in shards.items():
            assert sum(response.row_count for response in read(session, shard)) == 16
            assert refusal(lambda: read(session, 1 - shard))[0] == grpc.StatusCode.PERMISSION_DENIED  # noqa: B023
            assert refusal(lambda: read(session, 2))[0] == grpc.StatusCode.OUT_OF_RANGE  # noqa: B023
            assert refusal(lambda: read(session, shard, "none"))[0] == grpc.StatusCode.NOT_FOUND  # noqa: B023
        for stranger in (b"", b"\0" * 16, next(iter(shards)) + b"\0"):
            assert refusal(lambda: read(stranger))[0] == grpc.StatusCode.PERMISSION_DENIED  # noqa: B023
    with pytest.raises(grpc.RpcError):
        next(first.call)
    deadline_s = time.monotonic() + TIMEOUT_S
    while refusal(lambda: read(first.welcome.session))[0] != grpc.StatusCode.PERMISSION_DENIED:
        assert time.monotonic() < deadline_s


def test_a_worker_that_says_alive_but_reads_no_shard_loses_it_after_one_lease_and_not_after_ten(
    server: RunningServer,
) -> None:
    server.scheduler.workers.registry.lease_s = 2.0
    job = server.submit(prepared(regression_spec()))
    with peer(server) as (hangs, say):
        said: list[grpc.RpcError] = []

        def listen() -> None:
            try:
                for _ in hangs.call:
                    pass
            except grpc.RpcError as error:
                said.append(error)

        listening = threading.Thread(target=listen)
        listening.start()
        for _ in range(180):  # for less than ten leases
            say(pb.TrainRequest(alive=pb.Alive(work_count=1, is_loading=True)))
            listening.join(0.1)
            if said:
                break
        assert said[0].code() == grpc.StatusCode.ABORTED
        assert "alive, but its work has stood still" in said[0].details()
    assert not job.is_final


# A server of its own, with a job that runs


def test_the_job_ends_with_its_bits_and_memory_stays_bounded_whatever_peers_do(attacked: Attacked) -> None:
    host, _, port = attacked.address.rpartition(":")
    with Client(attacked.address) as client, ExitStack() as stack:
        expected = ended(client, client.create_job(spec(40)).job_id)
        before = attacked.resident_bytes
        job = client.create_job(spec(40))
        channel = stack.enter_context(grpc.insecure_channel(attacked.address, [("grpc.enable_http_proxy", 0)]))
        _watch_without_reading(channel, job.job_id, stack)
        for content in (
            b"\xff" * 100,
            b"\x0a" + b"\xff" * 5,
            b"",
            pb.TrainRequest(ready=pb.Ready()).SerializeToString(),
        ):
            assert _train(channel, [content]) == grpc.StatusCode.INVALID_ARGUMENT
        idle = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(3 * CONNECTIONS)]
        for connection in idle[:20]:
            with suppress(OSError):
                connection.sendall(os.urandom(1000))
        # More than the limit are closed at once; those that sent nonsense may have made room for others.
        assert sum(_is_closed(connection) for connection in idle) >= 2 * CONNECTIONS - 20
        assert ended(client, job.job_id) == expected
        assert attacked.resident_bytes < before + 200 * MIB
        for connection in idle:
            connection.close()
        # And afterwards it takes connections as ever.
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            with Client(attacked.address) as other:
                try:
                    assert other.get_job(job.job_id).state == job_pb2.JOB_STATE_SUCCEEDED
                    break
                except Exception:
                    if time.monotonic() > deadline_s:
                        raise
    attacked.process.send_signal(signal.SIGTERM)
    assert attacked.process.wait(TIMEOUT_S) == 0


def _is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection, or does so at once: one that it keeps gets HTTP/2's first bytes."""
    connection.settimeout(TIMEOUT_S)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def _watch_without_reading(channel: grpc.Channel, job_id: str, stack: ExitStack) -> None:
    stub = job_service_pb2_grpc.JobServiceStub(channel)
    for _ in range(20):
        request = api.WatchJobRequest(job_id=job_id, after_event=0)
        stack.callback(stub.WatchJob(request, timeout=TIMEOUT_S).cancel)


def _train(channel: grpc.Channel, contents: list[bytes]) -> grpc.StatusCode:
    method = "/chainrule.v1.WorkerService/Train"
    call = channel.stream_stream(method, request_serializer=None, response_deserializer=None)
    try:
        for _ in call(iter(contents), timeout=TIMEOUT_S):
            pass
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_metadata_and_messages_that_are_too_large_are_refused(server: RunningServer) -> None:
    metadata = [(f"key-{number}", "x" * 8000) for number in range(8)]
    call = server.jobs.ListJobs
    with pytest.raises(grpc.RpcError) as caught:
        call(api.ListJobsRequest(), timeout=TIMEOUT_S, metadata=metadata)
    assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(grpc.RpcError) as caught:
        call(api.ListJobsRequest(name_prefix="x" * (64 * MIB)), timeout=TIMEOUT_S)
    assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)
    assert list(call(api.ListJobsRequest(), timeout=TIMEOUT_S).jobs) == []


def test_a_client_that_never_reads_what_it_downloads_holds_no_model_in_the_server_s_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one that is in no file yet: that of a job that runs."""
    add_data_sets(monkeypatch)
    wide = regression_spec()
    wide.model.prediction, wide.model.loss = "", "(sum(V @ x) - y)**2"
    del wide.model.parameters[:]
    wide.model.parameters.add(name="V", shape=["700000", "d"])
    wide.training.epochs = 1
    job = prepared(wide)
    training = train_with_plain_workers(job, worker_count=1)
    scheduler = Scheduler(JobRegistry(lambda: "id"), Archive(tmp_path))
    scheduler.jobs.add(Job("runs", wide, 0.0, job, state=job_pb2.JOB_STATE_RUNNING, training=training))
    service = JobService(scheduler, Submission(scheduler, DataSetStore(tmp_path)))
    request = api.DownloadModelRequest(
        job_id="runs", version=model_pb2.ModelVersion(named=model_pb2.NAMED_VERSION_LAST)
    )

    async def begin(context: Mock) -> tuple[AsyncIterator[api.DownloadModelResponse], int]:
        tracemalloc.start()
        download = service.DownloadModel(request, context)
        await anext(download)
        gc.collect()
        return download, tracemalloc.get_traced_memory()[0]

    try:
        _, held_bytes = asyncio.run(begin(Mock()))
    finally:
        tracemalloc.stop()
    assert held_bytes < 4 * job.model.layout.size / 2
    scheduler.archive.journal.store.close()
