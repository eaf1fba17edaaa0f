"""What is kept of a job while it trains: metrics, and a checkpoint every so many steps and seconds.

At a step's end the vectors are copied; hashing and writing are another thread's. While a checkpoint is being written
no other is begun. When one is due is decided by time, which no bit of the result depends on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field, replace

from chainrule.process.logs import log_event
from chainrule.v1 import job_pb2
from chainrule_engine.reduction import PartialSum
from chainrule_server.errors import StorageFull
from chainrule_server.storage.checkpoint import Checkpoint
from chainrule_server.storage.checkpoint_folder import CheckpointFolder
from chainrule_server.storage.journal import Journal
from chainrule_server.storage.store import MetricRow, StoreError
from chainrule_server.training.result import measures_of
from chainrule_server.training.resume import capture
from chainrule_server.training.totals import CheckpointTotals
from chainrule_server.training.training import Training
from chainrule_server.training.zero_gradient import zero_gradient_event

log = logging.getLogger(__name__)
# Of a job so many steps and so many epochs are kept at most, evenly spread.
MOST_STEPS = 1_000
MOST_EPOCHS = 10_000
EVALUATION_TIMEOUT_S = 2.0


@dataclass
class Recorder:
    """Of one job. every_s: seconds between two checkpoints; 0: only those that the job asks for."""

    journal: Journal
    folder: CheckpointFolder
    spec_sha256: str
    data_sha256: str
    every_s: float
    every_steps: int = 0
    totals: CheckpointTotals = field(default_factory=CheckpointTotals)
    # Of the last checkpoint; 0 before the first.
    last_step: int = 0
    _last_at_s: float = field(default_factory=time.monotonic)
    _writing: asyncio.Task[None] | None = None
    # Why the last checkpoint couldn't be written; empty where it was.
    _trouble: str = ""
    # Set by the next step's end, which is then written; None while the server goes on.
    _is_last: asyncio.Event | None = None

    def step_ended(self, training: Training, evaluation: PartialSum | None) -> None:
        """A step is over, with what belongs to an epoch's end: the evaluation of the validation rows."""
        self._measure(training, evaluation)
        step = training.state.step
        if step == 1 and training.is_first_gradient_zero:
            event = zero_gradient_event(training.job, training.state)
            self.journal.append_event(training.job_id, event, name="gradient is zero")
        is_due = self.every_steps > 0 and step % self.every_steps == 0
        if self._is_last is not None:
            self._is_last.set()
            is_due = True
        if is_due or (self.every_s > 0 and time.monotonic() - self._last_at_s >= self.every_s):
            self._begin(training)

    async def finish(self, training: Training | None = None) -> None:
        """Wait for the checkpoint that is being written; write another of a training that stands between two steps."""
        await self._written()
        if training is None or not (self.every_s or self.every_steps):
            return
        if training.is_between_steps:
            if training.state.step != self.last_step:
                self._begin(training)
        else:
            # An evaluation belongs to the step before it.
            self._is_last = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVALUATION_TIMEOUT_S):
                    await self._is_last.wait()
        await self._written()

    async def keep(self, training: Training) -> None:
        """Have a checkpoint of where a training stands, between two steps. Raises StorageFull."""
        await self._written()
        if self._trouble or training.state.step != self.last_step:
            self._begin(training)
        await self._written()
        if self._trouble:
            raise StorageFull(f"the checkpoint of step {training.state.step} can't be written: {self._trouble}")

    async def _written(self) -> None:
        """Wait for the checkpoint that is being written."""
        if self._writing is not None:
            await self._writing

    def _measure(self, training: Training, evaluation: PartialSum | None) -> None:
        step, total_steps = training.state.step, training.job.total_steps
        epoch, rest = divmod(step, training.job.schedule.steps_per_epoch)
        epochs = training.job.spec.training.epochs
        is_epoch = rest == 0 and (epoch == epochs or epoch % -(-epochs // MOST_EPOCHS) == 0)
        if not is_epoch and step % -(-total_steps // MOST_STEPS):
            return
        row = MetricRow(step, training.progress.loss, time_s=time.time())
        if rest == 0:
            row = replace(row, epoch=epoch)
            if evaluation is not None:
                loss = float(evaluation.sums[0]) / evaluation.row_count
                row = replace(row, validation_loss=loss, values=measures_of(training.job, evaluation))
        self.journal.append_metrics(training.job_id, [row])

    def _begin(self, training: Training) -> None:
        if self._writing is not None:
            return
        self._last_at_s, self.last_step = time.monotonic(), training.state.step
        checkpoint = capture(training, spec_sha256=self.spec_sha256, data_sha256=self.data_sha256)
        self._writing = asyncio.get_running_loop().create_task(self._write(checkpoint))

    async def _write(self, checkpoint: Checkpoint) -> None:
        event = job_pb2.JobEvent()
        started_s = time.monotonic()
        try:
            # What was measured before must be there: these steps are not computed again.
            await self.journal.written_at_once()
            size_bytes = await asyncio.to_thread(self.folder.write, checkpoint)
        except (OSError, StoreError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self.totals.failed += 1
            event.checkpoint_failed.step, event.checkpoint_failed.reason = checkpoint.step, reason
            log.error(
                "job %s: the checkpoint of step %d can't be written in %s, the job goes on without it: %s",
                checkpoint.job_id, checkpoint.step, self.folder.path, reason,
                extra=log_event("checkpoint_failed", job=checkpoint.job_id, step=checkpoint.step),
            )  # fmt: skip
            if not self._trouble:
                self.journal.append_event(checkpoint.job_id, event)
            self._trouble = reason
        else:
            self._trouble = ""
            self.totals.add(size_bytes=size_bytes, duration_s=time.monotonic() - started_s)
            event.checkpoint_written.step, event.checkpoint_written.size_bytes = checkpoint.step, size_bytes
            self.journal.append_event(checkpoint.job_id, event, name=f"checkpoint of step {checkpoint.step}")
            log.info(
                "job %s: checkpoint of step %d, %d bytes", checkpoint.job_id, checkpoint.step, size_bytes,
                extra=log_event(
                    "checkpoint_written", job=checkpoint.job_id, step=checkpoint.step, size_bytes=size_bytes
                ),
            )  # fmt: skip
        finally:
            self._writing = None
