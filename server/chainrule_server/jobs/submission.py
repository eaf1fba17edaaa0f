"""From a spec that a client sends to a job in the queue, or to what such a job would be.

Both are the same work: find what the job starts from, pin the data sets that it names, prepare it in a thread, and
count what it takes. Only the last step differs: to submit it, or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.errors import InvalidSpec, NotFound
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.preparing_threads import PreparingThreads
from chainrule_server.jobs.registry import checked_request_id
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.preparation.estimate import estimate
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.spec_check import spec_sha256


@dataclass
class Submission:
    """data_sets: those that were uploaded."""

    scheduler: Scheduler
    data_sets: DataSetStore
    threads: PreparingThreads = field(default_factory=PreparingThreads)

    async def submit(self, spec: job_pb2.JobSpec, *, request_id: str = "") -> tuple[Job, api.JobEstimate | None]:
        """The job of a spec, and what it takes; of one that a request with this id made before, without the estimate.

        Raises InvalidSpec, LimitExceeded, OutOfMemory, StorageFull."""
        request_sha256 = spec_sha256(spec)
        job = self._made_before(request_id, request_sha256)
        if job is not None:
            return job, None
        self.scheduler.check_room()
        async with self._prepared(spec) as (prepared, takes):
            job = await self.scheduler.submit(prepared, request_id=request_id, request_sha256=request_sha256)
        return job, takes

    async def validate(self, spec: job_pb2.JobSpec, *, request_id: str = "") -> tuple[PreparedJob, api.JobEstimate]:
        """What `submit` would make of a spec, and what it would take; nothing is kept. Raises as `submit`."""
        self._made_before(request_id, spec_sha256(spec))
        async with self._prepared(spec) as (prepared, takes):
            return prepared, takes

    def _made_before(self, request_id: str, request_sha256: str) -> Job | None:
        return self.scheduler.jobs.of_request(checked_request_id(request_id), request_sha256)

    @asynccontextmanager
    async def _prepared(self, spec: job_pb2.JobSpec) -> AsyncIterator[tuple[PreparedJob, api.JobEstimate]]:
        """A spec, prepared; until the end of the block the data sets that it names stay. Its own names are made whole.

        A name may be given to another data set: the job keeps the one that it was created with."""
        start_path = None
        if spec.model.start.job:
            spec.model.start.job, start_path = self._start(spec.model.start.job)
        with self.data_sets.held(spec.data.uri) as pinned, self.data_sets.held(spec.model.start.model) as model:
            spec.data.uri = pinned
            if spec.model.start.model:
                spec.model.start.model = model
            prepared = await self.threads.run(
                self.scheduler.archive.prepare, spec, start_path=start_path, limits=self.scheduler.limits
            )
            yield prepared, await self.threads.run(estimate, prepared)

    def _start(self, job_id: str) -> tuple[str, Path]:
        """The whole id of a job to start from, and its model's file. Raises InvalidSpec."""
        try:
            job = self.scheduler.jobs.find(job_id)
        except NotFound as error:
            raise InvalidSpec([("model.start.job", str(error))]) from None
        if job.model_path is None:
            said = "made no step, so it has no model" if job.is_final else "has not ended; wait for it, or cancel it"
            raise InvalidSpec([("model.start.job", f"job {job.job_id} {said}")])
        return job.job_id, job.model_path
