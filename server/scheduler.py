"""Which job runs on which workers: first come, first served, one job at a time on all connected workers.

It holds a link to each worker; whatever a training wants to send goes there at once. All of it runs on the one event
loop, so nothing is locked. What a server left when it ended, or was killed, is in the archive; `restore` takes it up.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field

from google.rpc import code_pb2, status_pb2

from chainrule.logs import log_event
from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.wire_codec import RawPart, Request
from server.archive import Archive
from server.checkpoint import Checkpoint
from server.errors import InvalidSpec, NotFound, OutOfRange, ProtocolError, WrongState
from server.jobs import Job, JobBook
from server.links import Link
from server.prepared_job import PreparedJob
from server.resume import DataChanged, restore
from server.step_cost import StepCosts
from server.team import Seat
from server.training import Training, TrainingFailed

log = logging.getLogger(__name__)
STOP_TIMEOUT_S = 5.0


@dataclass
class Scheduler:
    """The jobs, the connected workers, and the one job that runs."""

    book: JobBook
    archive: Archive
    share_memory: bool = False
    # Large updates are made by so many threads, those of the pool and the event loop's own.
    thread_count: int = 1
    pool: Executor | None = None
    # None: registered, but not joined yet.
    _workers: dict[str, Link | None] = field(default_factory=dict)
    _running: Job | None = None
    _is_stopping: bool = False
    _submitting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.archive.journal.told = self._told

    async def submit(self, prepared: PreparedJob, *, request_id: str = "", request_sha256: str = "") -> Job:
        """Put a job in the queue; it is on the disk when it is returned. request_sha256: of the spec as it was sent.

        A job that a request with this id made before is returned in place of a second one.
        Raises StorageFull, and InvalidSpec where that job has another spec."""
        digest = await self.archive.data_sha256(prepared)
        job = Job(
            self.book.new_id(),
            prepared.spec,
            time.time(),
            prepared,
            request_id,
            request_sha256,
            digest,
            progress=job_pb2.Progress(total_steps=prepared.total_steps),
        )
        # A caller that gives up must not leave a job on the disk that nobody here knows.
        return await asyncio.shield(asyncio.create_task(self._add(job)))

    def restore(self) -> None:
        """Take up every job of the archive again: those that ran, then the queue. Raises StoreError."""
        for job in self.archive.jobs():
            self.book.add(job)
        self._start_next()

    async def cancel(self, job: Job) -> None:
        """End a job. Raises WrongState where it has succeeded or failed."""
        if job.preparing is not None:
            # Its checkpoint becomes its model, for which its data must be there.
            await asyncio.shield(job.preparing)
        if not job.is_final and job.ending is None:
            self._end(job, job_pb2.JOB_STATE_CANCELLED)
        if job.ending is not None:
            # A caller that gives up must not stop the storing of the model.
            await asyncio.shield(job.ending)
        if job.state != job_pb2.JOB_STATE_CANCELLED:
            raise WrongState(f"job {job.job_id} has ended already; there is nothing to cancel")

    async def delete(self, job: Job) -> None:
        """Forget a job that has ended, with its events, its model and its checkpoints.

        Raises WrongState while it hasn't ended, NotFound where it was deleted meanwhile, StorageFull."""
        if not job.is_final:
            raise WrongState(f"job {job.job_id} has not ended; cancel it first ('chainrule cancel {job.job_id}')")
        # A caller that gives up must not leave a job here that isn't on the disk.
        await asyncio.shield(asyncio.create_task(self._delete(job)))

    def register(self, hello: pb.Hello) -> str:
        """A worker came: its name, made unique. It gets no job until it joins."""
        name = base = hello.name or "worker"
        number = 2
        while name in self._workers:
            name, number = f"{base}-{number}", number + 1
        self._workers[name] = None
        log.info(
            "worker %s came (process %d, numpy %s, %s)", name, hello.process_id, hello.numpy_version, hello.blas,
            extra=log_event("worker_came", worker=name, process_id=hello.process_id),
        )  # fmt: skip
        return name

    def join(self, name: str, link: Link) -> None:
        """A registered worker can be given jobs, by this link."""
        if name in self._workers:
            self._workers[name] = link
            how = "sharing memory" if link.shares_memory else "over gRPC"
            log.info("worker %s joined, %s", name, how, extra=log_event("worker_joined", worker=name))
            self._workers_changed()

    def relink(self, name: str, link: Link) -> None:
        """A worker is reached by another link from now on."""
        if self._workers.get(name) is not None:
            self._workers[name] = link
            training = None if self._running is None else self._running.training
            self._workers_changed(relinked=training is not None and name in training.workers)

    def leave(self, name: str) -> None:
        """A worker is gone; its shards go to the others."""
        if name in self._workers:
            link = self._workers.pop(name)
            log.info("worker %s left", name, extra=log_event("worker_left", worker=name))
            if link is not None:
                self._workers_changed()

    async def stop(self) -> None:
        """Write a last checkpoint and what has ended; from now on no job advances or begins."""
        self._is_stopping = True
        job = self._running
        if job is not None and job.recorder is not None:
            await job.recorder.finish(job.training)
        self._running = None
        endings = [other.ending for other in self.book.all() if other.ending is not None and not other.ending.done()]
        if endings:
            await asyncio.wait(endings, timeout=STOP_TIMEOUT_S)

    def close(self) -> None:
        """End the streams of all workers."""
        for link in self._workers.values():
            if link is not None:
                # The stream with the socket: a worker that had only lost the socket would go on with the stream.
                link.without_memory().close()

    def receive(self, name: str, request: Request) -> None:
        """A message of a worker. Raises ProtocolError, which ends the worker's stream."""
        training = None if self._running is None else self._running.training
        if isinstance(request, RawPart):
            if training is not None:
                training.receive_part(name, request)
                self._flush(training)
            return
        kind = request.WhichOneof("message")
        if kind not in ("ready", "partial_sum", "failure"):
            raise ProtocolError(f"a worker's stream goes on with ready, part, partial_sum or failure, not {kind}")
        if self._running is None or training is None:
            return
        try:
            if kind == "ready" and request.ready.job_id == training.job_id:
                training.ready(name, request.ready)
            elif kind == "partial_sum" and request.partial_sum.job_id == training.job_id:
                training.receive(name, request.partial_sum)
            elif kind == "failure" and request.failure.job_id == training.job_id:
                training.receive_failure(name, request.failure)
        except TrainingFailed as error:
            log.warning("job %s failed: %s", training.job_id, error, extra=log_event("job_failed", job=training.job_id))
            self._running.error = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=str(error))
            self._end(self._running, job_pb2.JOB_STATE_FAILED)
            return
        self._flush(training)
        if training.result is not None:
            self._end(self._running, job_pb2.JOB_STATE_SUCCEEDED)

    def shard_source(self, job_id: str, shard: int) -> PreparedJob:
        """The prepared rows of the running job. Raises NotFound, OutOfRange."""
        prepared = None if self._running is None else self._running.prepared
        if self._running is None or self._running.job_id != job_id or prepared is None:
            raise NotFound(f"job {job_id!r} is not running")
        if shard >= prepared.spec.training.shards:
            raise OutOfRange(f"job {job_id} has {prepared.spec.training.shards} shards, counted from 0; got {shard}")
        return prepared

    @property
    def worker_count(self) -> int:
        """The workers that can be given jobs."""
        return len(self._joined())

    def _joined(self) -> list[str]:
        return [name for name, link in self._workers.items() if link is not None]

    def _seats(self, names: list[str]) -> list[Seat]:
        found = ((name, self._workers.get(name)) for name in names)
        return [Seat(name, shares_memory=link.shares_memory) for name, link in found if link is not None]

    def _workers_changed(self, *, relinked: bool = False) -> None:
        if self._running is not None and self._running.training is not None:
            training = self._running.training
            members = training.workers
            joined = self._joined()
            stay = [name for name in members if name in joined]
            come = [name for name in joined if name not in members]
            room = self._running.spec.training.shards - len(stay)
            if len(stay) < len(members) or (come and room > 0) or relinked:
                self._assign(training, stay + come)
        self._start_next()

    async def _add(self, job: Job) -> Job:
        # One after the other: the order on the disk is the order of the queue.
        async with self._submitting:
            known = self.book.of_request(job.request_id, job.request_sha256)
            if known is not None:
                return known
            await self.archive.add(job)
            self.book.add(job)
        self._start_next()
        return job

    async def _delete(self, job: Job) -> None:
        await self.archive.delete(job)
        self.book.remove(job)

    def _told(self, job_id: str, last_event: int) -> None:
        job = self.book.find(job_id)
        job.last_event = last_event
        job.wake()

    def _start_next(self) -> None:
        while self._running is None and not self._is_stopping:
            job = self.book.next_in_line()
            if job is None:
                break
            needed = job.spec.training.min_workers
            joined = self._joined()
            if not job.is_resuming and len(joined) < needed:
                job.queued_for = f"workers: {len(joined)} of the {needed} that it asks for are connected"
                break
            self._running = job
            if job.prepared is None:
                job.preparing = asyncio.get_running_loop().create_task(self._take_up(job))
            else:
                self._start(job, job.prepared)
        for job in self.book.all():
            if job.state == job_pb2.JOB_STATE_QUEUED and self._running is not None and job is not self._running:
                job.queued_for = f"job {self._running.job_id} to end"

    def _start(self, job: Job, prepared: PreparedJob, checkpoint: Checkpoint | None = None) -> None:
        """Begin a job whose turn it is, or go on with it after a restart."""
        job.recorder = self.archive.recorder(job, checkpoint)
        is_resuming = job.is_resuming
        job.training = Training(
            job.job_id,
            prepared,
            time.monotonic_ns,
            share_memory=self.share_memory,
            thread_count=self.thread_count,
            pool=self.pool,
            costs=StepCosts(self.archive.totals.steps),
            # The server's incarnation, in the upper bits, with room for 2^32 generations below.
            generation=secrets.randbits(31) << 32,
            restore=None if checkpoint is None else functools.partial(restore, checkpoint=checkpoint),
            step_ended=None if job.recorder is None else job.recorder.step_ended,
        )
        if is_resuming:
            step = job.training.state.step
            resumed = log_event("job_resumed", job=job.job_id, step=step)
            log.info("job %s (%s) goes on after step %d", job.job_id, job.spec.name, step, extra=resumed)
            self.archive.journal.note_event(job.job_id, job_pb2.JobEvent(resumed=job_pb2.Resumed(step=step)))
        else:
            job.started_at_s = time.time()
            started, worker_count = log_event("job_started", job=job.job_id), len(self._joined())
            log.info("job %s (%s) starts on %d workers", job.job_id, job.spec.name, worker_count, extra=started)
            self.archive.note_state(job, job_pb2.JOB_STATE_RUNNING)
        self._assign(job.training, self._joined())

    async def _take_up(self, job: Job) -> None:
        """Read the data and the last checkpoint of a job from before a restart, and go on with it."""
        try:
            job.prepared, checkpoint = await self.archive.read_again(job)
            self._start(job, job.prepared, checkpoint)
        except (InvalidSpec, DataChanged, OSError) as error:
            self._fail(job, code_pb2.FAILED_PRECONDITION, f"it can't go on after the server's restart: {error}")
        except Exception as error:
            # A job that can't be taken up must not hold up the others.
            failed = log_event("job_not_resumed", job=job.job_id)
            log.error("job %s can't be taken up again", job.job_id, exc_info=error, extra=failed)
            self._fail(job, code_pb2.INTERNAL, "an error of the server itself after its restart; its log says more")
        finally:
            job.preparing = None

    def _fail(self, job: Job, code: code_pb2.Code, message: str) -> None:
        message += self.archive.kept_checkpoint(job)
        log.warning("job %s failed: %s", job.job_id, message, extra=log_event("job_failed", job=job.job_id))
        job.error = status_pb2.Status(code=code, message=message)
        self._end(job, job_pb2.JOB_STATE_FAILED)

    def _end(self, job: Job, state: job_pb2.JobState) -> None:
        if job is self._running:
            self._running = None
            if job.training is not None:
                self._assign(job.training, [])
        job.ending = asyncio.get_running_loop().create_task(self.archive.keep_model(job, state))
        self._start_next()

    def _assign(self, training: Training, names: list[str]) -> None:
        before = training.workers
        training.set_workers(self._seats(names))
        after = training.workers
        joined, left = [name for name in after if name not in before], [name for name in before if name not in after]
        is_running = self._running is not None and self._running.training is training
        if (joined or left) and is_running:
            event = job_pb2.JobEvent(
                workers_changed=job_pb2.WorkersChanged(joined=joined, left=left, worker_count=len(after))
            )
            self.archive.journal.note_event(training.job_id, event)
        for name in training.without_room:
            link = self._workers.get(name)
            if link is not None:
                lacking = log_event("worker_without_memory", worker=name, job=training.job_id)
                message = "worker %s goes on over gRPC until it joins again: there is no room to share"
                log.warning(message, name, extra=lacking)
                self._workers[name] = link.without_memory()
        self._flush(training)

    def _flush(self, training: Training) -> None:
        for message in training.outbox:
            link = self._workers.get(message.name)
            if link is not None:
                link.send(message.response, message.descriptors)
        training.outbox.clear()
