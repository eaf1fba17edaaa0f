"""A real server in this process, on an event loop in a thread of its own, for calls over a real socket."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chainrule.v1 import data_service_pb2, data_service_pb2_grpc, job_pb2, job_service_pb2_grpc, model_service_pb2_grpc
from chainrule_server.access.listening import ReloadingCertificate, listen
from chainrule_server.api.grpc_server import make_server
from chainrule_server.data import data_set
from chainrule_server.data.data_set import DataSet
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.data.object_storage import ObjectStorage
from chainrule_server.data.uploads import Uploads
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.models import model_file
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.row_file import RowFolder
from chainrule_server.storage import durable_file
from tests.plain_workers import train_with_plain_workers

TIMEOUT_S = 60.0
Answer = TypeVar("Answer")


@dataclass
class RunningServer:
    """address: HOST:PORT. `scheduler` belongs to the server's loop; `run` calls something there."""

    address: str
    scheduler: Scheduler
    health: Any
    loop: asyncio.AbstractEventLoop
    channel: grpc.Channel
    folder: Path

    def __post_init__(self) -> None:
        self.jobs = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.data = data_service_pb2_grpc.DataServiceStub(self.channel)

    def run(self, call: Callable[[], Answer]) -> Answer:
        """The answer of a call on the server's event loop."""

        async def there() -> Answer:
            return call()

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(TIMEOUT_S)

    def submit(self, prepared: PreparedJob) -> Job:
        """A job in the queue."""
        return asyncio.run_coroutine_threadsafe(self.scheduler.submit(prepared), self.loop).result(TIMEOUT_S)

    def add_finished(self, prepared: PreparedJob) -> Job:
        """A job that has succeeded, trained here by plain objects in place of workers."""
        training = train_with_plain_workers(prepared, worker_count=1)

        def add() -> Job:
            job = Job(self.scheduler.jobs.new_id(), prepared.spec, 0.0, prepared)
            self.scheduler.jobs.add(job)
            job.training = training
            job.progress, job.result = training.progress, training.result
            job.model_path = self.folder / f"{job.job_id}.safetensors"
            trained = TrainedModel.of(prepared, training.state, step=training.parameters_step)
            content = model_file.encode(trained, model_file.Provenance(job.job_id, "", 0.0))
            durable_file.write(job.model_path, content)
            job.become(job_pb2.JOB_STATE_SUCCEEDED)
            return job

        return self.run(add)


@contextmanager
def running_server(
    folder: Path,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    certificate: ReloadingCertificate | None = None,
) -> Iterator[RunningServer]:
    """A server that listens on a free port of 127.0.0.1, until the end of the block. Its channel has no credentials."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server")
    thread.start()
    numbers = iter(range(1, 1 << 30))

    async def start() -> tuple[Scheduler, grpc.aio.Server, Any, str]:
        data_sets = DataSetStore(folder / "datasets")
        sources = {"data_root": folder, "data_sets": data_sets, "object_storage": ObjectStorage()}
        preparing = functools.partial(prepare, **sources, row_folder=RowFolder(folder / "rows"))
        scheduler = Scheduler(JobRegistry(lambda: f"{next(numbers):012x}"[::-1]), Archive(folder, prepare=preparing))
        uploads = Uploads(folder / "uploads", data_sets)
        server, health = await make_server(scheduler, uploads, interceptors=interceptors)
        address = listen(server, "127.0.0.1", 0, certificate)
        await server.start()
        return scheduler, server, health, address

    try:
        scheduler, server, health, address = asyncio.run_coroutine_threadsafe(start(), loop).result(TIMEOUT_S)
        try:
            options = [("grpc.enable_http_proxy", 0)]
            with grpc.insecure_channel(address, options=options) as channel:
                yield RunningServer(address, scheduler, health, loop, channel, folder)
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(TIMEOUT_S)
            asyncio.run_coroutine_threadsafe(scheduler.stop(), loop).result(TIMEOUT_S)
            asyncio.run_coroutine_threadsafe(scheduler.archive.journal.close(), loop).result(TIMEOUT_S)
            scheduler.archive.journal.store.close()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_S)
        loop.close()


def upload(server: RunningServer, name: str, content: bytes) -> data_service_pb2.DataSet:
    """A data set of these bytes, sent in one part."""
    sha256 = hashlib.sha256(content).hexdigest()
    begin = data_service_pb2.BeginUploadRequest(sha256=sha256, size_bytes=len(content), name=name)
    server.data.BeginUpload(begin, timeout=TIMEOUT_S)
    part = data_service_pb2.AppendUploadRequest(sha256=sha256, content=content)
    server.data.AppendUpload(iter([part]), timeout=TIMEOUT_S)
    finish = data_service_pb2.FinishUploadRequest(sha256=sha256)
    finished: data_service_pb2.FinishUploadResponse = server.data.FinishUpload(finish, timeout=TIMEOUT_S)
    return finished.data_set


def regression_spec() -> job_pb2.JobSpec:
    """A job over the data set test:regression: 40 rows of a, b, c, and a target of about 1000."""
    spec = job_pb2.JobSpec(name="regression")
    spec.model.prediction = "w @ x + b"
    spec.model.loss = "(prediction - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.model.parameters.add(name="b")
    spec.data.uri = "test:regression"
    spec.training.epochs = 2
    spec.training.batch_size = 8
    spec.training.shards = 2
    return spec


def classes_spec() -> job_pb2.JobSpec:
    """A job over the data set test:classes: 40 rows of a, b, and the classes blue, green and red."""
    spec = job_pb2.JobSpec(name="classes")
    spec.model.prediction = "W @ x"
    spec.model.loss = "cross_entropy(prediction, y)"
    spec.model.parameters.add(name="W", shape=["k", "d"])
    spec.data.uri = "test:classes"
    spec.training.epochs = 2
    spec.training.batch_size = 8
    spec.training.shards = 2
    return spec


def add_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the data sets of both specs known."""
    random = np.random.default_rng(0)
    features = random.normal(5, 2, size=(40, 3))
    target = 1000 + features @ [1.0, -2.0, 30.0]
    numbers = DataSet("test:regression", features, target, ("a", "b", "c"))
    classes = DataSet("test:classes", features[:, :2], random.integers(0, 3, 40), ("a", "b"), ("blue", "green", "red"))
    for data in (numbers, classes):
        monkeypatch.setitem(data_set.LOADERS, data.uri, lambda data=data: data)


def prepared(spec: job_pb2.JobSpec) -> PreparedJob:
    """The spec, prepared."""
    return prepare(spec)


def refusal(call: Any) -> tuple[grpc.StatusCode, dict[str, str], str]:
    """(code, field violations, reason) of a call that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    violations, reason = {}, ""
    for detail in status.details:
        request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        if detail.Unpack(request):
            violations = {each.field: each.description for each in request.field_violations}
        elif detail.Unpack(info):
            reason = info.reason
    return caught.value.code(), violations, reason
