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
from chainrule_server.jobs.job_life import Phase
from chainrule_server.jobs.worker_sharing import WorkerSharing
from chainrule_server.training.training import Training

log = logging.getLogger(__name__)
QUEUED, PAUSED = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_PAUSED


@dataclass
class Pausing:
    """One change of a job after the other. reallocate: has the workers shared anew."""

    archive: Archive
    sharing: WorkerSharing
    reallocate: Callable[[], None]

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
        if training is None or job.life.phase is not Phase.LEAVING_OFF or training.is_ordered:
            return False
        if not training.is_between_steps and training.workers:
            return False
        self.sharing.remove(job)
        job.life.become(Phase.PAUSING)
        return True

    async def _in_turn(self, job: Job, change: Callable[[Job], Awaitable[None]]) -> None:
        """A caller that gives up doesn't stop a change in its middle."""

        async def changed() -> None:
            async with job.life.turn:
                await job.life.left(Phase.READING)
                if job.is_final or job.life.is_over:
                    raise WrongState(f"job {job.job_id} has ended; submit it again to train it anew")
                await change(job)

        await asyncio.shield(asyncio.create_task(changed()))

    async def _pause(self, job: Job) -> None:
        life = job.life
        if life.phase is Phase.PAUSED:
            return
        try:
            if job.training is not None:
                await self._leave_off(job, job.training)
            else:
                life.become(Phase.PAUSING)
            job.progress = job.progress_now()
            job.progress.workers = 0
            await self._becomes(job, PAUSED)
            life.become(Phase.PAUSED)
            if job.training is not None:
                job.training.end()
            # Its rows and its checkpoint are read again when it goes on.
            job.training = job.recorder = job.prepared = None
        except Exception:
            if life.phase in (Phase.LEAVING_OFF, Phase.PAUSING):
                self._go_on(job)
            raise
        finally:
            self.reallocate()

    def _go_on(self, job: Job) -> None:
        """What it has can't be kept, so it doesn't pause."""
        if job.training is None:
            job.life.become(Phase.QUEUED)
        else:
            job.life.become(Phase.TRAINING)
            job.training.is_held = False
            self.sharing.add(job)

    async def _leave_off(self, job: Job, training: Training) -> None:
        """Wait for the end of a job's step, and have a checkpoint of it. Raises WrongState, StorageFull."""
        recorder = job.recorder
        if recorder is None:
            raise WrongState(f"this server writes no checkpoints, so job {job.job_id} can't pause once it runs")
        job.life.become(Phase.LEAVING_OFF)
        training.is_held = True
        self.reallocate()
        await job.life.left(Phase.LEAVING_OFF)
        if job.life.is_over:
            raise WrongState(f"job {job.job_id} ended before it could pause")
        # Without workers, after a step whose evaluation nobody makes, the checkpoint before must do.
        if training.is_between_steps:
            await recorder.keep(training)

    async def _resume(self, job: Job) -> None:
        if job.life.phase is Phase.PAUSED:
            await self._becomes(job, QUEUED)
            # Whoever cancelled it meanwhile was faster.
            if job.life.phase is Phase.PAUSED:
                job.life.become(Phase.QUEUED)
                self.reallocate()

    async def _becomes(self, job: Job, state: job_pb2.JobState) -> None:
        """Change a job's state, on the disk too."""
        self.archive.store_state(job, state)
        await self.archive.journal.written()
        name = job_pb2.JobState.Name(state)
        changed = log_event("job_state_changed", job=job.job_id, step=job.progress.step, state=name)
        log.info("job %s: %s", job.job_id, name, extra=changed)
