"""What the disk holds of jobs, and how it gets there and back: the scheduler's memory across restarts.

It decides nothing: which job runs is the scheduler's. A job's state is seen only once it is on the disk.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from google.rpc import code_pb2, status_pb2

from chainrule.process.logs import log_event
from chainrule.v1 import job_pb2
from chainrule_server.errors import InvalidSpec, NotFound, StorageFull, WrongState
from chainrule_server.jobs.job import Job
from chainrule_server.models import model_file
from chainrule_server.models.model_file import Provenance
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.spec_check import spec_sha256
from chainrule_server.storage import durable_file
from chainrule_server.storage.checkpoint import Checkpoint
from chainrule_server.storage.checkpoint_folder import KEPT_LAST, CheckpointFolder
from chainrule_server.storage.journal import Journal
from chainrule_server.storage.store import IN_MEMORY, Store, StoreError
from chainrule_server.training.recorder import Recorder
from chainrule_server.training.resume import DataChanged
from chainrule_server.training.totals import Totals

log = logging.getLogger(__name__)
START_SUFFIX = ".start.safetensors"


@dataclass
class Archive:
    """checkpoints_folder: None where no checkpoints are written. checkpoint_every_s: 0: only those that jobs ask for.

    prepare: makes a job of a spec ready, in a thread, whether it is new or goes on."""

    models_folder: Path
    checkpoints_folder: Path | None = None
    checkpoint_every_s: float = 0.0
    journal: Journal = field(default_factory=lambda: Journal(Store(IN_MEMORY)))
    prepare: Callable[..., PreparedJob] = prepare
    # The last checkpoints of a job that has not ended; at least 1.
    kept_checkpoints: int = KEPT_LAST
    totals: Totals = field(default_factory=Totals)
    _last_end_number: int = 0

    def jobs(self) -> list[Job]:
        """Every job that is stored, in the order of their creation. Raises StoreError."""
        last_events = self.journal.store.last_events()
        found = []
        for record in self.journal.store.jobs():
            path = self.models_folder / f"{record.job_id}.safetensors"
            found.append(Job.of_record(record, last_event=last_events.get(record.job_id, 0), model_path=path))
            if found[-1].is_final:
                self._drop_checkpoints(found[-1])
        self._last_end_number = max((job.end_number for job in found), default=0)
        known = {self._start_path(job) for job in found}
        for path in set(self.models_folder.glob(f"*{START_SUFFIX}")) - known:
            # A server was killed between this file and its job.
            path.unlink(missing_ok=True)
        return found

    async def add(self, job: Job) -> None:
        """Store a new job, and what it starts from. Raises StorageFull, with nothing stored."""
        start = None if job.prepared is None else job.prepared.start
        if start is not None:
            try:
                await asyncio.to_thread(durable_file.write, self._start_path(job), start.content)
            except OSError as error:
                raise StorageFull(f"what the job starts from can't be stored: {error.strerror}") from error
        try:
            job.number = await self.journal.add(job.record(job.state), _state_event(job, job.state))
        except StoreError as error:
            self._start_path(job).unlink(missing_ok=True)
            raise StorageFull(f"the job can't be stored, and wasn't: {error}") from error
        job.last_event = 1

    def store_state(self, job: Job, state: job_pb2.JobState) -> None:
        """Change a job's state; it is seen once it is on the disk."""
        self.journal.append(job.record(state), _state_event(job, state), then=lambda: job.become(state))

    def recorder(self, job: Job, checkpoint: Checkpoint | None) -> Recorder | None:
        """What keeps a job's metrics and checkpoints while it trains. checkpoint: that it goes on from."""
        if self.checkpoints_folder is None:
            return None
        return Recorder(
            self.journal,
            self._checkpoints(job),
            spec_sha256=spec_sha256(job.spec),
            data_sha256=job.data_sha256,
            every_s=self.checkpoint_every_s,
            every_steps=job.spec.training.checkpoint_every_steps,
            totals=self.totals.checkpoints,
            last_step=0 if checkpoint is None else checkpoint.step,
        )

    async def read_again(self, job: Job) -> tuple[PreparedJob, Checkpoint | None]:
        """The rows of a job from before a restart, and its last checkpoint that is sound.

        Raises InvalidSpec where the rows are gone, DataChanged, OSError."""
        prepared = await asyncio.to_thread(self._prepare_again, job)
        if job.data_sha256 and prepared.rows.sha256 != job.data_sha256:
            raise DataChanged(
                f"data.uri: the rows of {job.spec.data.uri!r} are not those that the job was created with; it would be "
                "another job, so submit it again"
            )
        if self.checkpoints_folder is None:
            return prepared, None
        find = functools.partial(self._checkpoints(job).latest, spec_sha256=spec_sha256(job.spec))
        checkpoint, damaged = await asyncio.to_thread(find)
        for file, reason in damaged:
            event = job_pb2.JobEvent(checkpoint_damaged=job_pb2.CheckpointDamaged(file=file, reason=reason))
            self.journal.append_event(job.job_id, event, name=f"damaged {file}")
        return prepared, checkpoint

    def checkpoints(self, job: Job) -> CheckpointFolder | None:
        """The job's checkpoints; None where this server writes none."""
        return None if self.checkpoints_folder is None else self._checkpoints(job)

    async def with_rows(self, job: Job) -> PreparedJob:
        """The job with its rows, which are read again where it has ended. Raises WrongState where they are gone."""
        if job.prepared is not None:
            return job.prepared
        try:
            return await asyncio.to_thread(self._prepare_again, job)
        except InvalidSpec as error:
            raise WrongState(f"the rows of job {job.job_id} can't be read again: {error}") from error

    def has_checkpoint(self, job: Job) -> bool:
        """Whether something is kept that a job can go on from."""
        return self.checkpoints_folder is not None and bool(self._checkpoints(job).steps())

    def kept_checkpoint(self, job: Job) -> str:
        """Which checkpoint there is of a job that can't go on, in words; empty without one."""
        if not self.has_checkpoint(job):
            return ""
        folder = self._checkpoints(job)
        return f" (the checkpoint of step {folder.steps()[-1]} is kept in {folder.path})"

    async def keep_model(self, job: Job, state: job_pb2.JobState) -> None:
        """Store what was trained, then let the job be seen in its final state: a model that is there can be had."""
        if job.recorder is not None:
            await job.recorder.finish()
        if job.training is not None and job.prepared is not None and job.training.state.step:
            trained = TrainedModel.of(job.prepared, job.training.state, step=job.training.parameters_step)
            if not await self._store_model(job, trained):
                state = job_pb2.JOB_STATE_FAILED
            del trained
        job.progress = job.progress_now()
        if job.training is not None and state == job_pb2.JOB_STATE_SUCCEEDED:
            job.result = job.training.result
        # Jobs stay in the list for as long as the server lives, so what is large goes; `with_rows` reads rows again.
        if job.training is not None:
            job.ended_training = job.training.end()
        job.training = job.prepared = None
        job.ended_at_s = time.time()
        self._last_end_number += 1
        job.end_number = self._last_end_number
        self.store_state(job, state)
        await self.journal.written()
        ended = log_event("job_ended", job=job.job_id, step=job.progress.step, state=job_pb2.JobState.Name(state))
        log.info("job %s: %s", job.job_id, job_pb2.JobState.Name(state), extra=ended)
        # In a thread: to free gigabytes takes a file system its time, and other jobs go on.
        await asyncio.to_thread(self._drop_checkpoints, job)

    async def _store_model(self, job: Job, trained: TrainedModel) -> bool:
        """Whether the model of a job is on the disk now; where it isn't, that is the job's error."""
        path = self.models_folder / f"{job.job_id}.safetensors"
        provenance = Provenance(job.job_id, job.data_sha256, time.time(), job.worker_kinds)
        try:
            await asyncio.to_thread(lambda: durable_file.write(path, model_file.encode(trained, provenance)))
        except OSError as error:
            failed = log_event("model_not_stored", job=job.job_id)
            log.error("job %s: its model can't be stored: %s", job.job_id, error, extra=failed)
            job.error = status_pb2.Status(
                code=code_pb2.RESOURCE_EXHAUSTED,
                message=f"the model can't be stored in {path.parent}: {error.strerror}; mend that and train again",
            )
            return False
        job.model_path = path
        return True

    async def delete(self, job: Job) -> None:
        """Forget a job that has ended. Raises StorageFull, NotFound where it was deleted already."""
        # A final state is on the disk before it is seen, so nothing more is written of the job.
        try:
            was_there = await self.journal.run(functools.partial(self.journal.store.delete, job.job_id))
        except StoreError as error:
            raise StorageFull(f"the job can't be deleted, and wasn't: {error}") from error
        if not was_there:
            raise NotFound(f"job {job.job_id} was deleted already")
        log.info("job %s (%s) is deleted", job.job_id, job.spec.name, extra=log_event("job_deleted", job=job.job_id))
        try:
            if job.model_path is not None:
                await asyncio.to_thread(job.model_path.unlink, missing_ok=True)
            await asyncio.to_thread(self._start_path(job).unlink, missing_ok=True)
            if self.checkpoints_folder is not None:
                await asyncio.to_thread(self._checkpoints(job).remove)
        except OSError as error:
            # The job is gone whatever becomes of its files, whose names are never used again.
            extra = log_event("files_not_removed", job=job.job_id)
            log.warning("job %s: its files can't be removed: %s", job.job_id, error, extra=extra)

    def _prepare_again(self, job: Job) -> PreparedJob:
        if job.spec.model.HasField("start"):
            return self.prepare(job.spec, start_path=self._start_path(job))
        return self.prepare(job.spec)

    def _start_path(self, job: Job) -> Path:
        """The copy of what a job starts from."""
        return self.models_folder / f"{job.job_id}{START_SUFFIX}"

    def _checkpoints(self, job: Job) -> CheckpointFolder:
        if self.checkpoints_folder is None:
            raise TypeError("this server writes no checkpoints")
        return CheckpointFolder(self.checkpoints_folder / job.job_id, self.kept_checkpoints)

    def _drop_checkpoints(self, job: Job) -> None:
        """Of a job that has ended only the model is needed; one that failed may be looked into."""
        if self.checkpoints_folder is None or job.state == job_pb2.JOB_STATE_FAILED:
            return
        try:
            self._checkpoints(job).remove()
        except OSError as error:
            extra = log_event("files_not_removed", job=job.job_id)
            log.warning("job %s: its checkpoints can't be removed: %s", job.job_id, error, extra=extra)


def _state_event(job: Job, state: job_pb2.JobState) -> job_pb2.JobEvent:
    return job_pb2.JobEvent(state_changed=job_pb2.StateChanged(state=state, error=job.error))
