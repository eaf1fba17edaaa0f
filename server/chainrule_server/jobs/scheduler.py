"""Which jobs run, from their creation to their end: submitted, paused, resumed, cancelled, taken up after a restart.

Who gets which workers is decided in `chainrule_server.jobs.allocation` and made so in
`chainrule_server.jobs.worker_sharing`; here is what a job does then. All of it runs on the one event loop, so nothing
is locked but one change of a job's state against the next. What a server left when it ended, or was killed, is in the
archive; `restore` takes it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Container
from concurrent.futures import Executor
from dataclasses import dataclass, field

from google.rpc import code_pb2, status_pb2

from chainrule.process.logs import log_event
from chainrule.v1 import job_pb2
from chainrule_engine.reduction import PartialSum
from chainrule_server.errors import InvalidSpec, NotFound, StorageFull, WrongState
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.job_life import TAKES_WORKERS, Phase
from chainrule_server.jobs.pausing import Pausing
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.retention import beyond
from chainrule_server.jobs.worker_sharing import WorkerSharing
from chainrule_server.limits import Limits
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.storage.checkpoint import Checkpoint
from chainrule_server.training.resume import DataChanged, restore
from chainrule_server.training.step_cost import StepCosts
from chainrule_server.training.training import Training
from chainrule_server.workers.pool import WorkerPool

log = logging.getLogger(__name__)
STOP_TIMEOUT_S = 5.0
RUNNING = job_pb2.JOB_STATE_RUNNING


@dataclass
class Scheduler:
    """All jobs, and the workers for them. sharing: which worker serves which job, and what workers say to them."""

    jobs: JobRegistry
    archive: Archive
    share_memory: bool = False
    # Large updates are made by so many threads, those of the pool and the event loop's own.
    thread_count: int = 1
    pool: Executor | None = None
    # So many jobs that have ended are remembered, at least 1; None: all of them.
    kept_jobs: int | None = None
    limits: Limits = field(default_factory=Limits)
    workers: WorkerPool = field(default_factory=WorkerPool)
    _is_stopping: bool = False
    _forgetting: asyncio.Task[None] | None = None
    _submitting: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Rows are read again for one job after the other: they are large.
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.archive.journal.event_stored = self._event_stored
        self.sharing = WorkerSharing(
            self.workers, self.jobs, self.archive.journal.append_event, self._reallocate, self._end
        )
        self.workers.changed, self.workers.departed = self._reallocate, self.sharing.departed
        self._pausing = Pausing(self.archive, self.sharing, self._reallocate)

    async def submit(self, prepared: PreparedJob, *, request_id: str = "", request_sha256: str = "") -> Job:
        """Put a job in the queue; it is on the disk when it is returned. request_sha256: of the spec as it was sent.

        A job that a request with this id made before is returned in place of a second one.
        Raises StorageFull, LimitExceeded, and InvalidSpec where that job has another spec."""
        job = Job(
            self.jobs.new_id(),
            prepared.spec,
            time.time(),
            prepared,
            request_id,
            request_sha256,
            prepared.rows.sha256,
            progress=job_pb2.Progress(total_steps=prepared.total_steps),
        )
        # A caller that gives up must not leave a job on the disk that nobody here knows.
        return await asyncio.shield(asyncio.create_task(self._add(job)))

    def check_room(self) -> None:
        """Raise LimitExceeded where there is no room for one more job."""
        self.limits.check_new_job(active_jobs=len(self.jobs.active()), jobs=len(self.jobs.all()))

    def restore(self) -> None:
        """Take up every job of the archive again: those that ran, then the queue. Raises StoreError."""
        for job in self.archive.jobs():
            self.jobs.add(job)
            if job.state == RUNNING:
                self.sharing.add(job)
                self._begin(job)
        self._forgetting = asyncio.get_running_loop().create_task(self._forget_old())
        self._reallocate()

    async def pause(self, job: Job) -> None:
        """See Pausing."""
        await self._pausing.pause(job)

    async def resume(self, job: Job) -> None:
        """See Pausing."""
        await self._pausing.resume(job)

    async def cancel(self, job: Job) -> None:
        """End a job. Raises WrongState where it has succeeded or failed."""
        # Its checkpoint becomes its model, for which its data must be there.
        await job.life.left(Phase.READING)
        # What is being stored of its pause becomes its model.
        await job.life.left(Phase.PAUSING)
        if not job.is_final and not job.life.is_over:
            self._end(job, job_pb2.JOB_STATE_CANCELLED)
        await job.life.left(Phase.ENDING)
        if job.state != job_pb2.JOB_STATE_CANCELLED:
            raise WrongState(f"job {job.job_id} has ended already; there is nothing to cancel")

    async def delete(self, job: Job) -> None:
        """Forget a job that has ended, with its events, its model and its checkpoints.

        Raises WrongState while it hasn't ended, NotFound where it was deleted meanwhile, StorageFull."""
        if not job.is_final:
            raise WrongState(f"job {job.job_id} has not ended; cancel it first ('chainrule cancel {job.job_id}')")
        # Its checkpoints may still be being removed.
        await job.life.left(Phase.ENDING)
        # A caller that gives up must not leave a job here that isn't on the disk.
        await asyncio.shield(asyncio.create_task(self._delete(job)))

    async def stop(self) -> None:
        """Write last checkpoints and what has ended; from now on no job advances or begins."""
        self._is_stopping = True
        running = [*self.sharing.running.values()]
        await asyncio.gather(*(job.recorder.finish(job.training) for job in running if job.recorder is not None))
        self.sharing.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                for job in self.jobs.all():
                    await job.life.left(Phase.ENDING)

    def _reallocate(self, *, relinked: Container[str] = ()) -> None:
        """Something has changed: share the workers anew, begin whose turn it is, let go those that are to pause."""
        if self._is_stopping:
            return
        jobs = [job for job in self.jobs.active() if job.life.phase in TAKES_WORKERS]
        for job in self.sharing.allocate_workers(jobs, relinked=relinked):
            self._begin(job)
        is_anyone_gone = [self._pausing.let_go(job) for job in jobs if job.life.phase is Phase.LEAVING_OFF]
        if any(is_anyone_gone):
            self._reallocate()

    async def _add(self, job: Job) -> Job:
        # One after the other: the order on the disk is the order of the queue.
        async with self._submitting:
            known = self.jobs.of_request(job.request_id, job.request_sha256)
            if known is not None:
                return known
            self.check_room()
            await self.archive.add(job)
            self.jobs.add(job)
        self._reallocate()
        return job

    async def _delete(self, job: Job) -> None:
        await self.archive.delete(job)
        self.jobs.remove(job)

    def _event_stored(self, job_id: str, last_event: int) -> None:
        job = self.jobs.find(job_id)
        job.last_event = last_event
        job.wake()

    def _begin(self, job: Job) -> None:
        """Start a job whose turn it is; one from before a pause or a restart is read in first."""
        if job.prepared is None:
            job.life.become(Phase.READING, self._read_and_start(job))
        else:
            self._start(job, self._training(job, job.prepared, None))
            self.sharing.hand_over(job)

    def _training(self, job: Job, prepared: PreparedJob, checkpoint: Checkpoint | None) -> Training:
        """The training of a job, at its beginning or where the checkpoint was taken."""
        job.prepared = prepared
        job.recorder = self.archive.recorder(job, checkpoint)
        return Training(
            job.job_id,
            prepared,
            time.monotonic_ns,
            share_memory=self.share_memory,
            thread_count=self.thread_count,
            pool=self.pool,
            costs=StepCosts(self.archive.totals.steps),
            lease_of=self.workers.registry.lease_of,
            # The server's incarnation, in the upper bits, with room for 2^32 generations below.
            generation=secrets.randbits(31) << 32,
            restore=None if checkpoint is None else functools.partial(restore, checkpoint=checkpoint),
            step_ended=functools.partial(_step_ended, job),
        )

    def _start(self, job: Job, training: Training) -> None:
        job.training = training
        job.life.become(Phase.TRAINING)
        if job.started_at_s is not None:
            step, was_paused = training.state.step, job.state != RUNNING
            resumed = log_event("job_resumed", job=job.job_id, step=step)
            log.info("job %s (%s) goes on after step %d", job.job_id, job.spec.name, step, extra=resumed)
            event = job_pb2.JobEvent(resumed=job_pb2.Resumed(step=step, was_paused=was_paused))
            self.archive.journal.append_event(job.job_id, event)
        else:
            job.started_at_s = time.time()
            log.info("job %s (%s) starts", job.job_id, job.spec.name, extra=log_event("job_started", job=job.job_id))
        if job.state != RUNNING:
            self.archive.store_state(job, RUNNING)

    async def _read_and_start(self, job: Job) -> None:
        """Read the data and the last checkpoint of a job from before a pause or a restart, and go on with it."""
        try:
            async with self._reading:
                prepared, checkpoint = await self.archive.read_again(job)
                training = self._training(job, prepared, checkpoint)
            if self._is_stopping:
                job.life.become(Phase.QUEUED)
            else:
                self._start(job, training)
                self._reallocate()
        except (InvalidSpec, DataChanged, OSError) as error:
            self._fail(job, code_pb2.FAILED_PRECONDITION, f"it can't go on: {error}")
        except Exception as error:
            # A job that can't be taken up must not hold up the others.
            failed = log_event("job_not_resumed", job=job.job_id)
            log.error("job %s can't be taken up again", job.job_id, exc_info=error, extra=failed)
            self._fail(job, code_pb2.INTERNAL, "it can't go on for an error of the server itself; its log says more")

    def _fail(self, job: Job, code: code_pb2.Code, message: str) -> None:
        message += self.archive.kept_checkpoint(job)
        log.warning("job %s failed: %s", job.job_id, message, extra=log_event("job_failed", job=job.job_id))
        job.error = status_pb2.Status(code=code, message=message)
        self._end(job, job_pb2.JOB_STATE_FAILED)

    def _end(self, job: Job, state: job_pb2.JobState) -> None:
        self.sharing.remove(job)
        job.life.become(Phase.ENDING, self._store_end(job, state))
        self._reallocate()

    async def _store_end(self, job: Job, state: job_pb2.JobState) -> None:
        try:
            await self._keep_model(job, state)
            await self._forget_old()
        finally:
            job.life.become(Phase.ENDED)

    async def _keep_model(self, job: Job, state: job_pb2.JobState) -> None:
        """Store the model and the end of a job; of one that is cancelled while it is paused, that of its checkpoint."""
        if state == job_pb2.JOB_STATE_CANCELLED and job.training is None and self.archive.has_checkpoint(job):
            try:
                async with self._reading:
                    prepared, checkpoint = await self.archive.read_again(job)
                    job.training = self._training(job, prepared, checkpoint)
            except (InvalidSpec, DataChanged, OSError) as error:
                state = job_pb2.JOB_STATE_FAILED
                message = f"it was cancelled, but has no model: {error}{self.archive.kept_checkpoint(job)}"
                job.error = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=message)
        await self.archive.keep_model(job, state)

    async def _forget_old(self) -> None:
        for job in beyond(self.jobs.all(), self.kept_jobs):
            try:
                await self._delete(job)
            except NotFound:
                continue  # its owner was quicker
            except StorageFull as error:
                extra = log_event("job_not_forgotten", job=job.job_id)
                log.warning("job %s: %s; it is tried again when the next job ends", job.job_id, error, extra=extra)
                return


def _step_ended(job: Job, training: Training, evaluation: PartialSum | None) -> None:
    job.pace.mark(time.monotonic(), training.state.step)
    if job.recorder is not None:
        job.recorder.step_ended(training, evaluation)
