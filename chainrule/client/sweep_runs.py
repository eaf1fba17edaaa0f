"""The jobs of a sweep while they are trained: what to ask a server next, which trial is best, and the table of them.

`steps_of` asks nobody itself: it says what it wants to know and is told, so that a blocking client and one of asyncio
train a sweep in the same way.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from chainrule.client.job_text import FINAL_STATES, state_name
from chainrule.errors import JobFailed
from chainrule.spec.sweep import Sweep, Trial
from chainrule.text import number, table_lines
from chainrule.v1 import job_pb2

POLL_INTERVAL_S = 0.3
# So many jobs wait or run at once, so that a sweep neither fills a server nor leaves it idle.
MAX_OPEN_JOBS = 32
MAX_ATTEMPTS = 100
CANCELLED, SUCCEEDED = job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_SUCCEEDED
AnyJob = TypeVar("AnyJob")


@dataclass
class Run:
    """A trial with its jobs as they are; None: not asked for yet."""

    trial: Trial
    jobs: list[job_pb2.Job | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.jobs = [None] * len(self.trial.jobs)

    @property
    def state(self) -> str:
        """In one word."""
        states = [None if job is None else job.state for job in self.jobs]
        for state in (job_pb2.JOB_STATE_FAILED, CANCELLED):
            if state in states:
                return state_name(state)
        if all(state == SUCCEEDED for state in states):
            return state_name(SUCCEEDED)
        return "WAITING" if not any(states) else state_name(max(state for state in states if state))

    @property
    def has_ended(self) -> bool:
        """Whether all of its jobs have."""
        return all(job is not None and not is_open(job) for job in self.jobs)

    @property
    def losses(self) -> list[float]:
        """The validation losses of the jobs that have succeeded."""
        ended = [job for job in self.jobs if job is not None and job.state == SUCCEEDED]
        return [job.result.validation_loss for job in ended if job.result.HasField("validation_loss")]

    @property
    def score(self) -> float | None:
        """The mean validation loss; None before all jobs have one."""
        return statistics.fmean(self.losses) if len(self.losses) == len(self.jobs) else None

    @property
    def fields(self) -> dict[str, Any]:
        """The trial by names."""
        return {
            "number": self.trial.number,
            "settings": self.trial.settings,
            "state": self.state,
            "jobs": [job.job_id for job in self.jobs if job is not None],
            "validation_losses": self.losses,
            "validation_loss": self.score,
        }


@dataclass(frozen=True)
class Create:
    """Put this job in the queue, or find the one that was made under the request id."""

    spec: job_pb2.JobSpec
    request_id: str


@dataclass(frozen=True)
class Look:
    """Ask how far the job is."""

    job_id: str


@dataclass(frozen=True)
class Pause:
    """Wait."""

    seconds: float


Step = Create | Look | Pause
# The answer to Create and Look is the job, that to Pause is None.
Steps = Generator[Step, job_pb2.Job | None, job_pb2.Job | None]


@dataclass(frozen=True)
class SweepResult(Generic[AnyJob]):
    """What a sweep came to; printed, it is the table of its trials.

    trials: for each its number, settings by path, state, jobs and validation losses. best: the trial with the lowest
    mean validation loss, job: its job, or with folds the one that was trained once more on the job's own rows; None
    where no trial has a validation loss."""

    trials: list[dict[str, Any]]
    best: dict[str, Any] | None
    job: AnyJob | None
    table: str = field(repr=False)

    def __str__(self) -> str:
        return self.table


def steps_of(sweep: Sweep, runs: Sequence[Run], shown: Callable[[], None] = lambda: None) -> Steps:
    """Train all jobs; the best trial's job, with folds the one on the job's own rows; None without a best.

    runs: one for each trial, filled in. shown: is called when something may have changed. Raises JobFailed where the
    job on all rows doesn't succeed."""
    waiting = [(run, place) for run in runs for place in range(len(run.jobs))]
    while True:
        opened = [
            (run, place) for run in runs for place, job in enumerate(run.jobs) if job is not None and is_open(job)
        ]
        while waiting and len(opened) < MAX_OPEN_JOBS:
            run, place = waiting.pop(0)
            run.jobs[place] = yield from _asked_for(sweep, run.trial.jobs[place])
            opened.append((run, place))
        shown()
        if not opened:
            break
        yield Pause(POLL_INTERVAL_S)
        for run, place in opened:
            job = run.jobs[place]
            if job is not None and is_open(job):
                run.jobs[place] = yield Look(job.job_id)
    best = best_of(runs)
    if best is None or not sweep.folds:
        return None if best is None else best.jobs[0]
    final = yield from _asked_for(sweep, best.trial.final)
    while is_open(final):
        yield Pause(POLL_INTERVAL_S)
        final = _known((yield Look(final.job_id)))
    if final.state != SUCCEEDED:
        raise JobFailed(f"job {final.job_id}, the best trial on the job's own rows, is {state_name(final.state)}")
    return final


def _asked_for(sweep: Sweep, spec: job_pb2.JobSpec) -> Generator[Step, job_pb2.Job | None, job_pb2.Job]:
    """The job of this sweep; one that was cancelled is asked for anew."""
    for attempt in range(MAX_ATTEMPTS):
        job = _known((yield Create(spec, sweep.request_id(spec, attempt))))
        if job.state != CANCELLED:
            return job
    raise JobFailed(f"job {spec.name} was cancelled {MAX_ATTEMPTS} times; change the sweep's seed")


def _known(job: job_pb2.Job | None) -> job_pb2.Job:
    if job is None:
        raise TypeError("whoever takes the steps of a sweep answers with a job")
    return job


def is_open(job: job_pb2.Job) -> bool:
    """Whether the job has not ended."""
    return job.state not in FINAL_STATES


def best_of(runs: Sequence[Run]) -> Run | None:
    """The lowest mean validation loss; of equal ones the first."""
    scored = [run for run in runs if run.score is not None]
    return min(scored, key=lambda run: run.score or 0.0) if scored else None


def result_of(sweep: Sweep, runs: Sequence[Run], job: AnyJob | None) -> SweepResult[AnyJob]:
    """What the runs came to. job: the best."""
    best = best_of(runs)
    return SweepResult(
        [run.fields for run in runs],
        None if best is None else best.fields,
        job,
        "\n".join(table_of(sweep, runs, best)),
    )


def table_of(sweep: Sweep, runs: Sequence[Run], best: Run | None) -> list[str]:
    """A line for each trial, below their names."""
    spread = ("SPREAD",) if sweep.folds else ()
    rows: list[tuple[str, ...]] = [
        ("TRIAL", *(path.rpartition(".")[2] for path in sweep.paths), "STATE", "VALIDATION LOSS", *spread, "")
    ]
    for run in runs:
        values = [value_text(run.trial.settings[path]) for path in sweep.paths]
        loss = "" if run.score is None else number(run.score)
        losses = run.losses
        more = ("" if len(losses) < 2 else number(statistics.stdev(losses), 3),) if sweep.folds else ()
        rows.append((str(run.trial.number), *values, run.state, loss, *more, "best" if run is best else ""))
    return table_lines(rows)


def value_text(value: Any) -> str:
    """A setting's value for people."""
    return number(value) if isinstance(value, float) else str(value)
