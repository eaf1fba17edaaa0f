"""The RPC methods: decode, one call on a plain object, encode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from chainrule.v1 import job_pb2, job_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.api.job_page import Listed, page
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.data.object_storage import ObjectStorage
from chainrule_server.errors import InvalidSpec, NotFound, OutOfRange, WrongState
from chainrule_server.grpc_status import streaming, unary
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.model_versions import ModelVersions
from chainrule_server.jobs.registry import checked_request_id
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.preparation.estimate import estimate
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.spec_check import spec_sha256
from chainrule_server.storage.store import MetricRow

PART_BYTES = 1 << 20
WATCH_INTERVAL_S = 0.2
SPANS_IN_MESSAGE = 5_000
ROWS_IN_MESSAGE = 1_000


@dataclass
class JobService(job_service_pb2_grpc.JobServiceServicer):
    """What clients call. data_root: the folder that jobs' `file:` URIs may read; None: they read no file.

    data_sets: those that were uploaded. object_storage: what `s3:` and `gs:` URIs may read."""

    scheduler: Scheduler
    data_root: Path | None
    data_sets: DataSetStore
    object_storage: ObjectStorage

    @unary
    async def CreateJob(self, request: api.CreateJobRequest) -> api.CreateJobResponse:  # noqa: N802
        request_id, request_sha256 = checked_request_id(request.request_id), spec_sha256(request.spec)
        job = self.scheduler.book.of_request(request_id, request_sha256)
        if job is not None and not request.validate_only:
            return api.CreateJobResponse(job=_message(job))
        if not request.validate_only:
            self.scheduler.check_room()
        spec, start_path = request.spec, None
        if spec.model.start.job:
            spec.model.start.job, start_path = self._start(spec.model.start.job)
        # A name may be given to another data set: the job keeps the one that it was created with.
        with self.data_sets.held(spec.data.uri) as pinned, self.data_sets.held(spec.model.start.model) as model:
            spec.data.uri = pinned
            if spec.model.start.model:
                spec.model.start.model = model
            prepared = await asyncio.to_thread(
                prepare,
                spec,
                data_root=self.data_root,
                data_sets=self.data_sets,
                object_storage=self.object_storage,
                start_path=start_path,
                limits=self.scheduler.limits,
            )
            takes = await asyncio.to_thread(estimate, prepared)
            if request.validate_only:
                checked = job_pb2.Job(spec=prepared.spec, progress=job_pb2.Progress(total_steps=prepared.total_steps))
                return api.CreateJobResponse(job=checked, estimate=takes)
            job = await self.scheduler.submit(prepared, request_id=request_id, request_sha256=request_sha256)
        return api.CreateJobResponse(job=_message(job), estimate=takes)

    @unary
    async def GetJob(self, request: api.GetJobRequest) -> api.GetJobResponse:  # noqa: N802
        return api.GetJobResponse(job=_message(self._find(request.job_id)))

    @unary
    async def ListJobs(self, request: api.ListJobsRequest) -> api.ListJobsResponse:  # noqa: N802
        return page((_listed(job) for job in self.scheduler.book.all()), request)

    @streaming
    async def WatchJob(self, request: api.WatchJobRequest) -> AsyncIterator[api.WatchJobResponse]:  # noqa: N802
        job = self._find(request.job_id)
        last = request.after_event if request.HasField("after_event") else job.last_event
        if last > job.last_event:
            # What is on the disk already may not be told to the job yet; after this it is.
            await self.scheduler.archive.journal.run(lambda: None)
        if last > job.last_event:
            raise OutOfRange(
                f"the last event of job {job.job_id} is number {job.last_event}, so none follows {last}; was the "
                "server restored from a backup? Watch the job from event 0"
            )
        while True:
            # Before the state is told: it may change while that is on its way.
            changed, is_final = job.changed, job.is_final
            events = []
            if job.last_event > last:
                events = await self.scheduler.archive.journal.events(job.job_id, after=last)
                if not events:
                    raise NotFound(f"job {job.job_id} was deleted")
                last = events[-1].number
            yield api.WatchJobResponse(job=_message(job), events=events, last_event=last)
            if is_final and job.last_event <= last:
                return
            if job.last_event > last:
                continue
            try:
                await asyncio.wait_for(changed.wait(), WATCH_INTERVAL_S)
            except TimeoutError:
                continue

    @unary
    async def CancelJob(self, request: api.CancelJobRequest) -> api.CancelJobResponse:  # noqa: N802
        job = self._find(request.job_id)
        await self.scheduler.cancel(job)
        return api.CancelJobResponse(job=_message(job))

    @unary
    async def PauseJob(self, request: api.PauseJobRequest) -> api.PauseJobResponse:  # noqa: N802
        job = self._find(request.job_id)
        await self.scheduler.pause(job)
        return api.PauseJobResponse(job=_message(job))

    @unary
    async def ResumeJob(self, request: api.ResumeJobRequest) -> api.ResumeJobResponse:  # noqa: N802
        job = self._find(request.job_id)
        await self.scheduler.resume(job)
        return api.ResumeJobResponse(job=_message(job))

    @unary
    async def DeleteJob(self, request: api.DeleteJobRequest) -> api.DeleteJobResponse:  # noqa: N802
        job = self._find(request.job_id)
        await self.scheduler.delete(job)
        return api.DeleteJobResponse(job_id=job.job_id)

    @streaming
    async def DownloadModel(  # noqa: N802
        self, request: api.DownloadModelRequest
    ) -> AsyncIterator[api.DownloadModelResponse]:
        job = self._find(request.job_id)
        if not job.is_final and not request.HasField("version"):
            raise WrongState(
                f"job {job.job_id} has not ended; wait for it ('chainrule watch {job.job_id}'), or name a version: "
                "the last, the best, or a step"
            )
        # The source, which may hold a copy of the parameters, isn't kept while a client takes its time.
        read = (await ModelVersions(self.scheduler.archive).find(job, request.version)).content
        content = await asyncio.to_thread(read)
        del read
        for start in range(0, len(content), PART_BYTES):
            yield api.DownloadModelResponse(content=content[start : start + PART_BYTES])

    @streaming
    async def ReadTrace(self, request: api.ReadTraceRequest) -> AsyncIterator[api.ReadTraceResponse]:  # noqa: N802
        job = self._find(request.job_id)
        spans = [] if job.training is None else list(job.training.spans())
        for start in range(0, len(spans), SPANS_IN_MESSAGE):
            yield api.ReadTraceResponse(spans=spans[start : start + SPANS_IN_MESSAGE])

    @streaming
    async def ReadMetrics(self, request: api.ReadMetricsRequest) -> AsyncIterator[api.ReadMetricsResponse]:  # noqa: N802
        job = self._find(request.job_id)
        # SQLite's integers end there; no job has so many steps.
        after = min(request.after_step, 2**63 - 1)
        rows = await self.scheduler.archive.journal.metrics(job.job_id, after=after)
        for start in range(0, len(rows), ROWS_IN_MESSAGE):
            part = rows[start : start + ROWS_IN_MESSAGE]
            yield api.ReadMetricsResponse(rows=(_metric_row(row) for row in part))

    def _start(self, job_id: str) -> tuple[str, Path]:
        """The whole id of a job to start from, and its model's file. Raises InvalidSpec."""
        try:
            job = self._find(job_id)
        except NotFound as error:
            raise InvalidSpec([("model.start.job", str(error))]) from None
        if job.model_path is None:
            said = "made no step, so it has no model" if job.is_final else "has not ended; wait for it, or cancel it"
            raise InvalidSpec([("model.start.job", f"job {job.job_id} {said}")])
        return job.job_id, job.model_path

    def _find(self, job_id: str) -> Job:
        return self.scheduler.book.find(job_id)


def _message(job: Job) -> job_pb2.Job:
    return job.message(now_s=time.monotonic())


def _metric_row(row: MetricRow) -> api.MetricRow:
    message = api.MetricRow(step=row.step, loss=row.loss, epoch=row.epoch, validation_loss=row.validation_loss)
    for name, value in row.values.items():
        message.metrics.add(name=f"validation_{name}", value=value)
    if row.time_s is not None:
        message.time.FromMicroseconds(round(row.time_s * 1e6))
    return message


def _listed(job: Job) -> Listed:
    return Listed(job.job_id, job.spec.name, job.state, job.number, lambda: _message(job), job.spec.labels)
