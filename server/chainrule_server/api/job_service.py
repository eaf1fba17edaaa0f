"""The RPC methods: decode, one call on a plain object, encode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from chainrule.v1 import job_pb2, job_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.api.job_page import Listed, page
from chainrule_server.errors import WrongState
from chainrule_server.grpc_status import streaming, unary
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.job_updates import updates
from chainrule_server.jobs.model_versions import ModelVersions
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.jobs.submission import Submission
from chainrule_server.storage.store import MetricRow

PART_BYTES = 1 << 20
SPANS_IN_MESSAGE = 5_000
ROWS_IN_MESSAGE = 1_000


@dataclass
class JobService(job_service_pb2_grpc.JobServiceServicer):
    """What clients call about jobs."""

    scheduler: Scheduler
    submission: Submission

    @unary
    async def CreateJob(self, request: api.CreateJobRequest) -> api.CreateJobResponse:  # noqa: N802
        if request.validate_only:
            checked, takes = await self.submission.validate(request.spec, request_id=request.request_id)
            steps = job_pb2.Progress(total_steps=checked.total_steps)
            return api.CreateJobResponse(job=job_pb2.Job(spec=checked.spec, progress=steps), estimate=takes)
        job, estimate = await self.submission.submit(request.spec, request_id=request.request_id)
        return api.CreateJobResponse(job=self._message(job), estimate=estimate)

    @unary
    async def GetJob(self, request: api.GetJobRequest) -> api.GetJobResponse:  # noqa: N802
        return api.GetJobResponse(job=self._message(self._find(request.job_id)))

    @unary
    async def ListJobs(self, request: api.ListJobsRequest) -> api.ListJobsResponse:  # noqa: N802
        return page((self._listed(job) for job in self.scheduler.jobs.all()), request)

    @streaming
    async def WatchJob(self, request: api.WatchJobRequest) -> AsyncIterator[api.WatchJobResponse]:  # noqa: N802
        job = self._find(request.job_id)
        after = request.after_event if request.HasField("after_event") else None
        async with aclosing(updates(job, self.scheduler.archive.journal, after_event=after)) as found:
            async for update in found:
                message = self._message(job)
                if job.is_final and job.last_event > update.last_event:
                    _not_yet_ended(message)
                yield api.WatchJobResponse(job=message, events=update.events, last_event=update.last_event)

    @unary
    async def CancelJob(self, request: api.CancelJobRequest) -> api.CancelJobResponse:  # noqa: N802
        job = self._find(request.job_id)
        await self.scheduler.cancel(job)
        return api.CancelJobResponse(job=self._message(job))

    @unary
    async def PauseJob(self, request: api.PauseJobRequest) -> api.PauseJobResponse:  # noqa: N802
        job = self._find(request.job_id)
        await self.scheduler.pause(job)
        return api.PauseJobResponse(job=self._message(job))

    @unary
    async def ResumeJob(self, request: api.ResumeJobRequest) -> api.ResumeJobResponse:  # noqa: N802
        job = self._find(request.job_id)
        await self.scheduler.resume(job)
        return api.ResumeJobResponse(job=self._message(job))

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
        spans = list(self._find(request.job_id).spans())
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

    def _find(self, job_id: str) -> Job:
        return self.scheduler.jobs.find(job_id)

    def _message(self, job: Job) -> job_pb2.Job:
        return job.message(now_s=time.monotonic(), storage_trouble=self.scheduler.archive.journal.trouble)

    def _listed(self, job: Job) -> Listed:
        return Listed(job.job_id, job.spec.name, job.state, job.number, lambda: self._message(job), job.spec.labels)


def _not_yet_ended(message: job_pb2.Job) -> None:
    """Make it the job before its end: whoever watches leaves off with that, and has not been told all events yet."""
    message.state = job_pb2.JOB_STATE_RUNNING
    for name in ("error", "result", "end_time"):
        message.ClearField(name)


def _metric_row(row: MetricRow) -> api.MetricRow:
    message = api.MetricRow(step=row.step, loss=row.loss, epoch=row.epoch, validation_loss=row.validation_loss)
    for name, value in row.values.items():
        message.metrics.add(name=f"validation_{name}", value=value)
    if row.time_s is not None:
        message.time.FromMicroseconds(round(row.time_s * 1e6))
    return message
