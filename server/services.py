"""The RPC methods: decode, one call on a plain object, encode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from chainrule.v1 import job_pb2, job_service_pb2_grpc, worker_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import worker_service_pb2 as pb
from server.errors import ProtocolError, ServiceError, WrongState, streaming, unary
from server.jobs import Job
from server.prepared_job import prepare
from server.scheduler import Outgoing, Scheduler

PART_BYTES = 1 << 20
WATCH_INTERVAL_S = 0.2
HELLO_TIMEOUT_S = 10.0


@dataclass
class JobService(job_service_pb2_grpc.JobServiceServicer):
    """What clients call. data_root: the folder that jobs' `file:` URIs may read; None: they read no file."""

    scheduler: Scheduler
    data_root: Path | None = None

    @unary
    async def CreateJob(self, request: api.CreateJobRequest) -> api.CreateJobResponse:  # noqa: N802
        prepared = await asyncio.to_thread(prepare, request.spec, data_root=self.data_root)
        return api.CreateJobResponse(job=_message(self.scheduler.submit(prepared)))

    @unary
    async def GetJob(self, request: api.GetJobRequest) -> api.GetJobResponse:  # noqa: N802
        return api.GetJobResponse(job=_message(self._find(request.job_id)))

    @unary
    async def ListJobs(self, request: api.ListJobsRequest) -> api.ListJobsResponse:  # noqa: N802, ARG002
        return api.ListJobsResponse(jobs=[_message(job) for job in reversed(self.scheduler.book.all())])

    @streaming
    async def WatchJob(self, request: api.WatchJobRequest) -> AsyncIterator[api.WatchJobResponse]:  # noqa: N802
        job = self._find(request.job_id)
        while True:
            changed = job.changed
            yield api.WatchJobResponse(job=_message(job))
            if job.is_final:
                return
            try:
                await asyncio.wait_for(changed.wait(), WATCH_INTERVAL_S)
            except TimeoutError:
                continue

    @unary
    async def CancelJob(self, request: api.CancelJobRequest) -> api.CancelJobResponse:  # noqa: N802
        job = self._find(request.job_id)
        await self.scheduler.cancel(job)
        return api.CancelJobResponse(job=_message(job))

    @streaming
    async def DownloadModel(  # noqa: N802
        self, request: api.DownloadModelRequest
    ) -> AsyncIterator[api.DownloadModelResponse]:
        job = self._find(request.job_id)
        if not job.is_final:
            raise WrongState(f"job {job.job_id} has not ended; wait for it ('chainrule watch {job.job_id}')")
        if job.model_path is None:
            raise WrongState(f"job {job.job_id} made no step, so there is no model of it")
        content = await asyncio.to_thread(job.model_path.read_bytes)
        for start in range(0, len(content), PART_BYTES):
            yield api.DownloadModelResponse(content=content[start : start + PART_BYTES])

    def _find(self, job_id: str) -> Job:
        return self.scheduler.book.find(job_id)


@dataclass
class WorkerService(worker_service_pb2_grpc.WorkerServiceServicer):
    """What workers call."""

    scheduler: Scheduler

    @streaming
    async def Train(self, requests: AsyncIterator[pb.TrainRequest]) -> AsyncIterator[pb.TrainResponse]:  # noqa: N802
        try:
            first = await asyncio.wait_for(anext(requests), HELLO_TIMEOUT_S)
        except (TimeoutError, StopAsyncIteration):
            raise ProtocolError(f"a worker says hello within {HELLO_TIMEOUT_S:g} s") from None
        if not first.HasField("hello"):
            raise ProtocolError("a worker's stream begins with hello")
        name, outgoing = self.scheduler.join(first.hello)
        reader = asyncio.create_task(self._read(name, requests, outgoing))
        try:
            while (response := await outgoing.get()) is not None:
                yield response
            if reader.done():
                reader.result()
        finally:
            reader.cancel()
            self.scheduler.leave(name)

    async def _read(self, name: str, requests: AsyncIterator[pb.TrainRequest], outgoing: Outgoing) -> None:
        try:
            async for request in requests:
                self.scheduler.receive(name, request)
        except ServiceError:
            # Its stream ends with the error; until then nothing that it owes is waited for.
            self.scheduler.leave(name)
            raise
        finally:
            outgoing.put_nowait(None)

    @streaming
    async def ReadShard(self, request: pb.ReadShardRequest) -> AsyncIterator[pb.ReadShardResponse]:  # noqa: N802
        job = self.scheduler.shard_source(request.job_id, request.shard)
        rows = job.shard(request.shard, validation=request.validation)
        rows_in_part = max(1, PART_BYTES // max(1, 4 * rows.features.shape[1]))
        for start in range(0, len(rows.targets), rows_in_part):
            part = slice(start, start + rows_in_part)
            targets = rows.targets[part]
            yield pb.ReadShardResponse(
                row_count=len(targets),
                features=rows.features[part].astype("<f4", copy=False).tobytes(),
                targets=targets.astype(targets.dtype.newbyteorder("<"), copy=False).tobytes(),
                row_numbers=rows.numbers[part].astype("<i8", copy=False).tobytes(),
            )


def _message(job: Job) -> job_pb2.Job:
    return job.message(now_s=time.monotonic())
