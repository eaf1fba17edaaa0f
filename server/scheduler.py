"""Which job runs on which workers: first come, first served, one job at a time on all connected workers.

It holds a link to each worker; whatever a training wants to send goes there at once. All of it runs on the one event
loop, so nothing is locked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from google.rpc import code_pb2, status_pb2

from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.wire_codec import RawPart, Request
from server import model_file
from server.errors import NotFound, OutOfRange, ProtocolError, WrongState
from server.jobs import Job, JobBook
from server.links import Link
from server.prepared_job import PreparedJob
from server.training import Seat, Training, TrainingFailed

log = logging.getLogger(__name__)


@dataclass
class Scheduler:
    """The jobs, the connected workers, and the one job that runs."""

    book: JobBook
    models_folder: Path
    share_memory: bool = False
    # Large updates are made by so many threads, those of the pool and the event loop's own.
    thread_count: int = 1
    pool: Executor | None = None
    # None: registered, but not joined yet.
    _workers: dict[str, Link | None] = field(default_factory=dict)
    _running: Job | None = None

    def submit(self, prepared: PreparedJob) -> Job:
        """Put a job in the queue."""
        job = self.book.add(prepared, now_s=time.time())
        self._start_next()
        return job

    async def cancel(self, job: Job) -> None:
        """End a job. Raises WrongState where it has succeeded or failed."""
        if not job.is_final and job.ending is None:
            self._end(job, job_pb2.JOB_STATE_CANCELLED)
        if job.ending is not None:
            # A caller that gives up must not stop the storing of the model.
            await asyncio.shield(job.ending)
        if job.state != job_pb2.JOB_STATE_CANCELLED:
            raise WrongState(f"job {job.job_id} has ended already; there is nothing to cancel")

    def register(self, hello: pb.Hello) -> str:
        """A worker came: its name, made unique. It gets no job until it joins."""
        name = base = hello.name or "worker"
        number = 2
        while name in self._workers:
            name, number = f"{base}-{number}", number + 1
        self._workers[name] = None
        log.info("worker %s came (process %d, numpy %s, %s)", name, hello.process_id, hello.numpy_version, hello.blas)
        return name

    def join(self, name: str, link: Link) -> None:
        """A registered worker can be given jobs, by this link."""
        if name in self._workers:
            self._workers[name] = link
            log.info("worker %s joined, %s", name, "sharing memory" if link.shares_memory else "over gRPC")
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
            log.info("worker %s left", name)
            if link is not None:
                self._workers_changed()

    def close(self) -> None:
        """End the streams of all workers."""
        for link in self._workers.values():
            if link is not None:
                link.close()

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
            log.warning("job %s failed: %s", self._running.job_id, error)
            self._running.error = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=str(error))
            self._end(self._running, job_pb2.JOB_STATE_FAILED)
            return
        self._flush(training)
        if training.result is not None:
            self._end(self._running, job_pb2.JOB_STATE_SUCCEEDED)

    def shard_source(self, job_id: str, shard: int) -> PreparedJob:
        """The prepared rows of the running job. Raises NotFound, OutOfRange."""
        if self._running is None or self._running.job_id != job_id:
            raise NotFound(f"job {job_id!r} is not running")
        prepared = self._running.prepared
        if shard >= prepared.spec.training.shards:
            raise OutOfRange(f"job {job_id} has {prepared.spec.training.shards} shards, counted from 0; got {shard}")
        return prepared

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
            room = self._running.prepared.spec.training.shards - len(stay)
            if len(stay) < len(members) or (come and room > 0) or relinked:
                self._assign(training, stay + come)
        self._start_next()

    def _start_next(self) -> None:
        while self._running is None:
            job = self.book.next_queued()
            if job is None:
                break
            needed = job.prepared.spec.training.min_workers
            joined = self._joined()
            if len(joined) < needed:
                job.queued_for = f"workers: {len(joined)} of the {needed} that it asks for are connected"
                break
            job.training = Training(
                job.job_id,
                job.prepared,
                time.monotonic_ns,
                share_memory=self.share_memory,
                thread_count=self.thread_count,
                pool=self.pool,
            )
            job.started_at_s = time.time()
            self._running = job
            job.become(job_pb2.JOB_STATE_RUNNING)
            log.info("job %s (%s) starts on %d workers", job.job_id, job.prepared.spec.name, len(joined))
            self._assign(job.training, joined)
        for job in self.book.all():
            if job.state == job_pb2.JOB_STATE_QUEUED and self._running is not None:
                job.queued_for = f"job {self._running.job_id} to end"

    def _end(self, job: Job, state: job_pb2.JobState) -> None:
        if job is self._running:
            self._running = None
            if job.training is not None:
                self._assign(job.training, [])
        job.ending = asyncio.get_running_loop().create_task(self._keep_model(job, state))
        self._start_next()

    async def _keep_model(self, job: Job, state: job_pb2.JobState) -> None:
        """Store what was trained, then let the job be seen in its final state: a model that is there can be had."""
        if job.training is not None and job.training.state.step:
            path = self.models_folder / f"{job.job_id}.safetensors"
            content = model_file.encode(
                job.prepared,
                job_id=job.job_id,
                state=job.training.state,
            )
            try:
                await asyncio.to_thread(model_file.write, path, content)
                job.model_path = path
            except OSError as error:
                log.error("job %s: its model can't be stored: %s", job.job_id, error)
                job.error = status_pb2.Status(
                    code=code_pb2.RESOURCE_EXHAUSTED,
                    message=f"the model can't be stored in {path.parent}: {error.strerror}; mend that and train again",
                )
                state = job_pb2.JOB_STATE_FAILED
        # Jobs stay in the list for as long as the server lives, so what is in memory of their models goes.
        if job.training is not None:
            job.training.forget()
        job.ended_at_s = time.time()
        job.become(state)
        log.info("job %s: %s", job.job_id, job_pb2.JobState.Name(state))

    def _assign(self, training: Training, names: list[str]) -> None:
        training.set_workers(self._seats(names))
        for name in training.without_room:
            link = self._workers.get(name)
            if link is not None:
                log.warning("worker %s goes on over gRPC until it joins again: there is no room to share", name)
                self._workers[name] = link.without_memory()
        self._flush(training)

    def _flush(self, training: Training) -> None:
        for message in training.outbox:
            link = self._workers.get(message.name)
            if link is not None:
                link.send(message.response, message.descriptors)
        training.outbox.clear()
