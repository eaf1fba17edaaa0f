"""A small server in this process, that answers with what a test puts into it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from chainrule.v1 import job_pb2, job_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api


@dataclass
class FakeServer(job_service_pb2_grpc.JobServiceServicer):
    """states: what WatchJob tells of the job. failure: what every call answers, where it is set."""

    address: str = ""
    job: job_pb2.Job = field(default_factory=lambda: job_pb2.Job(job_id="abcdef012345"))
    states: list[Any] = field(default_factory=list)
    # What each call of WatchJob tells instead; all but the last then break off.
    updates: list[list[api.WatchJobResponse]] = field(default_factory=list)
    watched: list[api.WatchJobRequest] = field(default_factory=list)
    model: list[bytes] = field(default_factory=lambda: [b"mod", b"el"])
    metrics: list[api.MetricRow] = field(default_factory=list)
    failure: status_pb2.Status | None = None
    # WatchJob goes on without a word after `states`.
    hangs: bool = False
    # So many calls of WatchJob have ended.
    ended: int = 0
    # A download breaks with `failure` after so many parts.
    fails_after: int = 0
    specs: list[job_pb2.JobSpec] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)

    def fail(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        """Answer every call with this status."""
        packed = []
        for detail in details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        self.failure = status_pb2.Status(code=code.value[0], message=message, details=packed)

    def _check(self, context: Any) -> None:
        if self.failure is not None:
            context.abort_with_status(rpc_status.to_status(self.failure))

    def CreateJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._check(context)
        self.specs.append(request.spec)
        self.request_ids.append(request.request_id)
        return api.CreateJobResponse(job=self.job)

    def GetJob(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        self._check(context)
        return api.GetJobResponse(job=self.job)

    def ListJobs(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        self._check(context)
        return api.ListJobsResponse(jobs=[self.job])

    def WatchJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.watched.append(request)
        if self.updates:
            yield from self.updates.pop(0)
            if self.updates:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the server went away")
            return
        self._check(context)
        try:
            for state in self.states:
                self.job.state = state
                yield api.WatchJobResponse(job=self.job)
            while self.hangs and context.is_active():
                time.sleep(0.02)
        finally:
            # Also where the call ends before gRPC asks for the next answer.
            self.ended += 1

    def ReadMetrics(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        self._check(context)
        yield api.ReadMetricsResponse(rows=self.metrics)

    def CancelJob(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        self._check(context)
        return api.CancelJobResponse(job=self.job)

    def DownloadModel(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        for part in self.model[: self.fails_after] if self.failure else self.model:
            yield api.DownloadModelResponse(content=part)
        self._check(context)


@contextlib.contextmanager
def serving(fake: FakeServer) -> Iterator[FakeServer]:
    """The server, which listens at its `address`."""
    with ThreadPoolExecutor(max_workers=4) as executor:
        server = grpc.server(executor)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(fake, server)
        fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield fake
        finally:
            server.stop(0).wait()


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    """A FakeServer that listens at its `address`."""
    with serving(FakeServer()) as fake:
        yield fake
