"""Jobs and what clients see of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_engine.precision import PRECISIONS
from chainrule_server.jobs.job_life import JobLife, Phase
from chainrule_server.jobs.pace import Pace
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.storage.journal import RETRY_S
from chainrule_server.storage.store import JobRecord
from chainrule_server.training.ended import EndedTraining
from chainrule_server.training.recorder import Recorder
from chainrule_server.training.training import Training
from chainrule_server.workers.waiting import Waiting

FINAL = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
# Ten years: what is said to take longer isn't known.
LONGEST_LEFT_S = 10 * 365 * 86_400.0
REREADING = "its data to be read again"


@dataclass
class Job:
    """A job from its creation to its end. spec: complete. Times are Unix seconds.

    prepared: None for a job from before a restart, until its turn comes."""

    job_id: str
    spec: job_pb2.JobSpec
    created_at_s: float
    prepared: PreparedJob | None = None
    request_id: str = ""
    request_sha256: str = ""
    data_sha256: str = ""
    state: job_pb2.JobState = job_pb2.JOB_STATE_QUEUED
    training: Training | None = None
    # What is left of its training, once that has ended.
    ended_training: EndedTraining | None = None
    recorder: Recorder | None = None
    # As it was stored last; while the job trains, the training knows better.
    progress: job_pb2.Progress = field(default_factory=job_pb2.Progress)
    result: job_pb2.Result | None = None
    error: status_pb2.Status | None = None
    model_path: Path | None = None
    started_at_s: float | None = None
    ended_at_s: float | None = None
    # Which it is of all jobs that were made, and which of all that ended, from 1; 0 where that isn't known (yet).
    number: int = 0
    end_number: int = 0
    # Why it has no workers, in words; empty where it has some.
    waits_for: Waiting | None = None
    # The number of the last event that is stored.
    last_event: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    pace: Pace = field(default_factory=Pace)
    # What is done with it now, of which the state tells.
    life: JobLife = field(init=False)

    def __post_init__(self) -> None:
        self.life = JobLife(self.job_id, _phase_of(self.state, is_training=self.training is not None))

    @classmethod
    def of_record(cls, record: JobRecord, *, last_event: int, model_path: Path) -> Job:
        """The job that was stored before a restart."""
        return cls(
            record.job_id,
            record.spec,
            record.created_at_s,
            request_id=record.request_id,
            request_sha256=record.request_sha256,
            data_sha256=record.data_sha256,
            state=record.state,
            progress=record.progress,
            result=record.result,
            error=record.error,
            model_path=model_path if record.state in FINAL and model_path.exists() else None,
            started_at_s=record.started_at_s,
            ended_at_s=record.ended_at_s,
            number=record.number,
            end_number=record.end_number,
            last_event=last_event,
        )

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL

    def become(self, state: job_pb2.JobState) -> None:
        """Change the state and wake everyone who watches."""
        self.state = state
        self.wake()

    def wake(self) -> None:
        """Wake everyone who watches."""
        self.changed.set()
        self.changed = asyncio.Event()

    def record(self, state: job_pb2.JobState) -> JobRecord:
        """The job as it is to be stored when it gets this state."""
        return JobRecord(
            self.job_id,
            self.spec,
            state,
            self.created_at_s,
            request_id=self.request_id,
            request_sha256=self.request_sha256,
            data_sha256=self.data_sha256,
            started_at_s=self.started_at_s,
            ended_at_s=self.ended_at_s,
            number=self.number,
            end_number=self.end_number,
            progress=self.progress,
            error=self.error,
            result=self.result,
        )

    def message(self, *, now_s: float, storage_trouble: str = "") -> job_pb2.Job:
        """The job as clients see it. now_s: a monotonic clock, for the rate of steps.

        storage_trouble: why what happens to jobs can't be stored just now; empty while it can."""
        message = job_pb2.Job(job_id=self.job_id, spec=self.spec, state=self.state, progress=self.progress)
        if self.is_final and self.error is not None:
            message.error.CopyFrom(self.error)
        for name, time_s in (
            ("create_time", self.created_at_s),
            ("start_time", self.started_at_s),
            ("end_time", self.ended_at_s if self.is_final else None),
        ):
            if time_s is not None:
                fraction, seconds = math.modf(time_s)
                getattr(message, name).CopyFrom(Timestamp(seconds=int(seconds), nanos=int(fraction * 1e9)))
        message.reproducibility = reproducibility_of(self.spec, self.worker_kinds)
        message.worker_kinds.extend(self.worker_kinds)
        if self.training is not None and not self.is_final:
            message.progress.CopyFrom(self.progress_now())
            self._tell_pace(message, now_s)
        if self.state == job_pb2.JOB_STATE_SUCCEEDED and self.result is not None:
            message.result.CopyFrom(self.result)
        waiting = self._waiting(storage_trouble)
        if waiting is not None:
            message.waiting_for = waiting.words
            message.waiting.CopyFrom(waiting.message(time.time()))
        return message

    @property
    def worker_kinds(self) -> tuple[str, ...]:
        """What has computed for the job, since the server was started or in what it went on from."""
        if self.training is not None:
            return self.training.roster.kinds
        return () if self.ended_training is None else self.ended_training.worker_kinds

    def spans(self) -> Iterator[api.TraceSpan]:
        """Where the time of its last steps went, since the server was started; nothing before its first."""
        training = self.training or self.ended_training
        return iter(()) if training is None else training.spans()

    def _waiting(self, storage_trouble: str) -> Waiting | None:
        """What the job waits for; None while it advances, and once it has ended."""
        if self.is_final:
            return None
        match self.life.phase:
            case Phase.ENDING:
                then = f"it is tried again every {RETRY_S:g} s: {storage_trouble}" if storage_trouble else ""
                return Waiting(job_pb2.WAITING_REASON_STORAGE, "its end to be stored", next=then)
            case Phase.PAUSING:
                return Waiting(job_pb2.WAITING_REASON_STORAGE, "its pause to be stored")
            case Phase.LEAVING_OFF:
                return Waiting(job_pb2.WAITING_REASON_PARTIAL_SUMS, "its step to end, to pause")
            case Phase.READING:
                return Waiting(job_pb2.WAITING_REASON_DATA, REREADING)
        if self.waits_for is not None and self.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING):
            return self.waits_for
        return None if self.training is None else self.training.waiting

    def progress_now(self) -> job_pb2.Progress:
        """How far the job is, with what its steps cost."""
        progress = job_pb2.Progress()
        progress.CopyFrom(self.progress if self.training is None else self.training.progress)
        cost = None if self.training is None else self.training.step_cost()
        if cost is not None:
            progress.step_cost.CopyFrom(cost)
        return progress

    def _tell_pace(self, message: job_pb2.Job, now_s: float) -> None:
        step, total_steps = message.progress.step, message.progress.total_steps
        message.progress.steps_per_second = self.pace.steps_per_second(now_s, step)
        left_s = self.pace.left_s(now_s, step, total_steps) if message.progress.workers else None
        if left_s is not None and self.life.phase not in (Phase.LEAVING_OFF, Phase.PAUSING, Phase.ENDING):
            message.time_left.FromNanoseconds(int(min(left_s, LONGEST_LEFT_S) * 1e9))


def _phase_of(state: job_pb2.JobState, *, is_training: bool) -> Phase:
    """The phase in which a job is found. A job that ran before a restart waits until it is begun again."""
    if state in FINAL:
        return Phase.ENDED
    if state == job_pb2.JOB_STATE_PAUSED:
        return Phase.PAUSED
    return Phase.TRAINING if is_training else Phase.QUEUED


def reproducibility_of(spec: job_pb2.JobSpec, worker_kinds: Sequence[str] = ()) -> str:
    """What the bits of the trained parameters depend on. spec: complete. worker_kinds: what has computed for it."""
    precision = PRECISIONS[spec.training.precision]
    if precision.needs_feedback:
        return f"{precision.name}: the bits depend on the number of workers and on which of them were lost"
    if len(worker_kinds) > 1:
        return f"{precision.name}: the workers differ, so the bits depend on who computed what"
    return f"{precision.name}: the same bits on any number of workers of one kind, also when some are lost"
