"""Jobs and what clients see of them."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from chainrule.v1 import job_pb2
from server.errors import NotFound
from server.prepared_job import PreparedJob
from server.training import Training

FINAL = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)


@dataclass
class Job:
    """A job from its creation to its end. Times are Unix seconds."""

    job_id: str
    prepared: PreparedJob
    created_at_s: float
    state: job_pb2.JobState = job_pb2.JOB_STATE_QUEUED
    training: Training | None = None
    error: status_pb2.Status | None = None
    model_path: Path | None = None
    started_at_s: float | None = None
    ended_at_s: float | None = None
    # Why a queued job isn't running.
    queued_for: str = ""
    # Stores the model and then makes the state final; set when the job's end is decided.
    ending: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=16))

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL

    def become(self, state: job_pb2.JobState) -> None:
        """Change the state and wake everyone who watches."""
        self.state = state
        self.changed.set()
        self.changed = asyncio.Event()

    def message(self, *, now_s: float) -> job_pb2.Job:
        """The job as clients see it. now_s: a monotonic clock, for the rate of steps."""
        message = job_pb2.Job(job_id=self.job_id, spec=self.prepared.spec, state=self.state, error=self.error)
        for name, time_s in (
            ("create_time", self.created_at_s),
            ("start_time", self.started_at_s),
            ("end_time", self.ended_at_s),
        ):
            if time_s is not None:
                fraction, seconds = math.modf(time_s)
                getattr(message, name).CopyFrom(Timestamp(seconds=int(seconds), nanos=int(fraction * 1e9)))
        message.reproducibility = reproducibility_of(self.prepared)
        message.progress.total_steps = self.prepared.total_steps
        if self.training is not None:
            message.progress.CopyFrom(self.training.progress)
            cost = self.training.step_cost()
            if cost is not None:
                message.progress.step_cost.CopyFrom(cost)
            message.progress.steps_per_second = self._steps_per_second(now_s)
            if self.training.result is not None and self.state == job_pb2.JOB_STATE_SUCCEEDED:
                message.result.CopyFrom(self.training.result)
        if self.state == job_pb2.JOB_STATE_QUEUED:
            message.waiting_for = self.queued_for
        elif self.state == job_pb2.JOB_STATE_RUNNING and self.training is not None:
            message.waiting_for = self.training.waiting_for
        return message

    def _steps_per_second(self, now_s: float) -> float:
        if self.training is None or self.is_final:
            return 0.0
        step = self.training.progress.step
        if not self._marks or now_s - self._marks[-1][0] > 0.05:
            self._marks.append((now_s, step))
        while len(self._marks) > 2 and now_s - self._marks[0][0] > 1.5:
            self._marks.popleft()
        since_s, since_step = self._marks[0]
        return (step - since_step) / (now_s - since_s) if now_s > since_s else 0.0


def reproducibility_of(prepared: PreparedJob) -> str:
    """What the bits of the trained parameters depend on."""
    precision = prepared.precision
    if precision.needs_feedback:
        return f"{precision.name}: the bits depend on the number of workers and on which of them were lost"
    return f"{precision.name}: the same bits on any number of workers of one kind, also when some are lost"


@dataclass
class JobBook:
    """All jobs of the server, in the order of their creation. `new_id` draws an id; it must not repeat."""

    new_id: Callable[[], str]
    _jobs: dict[str, Job] = field(default_factory=dict)

    def add(self, prepared: PreparedJob, *, now_s: float) -> Job:
        """A new queued job."""
        job = Job(self.new_id(), prepared, now_s)
        self._jobs[job.job_id] = job
        return job

    def find(self, job_id: str) -> Job:
        """The job with this id, or the only one whose id begins so (at least 4 characters). Raises NotFound."""
        if job_id in self._jobs:
            return self._jobs[job_id]
        found = [job for known, job in self._jobs.items() if len(job_id) >= 4 and known.startswith(job_id)]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} jobs begin with" if found else "there is no job"
        raise NotFound(f"{what} {job_id[:64]!r}; 'chainrule list' shows all jobs")

    def all(self) -> list[Job]:
        """All jobs, the oldest first."""
        return list(self._jobs.values())

    def next_queued(self) -> Job | None:
        """The job whose turn it is."""
        queued = (job for job in self._jobs.values() if job.state == job_pb2.JOB_STATE_QUEUED and job.ending is None)
        return next(queued, None)
