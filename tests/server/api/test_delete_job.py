"""Jobs that are deleted."""

from __future__ import annotations

import itertools
import time

import grpc
import pytest

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.jobs.retention import beyond
from chainrule_server.storage.store import StoreError
from tests.server.in_process import RunningServer, refusal, regression_spec

TIMEOUT_S = 60.0


def create(server: RunningServer, **fields: str) -> job_pb2.Job:
    request = api.CreateJobRequest(spec=regression_spec(), **fields)
    answer: api.CreateJobResponse = server.jobs.CreateJob(request, timeout=TIMEOUT_S)
    return answer.job


def cancelled(server: RunningServer, **fields: str) -> str:
    job = create(server, **fields)
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    return job.job_id


def delete(server: RunningServer, job_id: str) -> api.DeleteJobResponse:
    answer: api.DeleteJobResponse = server.jobs.DeleteJob(api.DeleteJobRequest(job_id=job_id), timeout=TIMEOUT_S)
    return answer


def test_an_ended_job_is_forgotten_here_and_on_the_disk(server: RunningServer) -> None:
    job_id, other = cancelled(server), cancelled(server)
    assert delete(server, job_id[:6]).job_id == job_id
    code, _, reason = refusal(lambda: server.jobs.GetJob(api.GetJobRequest(job_id=job_id), timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert refusal(lambda: delete(server, job_id))[0] == grpc.StatusCode.NOT_FOUND
    store = server.scheduler.archive.journal.store
    assert [record.job_id for record in store.jobs()] == [other]
    assert list(store.last_events()) == [other]


def test_a_server_forgets_all_ended_jobs_but_the_last_and_none_that_goes_on(server: RunningServer) -> None:
    waits = create(server)
    server.scheduler.kept_jobs = 2
    ended = [cancelled(server) for _ in range(5)]
    left = server.jobs.ListJobs(api.ListJobsRequest(), timeout=TIMEOUT_S).jobs
    assert [job.job_id for job in reversed(left)] == [waits.job_id, *ended[-2:]]
    store = server.scheduler.archive.journal.store
    assert [record.job_id for record in store.jobs()] == [waits.job_id, *ended[-2:]]


def test_a_clock_that_goes_back_changes_neither_the_order_of_jobs_nor_which_are_forgotten(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = itertools.count(2_000_000_000, -86_400)
    monkeypatch.setattr(time, "time", lambda: float(next(now_s)))
    server.scheduler.kept_jobs = 3
    waits = create(server)
    ended = [cancelled(server) for _ in range(6)]
    left = server.jobs.ListJobs(api.ListJobsRequest(), timeout=TIMEOUT_S).jobs
    assert [job.job_id for job in reversed(left)] == [waits.job_id, *ended[-3:]]
    pages = [server.jobs.ListJobs(api.ListJobsRequest(page_size=2), timeout=TIMEOUT_S)]
    request = api.ListJobsRequest(page_size=2, page_token=pages[0].next_page_token)
    pages.append(server.jobs.ListJobs(request, timeout=TIMEOUT_S))
    assert [job.job_id for each in pages for job in each.jobs] == [job.job_id for job in left]
    # A server that is started again knows the same order.
    again = server.run(lambda: server.scheduler.archive.jobs())
    assert beyond(again, 1) == [job for job in again if job.job_id in ended[-3:-1]]
    assert [job.job_id for job in beyond(list(reversed(again)), 1)] == ended[-3:-1]


def test_a_disk_that_refuses_keeps_the_job_until_another_ends(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, job_id: str) -> bool:
        raise StoreError("disk I/O error")

    server.scheduler.kept_jobs = 1
    first = cancelled(server)
    with monkeypatch.context() as patch:
        patch.setattr("chainrule_server.storage.store.Store.delete", broken)
        second = cancelled(server)
    ids = {job.job_id for job in server.jobs.ListJobs(api.ListJobsRequest(), timeout=TIMEOUT_S).jobs}
    assert ids == {first, second}
    third = cancelled(server)
    assert [job.job_id for job in server.jobs.ListJobs(api.ListJobsRequest(), timeout=TIMEOUT_S).jobs] == [third]


def test_its_model_goes_too(server: RunningServer) -> None:
    job_id = cancelled(server)
    job = server.run(lambda: server.scheduler.jobs.find(job_id))
    job.model_path = server.folder / "model.safetensors"
    job.model_path.write_bytes(b"a model")
    delete(server, job_id)
    assert not job.model_path.exists()


def test_a_job_that_has_not_ended_is_kept(server: RunningServer) -> None:
    job = create(server)
    code, _, reason = refusal(lambda: delete(server, job.job_id))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")
    assert server.jobs.GetJob(api.GetJobRequest(job_id=job.job_id), timeout=TIMEOUT_S).job.job_id == job.job_id


def test_its_request_id_makes_another_job(server: RunningServer) -> None:
    job_id = cancelled(server, request_id="once")
    assert create(server, request_id="once").job_id == job_id
    delete(server, job_id)
    assert create(server, request_id="once").job_id != job_id


def test_a_job_that_can_not_be_deleted_on_the_disk_is_kept(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = cancelled(server)

    def full(job_id: str) -> bool:
        raise StoreError("the disk is full")

    monkeypatch.setattr(server.scheduler.archive.journal.store, "delete", full)
    assert refusal(lambda: delete(server, job_id))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.jobs.GetJob(api.GetJobRequest(job_id=job_id), timeout=TIMEOUT_S).job.job_id == job_id
