"""How a job pauses and goes on: at a step's end it gives its workers back, and what it has goes to the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chainrule.process.logs import log_event
from chainrule.v1 import job_pb2
from chainrule_server.errors import WrongState
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.worker_sharing import Sharing

log = logging.getLogger(__name__)
QUEUED, PAUSED = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_PAUSED


@dataclass
class Pausing:
    """One change of a job after the other. share: has the workers shared anew."""

    archive: Archive
    sharing: Sharing
    share: Callable[[], None]

    async def pause(self, job: Job) -> None:
        """Let a job give its workers back at its step's end, and keep what it has until `resume`. Idempotent.

        Raises WrongState where it has ended, StorageFull where what it has can't be kept: then it goes on."""
        await self._in_turn(job, self._pause)

    async def resume(self, job: Job) -> None:
        """Put a paused job back at its place in the queue; one that isn't paused stays as it is.

        Raises WrongState where it has ended."""
        await self._in_turn(job, self._resume)

    def let_go(self, job: Job) -> bool:
        """Take the workers of a job that is to pause, where it stands at a step's end; whether they were taken.

        At once, as a worker's next message would let it go on."""
        training = job.training
        if training is None or job.step_end is None or job.step_end.is_set() or training.is_ordered:
            return False
        if not training.is_between_steps and training.workers:
            return False
        self.sharing.remove(job)
        job.step_end.set()
        return True

    async def _in_turn(self, job: Job, change: Callable[[Job], Awaitable[None]]) -> None:
        """A caller that gives up doesn't stop a change in its middle."""

        async def changed() -> None:
            async with job.turn:
                if job.preparing is not None:
                    await asyncio.shield(job.preparing)
                if job.is_final or job.ending is not None:
                    raise WrongState(f"job {job.job_id} has ended; submit it again to train it anew")
                await change(job)

        await asyncio.shield(asyncio.create_task(changed()))

    async def _pause(self, job: Job) -> None:
        if job.state == PAUSED:
            return
        job.step_end = asyncio.Event()
        try:
            if job.training is not None:
                await self._leave_off(job)
            job.step_end.set()
            job.progress = job.progress_now()
            job.progress.workers = 0
            await self._becomes(job, PAUSED)
            if job.training is not None:
                job.training.forget()
            # Its rows and its checkpoint are read again when it goes on.
            job.training = job.recorder = job.prepared = None
        except Exception:
            if job.training is not None and job.ending is None:
                job.training.is_held = False
                self.sharing.add(job)
            raise
        finally:
            job.step_end = None
            self.share()

    async def _leave_off(self, job: Job) -> None:
        """Wait for the end of a job's step, and have a checkpoint of it. Raises WrongState, StorageFull."""
        training, recorder, step_end = job.training, job.recorder, job.step_end
        if recorder is None:
            raise WrongState(f"this server writes no checkpoints, so job {job.job_id} can't pause once it runs")
        if training is None or step_end is None:
            raise TypeError("a job leaves off that doesn't train")
        training.is_held = True
        self.share()
        await step_end.wait()
        if job.ending is not None:
            raise WrongState(f"job {job.job_id} ended before it could pause")
        # Without workers, after a step whose evaluation nobody makes, the checkpoint before must do.
        if training.is_between_steps:
            await recorder.keep(training)

    async def _resume(self, job: Job) -> None:
        if job.state == PAUSED:
            await self._becomes(job, QUEUED)
            self.share()

    async def _becomes(self, job: Job, state: job_pb2.JobState) -> None:
        """Change a job's state, on the disk too."""
        self.archive.note_state(job, state)
        await self.archive.journal.written()
        name = job_pb2.JobState.Name(state)
        changed = log_event("job_state_changed", job=job.job_id, step=job.progress.step, state=name)
        log.info("job %s: %s", job.job_id, name, extra=changed)
