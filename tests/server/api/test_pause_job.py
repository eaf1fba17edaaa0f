"""PauseJob and ResumeJob of jobs that no worker trains; tests/cluster/test_pause.py has those that run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.storage.store import Store, StoreError
from tests.server.in_process import TIMEOUT_S, RunningServer, add_data_sets, refusal, regression_spec, running_server

QUEUED, PAUSED = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_PAUSED


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    add_data_sets(monkeypatch)
    with running_server(tmp_path) as running:
        yield running


def create(server: RunningServer, **labels: str) -> str:
    spec = regression_spec()
    spec.labels.update(labels)
    return server.jobs.CreateJob(api.CreateJobRequest(spec=spec), timeout=TIMEOUT_S).job.job_id


def pause(server: RunningServer, job_id: str, *, timeout_s: float = TIMEOUT_S) -> job_pb2.Job:
    return server.jobs.PauseJob(api.PauseJobRequest(job_id=job_id), timeout=timeout_s).job


def resume(server: RunningServer, job_id: str) -> job_pb2.Job:
    return server.jobs.ResumeJob(api.ResumeJobRequest(job_id=job_id), timeout=TIMEOUT_S).job


def events(server: RunningServer, job_id: str) -> list[job_pb2.JobState]:
    """The states that a job went through; it is cancelled."""
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job_id), timeout=TIMEOUT_S)
    updates = server.jobs.WatchJob(api.WatchJobRequest(job_id=job_id, after_event=0), timeout=TIMEOUT_S)
    return [event.state_changed.state for update in updates for event in update.events]


def test_a_queued_job_leaves_the_queue_and_comes_back_and_each_call_counts_once(server: RunningServer) -> None:
    job_id = create(server)
    assert [pause(server, job_id).state for _ in range(2)] == [PAUSED, PAUSED]
    assert [resume(server, job_id).state for _ in range(2)] == [QUEUED, QUEUED]
    assert events(server, job_id) == [QUEUED, PAUSED, QUEUED, job_pb2.JOB_STATE_CANCELLED]


def test_calls_at_the_same_time_are_one_change_after_the_other(server: RunningServer) -> None:
    job_id = create(server)
    calls = [server.jobs.PauseJob.future(api.PauseJobRequest(job_id=job_id), timeout=TIMEOUT_S) for _ in range(5)]
    calls += [server.jobs.ResumeJob.future(api.ResumeJobRequest(job_id=job_id), timeout=TIMEOUT_S) for _ in range(5)]
    states = {call.result().job.state for call in calls}
    assert states <= {QUEUED, PAUSED}
    passed = events(server, job_id)[:-1]
    assert all(first != second for first, second in itertools.pairwise(passed))


def test_a_job_that_has_ended_neither_pauses_nor_resumes(server: RunningServer) -> None:
    job_id = create(server)
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job_id), timeout=TIMEOUT_S)
    for call in (pause, resume):
        code, _, reason = refusal(lambda call=call: call(server, job_id))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")


def test_an_unknown_job_is_not_found(server: RunningServer) -> None:
    for call in (pause, resume):
        assert refusal(lambda call=call: call(server, "feedbeef"))[0] == grpc.StatusCode.NOT_FOUND


def test_a_caller_that_gives_up_does_not_stop_a_pause(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = create(server)

    def broken(self: Store, *arguments: Any, **more: Any) -> Any:
        raise StoreError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", broken)
        with pytest.raises(grpc.RpcError) as caught:
            pause(server, job_id, timeout_s=0.3)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        now = server.jobs.GetJob(api.GetJobRequest(job_id=job_id), timeout=TIMEOUT_S).job
        # It isn't told before it is stored.
        assert (now.state, now.waiting_for) == (QUEUED, "its pause to be stored")
    assert pause(server, job_id).state == PAUSED
    assert resume(server, job_id).state == QUEUED


def test_jobs_are_found_by_all_of_their_labels(server: RunningServer) -> None:
    first, second = create(server, team="vision", stage="try"), create(server, team="vision")

    def found(**labels: str) -> list[str]:
        request = api.ListJobsRequest(labels=labels)
        return [job.job_id for job in server.jobs.ListJobs(request, timeout=TIMEOUT_S).jobs]

    assert found() == found(team="vision") == [second, first]
    assert found(team="vision", stage="try") == [first]
    assert found(team="speech") == []
    page = server.jobs.ListJobs(api.ListJobsRequest(labels={"team": "vision"}, page_size=1), timeout=TIMEOUT_S)
    other = api.ListJobsRequest(labels={"team": "speech"}, page_size=1, page_token=page.next_page_token)
    assert list(refusal(lambda: server.jobs.ListJobs(other, timeout=TIMEOUT_S))[1]) == ["page_token"]


def test_what_decides_a_jobs_place_is_checked_when_it_is_created(server: RunningServer) -> None:
    spec = regression_spec()
    spec.priority = 1001
    spec.labels["-"] = "a b"
    spec.training.min_workers, spec.training.max_workers = 2, 1
    _, violations, _ = refusal(lambda: server.jobs.CreateJob(api.CreateJobRequest(spec=spec), timeout=TIMEOUT_S))
    assert set(violations) == {"priority", "labels.-", "training.max_workers"}
    spec.training.max_workers = 3
    _, violations, _ = refusal(lambda: server.jobs.CreateJob(api.CreateJobRequest(spec=spec), timeout=TIMEOUT_S))
    assert "training.max_workers" in violations
