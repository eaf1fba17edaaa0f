"""What Prometheus reads of a server: figures that are there anyway, put into metrics when they are asked for.

No step waits for a metric: counters are the totals that the server keeps, gauges are its jobs and workers as they are
at the moment of the scrape. Only jobs that run have a label of their own, so there are never more than a server can
run. `docs/metrics.md` lists every metric; a test holds it against this file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from chainrule.v1 import job_pb2
from chainrule_server.training.totals import BOUNDS_S, PHASES, Totals

if TYPE_CHECKING:
    from chainrule_server.jobs.job import Job
    from chainrule_server.jobs.scheduler import Scheduler

LEVELS = ("warning", "error")


class LogCounter(logging.Handler):
    """Counts what is logged, by level."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts = dict.fromkeys(LEVELS, 0)

    def emit(self, record: logging.LogRecord) -> None:
        """One more."""
        self.counts["error" if record.levelno >= logging.ERROR else "warning"] += 1


def families(scheduler: Scheduler, logged: LogCounter) -> list[Metric]:
    """Every metric now. To be called on the scheduler's event loop."""
    jobs = scheduler.jobs.all()
    for job in jobs:
        if job.training is not None:
            job.training.costs.add_up()
    return [
        _info(),
        *_of_steps(scheduler.archive.totals),
        *_of_checkpoints(scheduler.archive.totals),
        *_of_jobs(jobs),
        GaugeMetricFamily(
            "chainrule_workers_connected", "Workers that can be given jobs.", value=len(scheduler.workers.joined)
        ),
        GaugeMetricFamily(
            "chainrule_store_failing",
            "1 while jobs, events and metrics can't be written to the disk, else 0.",
            value=int(bool(scheduler.archive.journal.trouble)),
        ),
        _counter("chainrule_logged_events", "Events that were logged, by level.", "level", logged.counts.items()),
    ]


def _info() -> Metric:
    try:
        installed = version("chainrule")
    except PackageNotFoundError:
        installed = "unknown"
    return InfoMetricFamily("chainrule_build", "The version of this server.", {"version": installed})


def _of_steps(totals: Totals) -> Iterator[Metric]:
    steps = totals.steps
    for name, meaning, value in (
        ("chainrule_steps", "Steps that were applied, of all jobs.", steps.steps),
        ("chainrule_samples", "Training rows that were used, once for each step they took part in.", steps.samples),
        ("chainrule_pushed_bytes", "Gradients that came over the wire; none over shared memory.", steps.pushed_bytes),
        ("chainrule_pulled_bytes", "Parameters that went over the wire; none over shared memory.", steps.pulled_bytes),
    ):
        yield CounterMetricFamily(name, meaning, value=value)
    phases = HistogramMetricFamily(
        "chainrule_step_phase_seconds",
        "Where a step's time goes: pull, compute and push of the worker that came last, wait, reduce, update.",
        labels=["phase"],
    )
    bounds = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
    for phase, counts, seconds in zip(PHASES, np.cumsum(steps.counts, axis=1), steps.seconds, strict=True):
        buckets = list(zip(bounds, counts.astype(float).tolist(), strict=True))
        phases.add_metric([phase], buckets, float(seconds))
    yield phases


def _of_checkpoints(totals: Totals) -> Iterator[Metric]:
    checkpoints = totals.checkpoints
    results = (("written", checkpoints.written), ("failed", checkpoints.failed))
    yield _counter("chainrule_checkpoints", "Checkpoints, by what became of them.", "result", results)
    yield CounterMetricFamily(
        "chainrule_checkpoint_bytes", "Bytes of the checkpoints that were written.", value=checkpoints.written_bytes
    )
    yield SummaryMetricFamily(
        "chainrule_checkpoint_seconds",
        "How long checkpoints took to hash, write and sync, beside the training.",
        count_value=checkpoints.written,
        sum_value=checkpoints.seconds,
    )


def _of_jobs(jobs: list[Job]) -> Iterator[Metric]:
    states = dict.fromkeys((_label(name) for name, state in job_pb2.JobState.items() if state), 0)
    for job in jobs:
        states[_label(job_pb2.JobState.Name(job.state))] += 1
    by_state = GaugeMetricFamily("chainrule_jobs", "Jobs that the server knows, by state.", labels=["state"])
    for state, count in states.items():
        by_state.add_metric([state], count)
    yield by_state
    running = [job for job in jobs if job.training is not None and not job.is_final]
    progress = {job.job_id: job.training.progress for job in running if job.training is not None}
    for name, meaning, attribute in (
        ("chainrule_running_job_step", "The step that a running job is at.", "step"),
        ("chainrule_running_job_total_steps", "All steps of a running job.", "total_steps"),
        ("chainrule_running_job_workers", "Workers that hold shards of a running job.", "workers"),
        ("chainrule_running_job_loss", "The mean loss over the rows of a running job's last step.", "loss"),
        (
            "chainrule_running_job_validation_loss",
            "A running job's mean loss over the validation rows after its last whole epoch.",
            "validation_loss",
        ),
    ):
        family = GaugeMetricFamily(name, meaning, labels=["job_id", "name"])
        for job in running:
            now = progress[job.job_id]
            if attribute != "validation_loss" or now.HasField("validation_loss"):
                family.add_metric([job.job_id, job.spec.name], getattr(now, attribute))
        yield family


def _label(state_name: str) -> str:
    return state_name.removeprefix("JOB_STATE_").lower()


def _counter(name: str, meaning: str, label: str, values: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value, count in values:
        family.add_metric([value], count)
    return family
