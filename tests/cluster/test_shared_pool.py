"""Several jobs at once share the workers, and each has the bits of an undisturbed run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chainrule.client.blocking.client import Client
from chainrule.v1 import job_pb2
from tests.cluster.support import RestartableServer, ended, history, job_spec, states_in, undisturbed

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("marker")]

QUEUED, RUNNING = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING
PAUSED, SUCCEEDED = job_pb2.JOB_STATE_PAUSED, job_pb2.JOB_STATE_SUCCEEDED
LONG, SHORT = 250, 120
# Over long before a job of 2 * LONG epochs, however slow the machine is.
BRIEF = 30


def wait_for(holds: Callable[[], bool], server: RestartableServer, *, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, server.log()
        time.sleep(0.02)


def workers_of(client: Client, jobs: list[job_pb2.Job]) -> list[int]:
    """How many workers each job has; -1 for one that has made no step yet or doesn't run."""
    now = [client.get_job(job.job_id) for job in jobs]
    return [job.progress.workers if job.state == RUNNING and job.progress.step else -1 for job in now]


@pytest.mark.parametrize("transport", ["auto", "grpc"])
def test_jobs_that_share_workers_have_the_bits_of_undisturbed_runs(tmp_path: Path, transport: str) -> None:
    options = ["--transport", transport]
    with RestartableServer(tmp_path / "home", workers=3, options=options) as server, Client(server.address) as client:
        lengths = {"first": LONG, "second": LONG, "third": SHORT}
        jobs = [client.create_job(job_spec(name, epochs=epochs)) for name, epochs in lengths.items()]
        wait_for(lambda: workers_of(client, jobs) == [1, 1, 1], server)
        urgent_spec = job_spec("urgent", epochs=SHORT)
        urgent_spec.priority, urgent_spec.training.min_workers = 10, 2
        urgent = client.create_job(urgent_spec)
        # It can't have two workers before a fourth comes, and then a job ends: nobody falls below its minimum for it.
        server.kill_worker()
        server.add_worker("late-1")
        server.add_worker("late-2")
        for job in [*jobs, urgent]:
            final = ended(client, job.job_id)
            assert final.state == SUCCEEDED, server.log()
            expected = undisturbed(final.spec.training.epochs, 0).parameters_sha256
            assert final.result.parameters_sha256 == expected, (final.spec.name, server.log())
            assert states_in(history(client, job.job_id)) == [QUEUED, RUNNING, SUCCEEDED]


def test_a_higher_priority_takes_workers_at_a_steps_end_and_a_lower_one_gets_them_back(tmp_path: Path) -> None:
    low_spec, high_spec = job_spec("low", epochs=2 * LONG), job_spec("high", epochs=BRIEF)
    # A worker that is slow for a while keeps its shards, so that nothing but the other job changes who computes.
    low_spec.training.stragglers.factor = 0
    high_spec.priority, high_spec.training.min_workers, high_spec.training.max_workers = 1, 2, 2
    with RestartableServer(tmp_path / "home", workers=3) as server, Client(server.address) as client:
        wait_for(lambda: len(client.list_workers()) == 3, server)
        low = client.create_job(low_spec)
        wait_for(lambda: workers_of(client, [low]) == [3], server)
        wait_for(lambda: client.get_job(low.job_id).time_left.ToNanoseconds() > 0, server)
        high = client.create_job(high_spec)
        for job, epochs in ((high, BRIEF), (low, 2 * LONG)):
            final = ended(client, job.job_id)
            assert final.result.parameters_sha256 == undisturbed(epochs, 0).parameters_sha256, server.log()
        counts = [
            event.workers_changed.worker_count
            for event in history(client, low.job_id)
            if event.HasField("workers_changed")
        ]
        # Two went, and came back when the other job had ended; of what comes after the last step it says nothing.
        assert [1, 3] in [counts[at : at + 2] for at in range(len(counts))], (counts, server.log())
