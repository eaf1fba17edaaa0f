"""A sweep is trained in the same way by every client; which trial is best doesn't depend on who ended first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chainrule
from chainrule import aio
from chainrule.client.sweep_runs import MAX_OPEN_JOBS, Create, Look, Pause, Run, best_of, result_of, steps_of
from chainrule.errors import JobFailed
from chainrule.spec.job_file import load_table
from chainrule.spec.sweep import Sweep, sweep_of_table
from chainrule.v1 import job_pb2

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
QUEUED, RUNNING = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING
SUCCEEDED, FAILED, CANCELLED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED
Outcome = Callable[[job_pb2.JobSpec], tuple[job_pb2.JobState, float | None]]


def table(**sweep: Any) -> dict[str, Any]:
    """The two-layer job with a sweep."""
    found = load_table(EXAMPLES / "two_layer.toml")
    found["training"] |= {"epochs": 1}
    return found | {"sweep": sweep}


class Server:
    """Answers the steps of a sweep: a job has ended once it was looked at twice."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.jobs: dict[str, job_pb2.Job] = {}
        self.asked: list[str] = []
        self.most_open = self.pauses = 0

    def train(self, sweep: Sweep) -> tuple[list[Run], job_pb2.Job | None]:
        runs = [Run(trial) for trial in sweep.trials]
        steps = steps_of(sweep, runs)
        answer: job_pb2.Job | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return runs, end.value
            match step:
                case Create():
                    self.asked.append(step.request_id)
                    fresh = job_pb2.Job(job_id=str(len(self.jobs)), spec=step.spec, state=QUEUED)
                    answer = self.jobs.setdefault(step.request_id, fresh)
                case Look():
                    answer = next(job for job in self.jobs.values() if job.job_id == step.job_id)
                    self.advance(answer)
                case Pause():
                    self.pauses += 1
                    answer = None
            opened = sum(job.state in (QUEUED, RUNNING) for job in self.jobs.values())
            self.most_open = max(self.most_open, opened)

    def advance(self, job: job_pb2.Job) -> None:
        if job.state == QUEUED:
            job.state = RUNNING
            return
        job.state, loss = self.outcome(job.spec)
        if loss is not None:
            job.result.validation_loss = loss


def by_seed(spec: job_pb2.JobSpec) -> tuple[job_pb2.JobState, float | None]:
    return SUCCEEDED, float(spec.training.seed % 3)


def test_every_job_is_asked_for_once_and_no_more_than_fit_are_open() -> None:
    sweep = sweep_of_table(table(training={"seed": list(range(80))}))
    server = Server(by_seed)
    runs, best = server.train(sweep)
    assert len(server.asked) == len(set(server.asked)) == 80
    assert server.most_open == MAX_OPEN_JOBS
    assert server.pauses > 2
    assert {run.state for run in runs} == {"SUCCEEDED"}
    # Of 27 equal ones the first.
    assert best is runs[0].jobs[0]


def test_a_trial_that_fails_or_has_no_loss_is_shown_and_never_the_best() -> None:
    def outcome(spec: job_pb2.JobSpec) -> tuple[job_pb2.JobState, float | None]:
        return {0: (FAILED, None), 1: (SUCCEEDED, None), 2: (SUCCEEDED, 5.0)}[spec.training.seed]

    sweep = sweep_of_table(table(training={"seed": [0, 1, 2]}))
    runs, best = Server(outcome).train(sweep)
    assert [run.state for run in runs] == ["FAILED", "SUCCEEDED", "SUCCEEDED"]
    assert best is runs[2].jobs[0]
    found = result_of(sweep, runs, best)
    assert found.best is not None
    assert (found.best["settings"], found.best["validation_loss"]) == ({"training.seed": 2}, 5.0)
    assert str(found).splitlines()[3].split() == ["3", "2", "SUCCEEDED", "5", "best"]
    runs, best = Server(lambda _: (FAILED, None)).train(sweep)
    assert (best, best_of(runs)) == (None, None)


def test_with_folds_the_best_is_trained_once_more_on_the_jobs_own_rows() -> None:
    sweep = sweep_of_table(table(folds=3, training={"seed": [2, 1]}))
    server = Server(by_seed)
    runs, best = server.train(sweep)
    assert best is not None
    assert best.spec == runs[1].trial.final
    assert not best.spec.data.HasField("fold")
    assert len(server.asked) == 7

    def final_fails(spec: job_pb2.JobSpec) -> tuple[job_pb2.JobState, float | None]:
        return by_seed(spec) if spec.data.HasField("fold") else (FAILED, None)

    with pytest.raises(JobFailed, match="the best trial on the job's own rows, is FAILED"):
        Server(final_fails).train(sweep)


def test_a_job_that_was_cancelled_is_asked_for_anew() -> None:
    sweep = sweep_of_table(table(training={"seed": [0]}))
    server = Server(by_seed)
    (spec,) = sweep.trials[0].jobs
    server.jobs[sweep.request_id(spec, 0)] = job_pb2.Job(job_id="old", state=CANCELLED)
    _, best = server.train(sweep)
    assert best is not None
    assert server.asked == [sweep.request_id(spec, 0), sweep.request_id(spec, 1)]


@pytest.mark.cluster
def test_both_clients_train_a_sweep_and_find_the_same_jobs() -> None:
    pytest.importorskip("sklearn")
    job = table(training={"optimizer": {"learning_rate": [1e-9, 0.02]}})
    with chainrule.LocalCluster(workers=2) as client:
        found = client.sweep(job)

        async def again() -> Any:
            async with aio.connect(client.address, credentials=client.credentials) as other:
                return await other.sweep(job)

        same = asyncio.run(again())
        assert [trial["state"] for trial in found.trials] == ["SUCCEEDED", "SUCCEEDED"]
        assert found.best is not None
        assert found.best["settings"] == {"training.optimizer.learning_rate": 0.02}
        assert (same.trials, same.best, str(same)) == (found.trials, found.best, str(found))
        assert found.job is not None
        assert same.job.id == found.job.id == found.best["jobs"][0]
        assert found.job.model().predict([[0.0] * 10]).shape == (1,)
        with pytest.raises(chainrule.JobFileError, match="sweep"):
            client.sweep(EXAMPLES / "two_layer.toml")
