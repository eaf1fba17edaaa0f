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

from chainrule.holding.errors import ProtocolError
from chainrule.holding.links import Link
from chainrule.process.logs import log_event
from chainrule.transport.wire_codec import RawPart, Request
from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.reduction import PartialSum
from chainrule_server.errors import InvalidSpec, NotFound, OutOfRange, PermissionDenied, StorageFull, WrongState
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.job_life import TAKES_WORKERS, Phase
from chainrule_server.jobs.pausing import Pausing
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.retention import beyond
from chainrule_server.jobs.worker_sharing import Sharing
from chainrule_server.limits import Limits
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.storage.checkpoint import Checkpoint
from chainrule_server.training.result import TrainingFailed
from chainrule_server.training.resume import DataChanged, restore
from chainrule_server.training.step_cost import StepCosts
from chainrule_server.training.training import Training
from chainrule_server.workers.departure import CONNECTION_LOST, Departure
from chainrule_server.workers.pool import WorkerPool
from chainrule_server.workers.registry import WorkerRecord

log = logging.getLogger(__name__)
STOP_TIMEOUT_S = 5.0
RUNNING = job_pb2.JOB_STATE_RUNNING


@dataclass
class Scheduler:
    """The jobs, the connected workers, and the jobs that run."""

    book: JobRegistry
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
        self.archive.journal.told = self._told
        self._sharing = Sharing(self.workers, self.archive.journal.note_event)
        self._pausing = Pausing(self.archive, self._sharing, self._share)

    async def submit(self, prepared: PreparedJob, *, request_id: str = "", request_sha256: str = "") -> Job:
        """Put a job in the queue; it is on the disk when it is returned. request_sha256: of the spec as it was sent.

        A job that a request with this id made before is returned in place of a second one.
        Raises StorageFull, LimitExceeded, and InvalidSpec where that job has another spec."""
        job = Job(
            self.book.new_id(),
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
        self.limits.check_new_job(active_jobs=len(self.book.active()), jobs=len(self.book.all()))

    def restore(self) -> None:
        """Take up every job of the archive again: those that ran, then the queue. Raises StoreError."""
        for job in self.archive.jobs():
            self.book.add(job)
            if job.state == RUNNING:
                self._sharing.add(job)
                self._begin(job)
        self._forgetting = asyncio.get_running_loop().create_task(self._forget_old())
        self._share()

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

    def register(self, hello: pb.Hello, *, address: str = "") -> WorkerRecord:
        """A worker came, with its name made unique. It gets no job until it joins."""
        return self.workers.register(hello, address=address)

    def join(self, name: str, link: Link) -> None:
        """A registered worker can be given jobs, by this link."""
        if self.workers.join(name, link):
            self._share()

    def relink(self, name: str, link: Link) -> None:
        """A worker is reached by another link from now on."""
        if self.workers.relink(name, link):
            self._share(relinked=(name,))

    def owes(self, name: str) -> tuple[bool, bool]:
        """Whether a worker has something to do for its job, and whether that is the first since it was assigned."""
        training = self.training_of(name)
        return (False, False) if training is None else training.owes(name)

    def look_after(self, name: str) -> None:
        """Called now and then for every worker: see whether its job's shards are in the right hands."""
        self._sharing.look_after(name)

    def where(self, name: str) -> str:
        """Where the job of a worker is, in words that end a sentence; empty without one."""
        training = self.training_of(name)
        return "" if training is None else f"; job {training.job_id} is at step {training.state.step + 1}"

    def leave(self, name: str, loss: Departure = CONNECTION_LOST) -> None:
        """A worker is gone; its shards go to the others."""
        training = self.training_of(name)
        if training is not None:
            self.archive.journal.note_event(training.job_id, loss.event(name))
        if self.workers.leave(name, loss):
            self._share()

    @property
    def worker_count(self) -> int:
        """The workers that can be given jobs."""
        return len(self.workers.joined)

    def report_loss(self, name: str, loss: Departure) -> None:
        """Somebody saw how a worker that is gone ended. Raises NotFound where no job that goes on is concerned."""
        job_id = self.workers.book.last_job(name)
        if job_id is None or self.book.find(job_id).is_final:
            raise NotFound(f"no job that goes on has had a worker {name[:64]!r}")
        self.archive.journal.note_event(job_id, loss.event(name))

    def training_of(self, name: str) -> Training | None:
        """The training that a worker serves; it may hold no shards of it now."""
        job = self._sharing.job_of(name)
        training = None if job is None else job.training
        return training if training is not None and name in training.roster.seated else None

    async def stop(self) -> None:
        """Write last checkpoints and what has ended; from now on no job advances or begins."""
        self._is_stopping = True
        running = [*self._sharing.running.values()]
        await asyncio.gather(*(job.recorder.finish(job.training) for job in running if job.recorder is not None))
        self._sharing.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                for job in self.book.all():
                    await job.life.left(Phase.ENDING)

    def close(self) -> None:
        """End the streams of all workers."""
        self.workers.close()

    def receive(self, name: str, request: Request) -> None:
        """A message of a worker. Raises ProtocolError, which ends the worker's stream."""
        job = self._sharing.job_of(name)
        training = None if job is None else job.training
        if isinstance(request, RawPart):
            if training is not None:
                training.receive_part(name, request)
                self._sharing.flush(training)
            return
        kind = request.WhichOneof("message")
        if kind not in ("ready", "partial_sum", "failure"):
            raise ProtocolError(f"a worker's stream goes on with ready, part, partial_sum or failure, not {kind}")
        if job is None or training is None:
            return
        try:
            # A worker that has just changed its job may still answer for the one before.
            if kind == "ready" and request.ready.job_id == training.job_id:
                training.ready(name, request.ready)
            elif kind == "partial_sum" and request.partial_sum.job_id == training.job_id:
                training.receive(name, request.partial_sum)
            elif kind == "failure" and request.failure.job_id == training.job_id:
                training.receive_failure(name, request.failure)
        except TrainingFailed as error:
            log.warning("job %s failed: %s", job.job_id, error, extra=log_event("job_failed", job=job.job_id))
            job.error = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=str(error))
            self._end(job, job_pb2.JOB_STATE_FAILED)
            return
        self._sharing.flush(training)
        if training.result is not None:
            self._end(job, job_pb2.JOB_STATE_SUCCEEDED)
        elif training.is_held and not training.is_ordered:
            self._share()

    def shard_source(self, job_id: str, shard: int, *, worker: str) -> PreparedJob:
        """The prepared rows of a running job, for a worker that was given the shard.

        Raises NotFound, OutOfRange, PermissionDenied."""
        job = self._sharing.running.get(job_id)
        if job is None or job.prepared is None:
            raise NotFound(f"job {job_id!r} is not running")
        if shard >= job.spec.training.shards:
            raise OutOfRange(f"job {job_id} has {job.spec.training.shards} shards, counted from 0; got {shard}")
        if job.training is None or not job.training.may_read(worker, shard):
            raise PermissionDenied(f"shard {shard} of job {job_id} is not among those of worker {worker}")
        return job.prepared

    def _share(self, *, relinked: Container[str] = ()) -> None:
        """Something has changed: share the workers anew, begin whose turn it is, let go those that are to pause."""
        if self._is_stopping:
            return
        jobs = [job for job in self.book.active() if job.life.phase in TAKES_WORKERS]
        for job in self._sharing.share(jobs, relinked=relinked):
            self._begin(job)
        is_anyone_gone = [self._pausing.let_go(job) for job in jobs if job.life.phase is Phase.LEAVING_OFF]
        if any(is_anyone_gone):
            self._share()

    async def _add(self, job: Job) -> Job:
        # One after the other: the order on the disk is the order of the queue.
        async with self._submitting:
            known = self.book.of_request(job.request_id, job.request_sha256)
            if known is not None:
                return known
            self.check_room()
            await self.archive.add(job)
            self.book.add(job)
        self._share()
        return job

    async def _delete(self, job: Job) -> None:
        await self.archive.delete(job)
        self.book.remove(job)

    def _told(self, job_id: str, last_event: int) -> None:
        job = self.book.find(job_id)
        job.last_event = last_event
        job.wake()

    def _begin(self, job: Job) -> None:
        """Start a job whose turn it is; one from before a pause or a restart is read in first."""
        if job.prepared is None:
            job.life.become(Phase.READING, self._take_up(job))
        else:
            self._start(job, self._training(job, job.prepared, None))
            self._sharing.seat(job)

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
            lease_of=self.workers.book.lease_of,
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
            self.archive.journal.note_event(job.job_id, event)
        else:
            job.started_at_s = time.time()
            log.info("job %s (%s) starts", job.job_id, job.spec.name, extra=log_event("job_started", job=job.job_id))
        if job.state != RUNNING:
            self.archive.note_state(job, RUNNING)

    async def _take_up(self, job: Job) -> None:
        """Read the data and the last checkpoint of a job from before a pause or a restart, and go on with it."""
        try:
            async with self._reading:
                prepared, checkpoint = await self.archive.read_again(job)
                training = self._training(job, prepared, checkpoint)
            if self._is_stopping:
                job.life.become(Phase.QUEUED)
            else:
                self._start(job, training)
                self._share()
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
        self._sharing.remove(job)
        job.life.become(Phase.ENDING, self._store_end(job, state))
        self._share()

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
        for job in beyond(self.book.all(), self.kept_jobs):
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
