"""Lists of jobs in pages."""

from __future__ import annotations

import base64

import pytest

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.api.job_page import Listed, page
from chainrule_server.api.pages import LARGEST_PAGE_SIZE
from chainrule_server.errors import InvalidRequest

RUNNING, SUCCEEDED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_SUCCEEDED


def listed(number: int, *, state: job_pb2.JobState = SUCCEEDED, name: str = "") -> Listed:
    job_id = f"{number:012x}"
    message = job_pb2.Job(job_id=job_id, state=state)
    return Listed(job_id, name or f"job-{number}", state, number, lambda: message)


def ids(response: api.ListJobsResponse) -> list[int]:
    return [int(job.job_id, 16) for job in response.jobs]


def all_pages(jobs: list[Listed], request: api.ListJobsRequest) -> list[list[int]]:
    pages = []
    while True:
        response = page(jobs, request)
        pages.append(ids(response))
        if not response.next_page_token:
            return pages
        request.page_token = response.next_page_token


def test_the_latest_come_first_and_every_job_on_one_page_only() -> None:
    jobs = [listed(number) for number in range(7)]
    assert all_pages(jobs, api.ListJobsRequest(page_size=3)) == [[6, 5, 4], [3, 2, 1], [0]]
    assert all_pages(jobs, api.ListJobsRequest(page_size=7)) == [[6, 5, 4, 3, 2, 1, 0]]
    assert all_pages([], api.ListJobsRequest()) == [[]]


def test_a_job_that_comes_or_goes_between_two_pages_moves_no_other() -> None:
    jobs = [listed(number) for number in range(6)]
    first = page(jobs, api.ListJobsRequest(page_size=2))
    assert ids(first) == [5, 4]
    jobs = [job for job in jobs if job.job_id != first.jobs[-1].job_id] + [listed(6)]
    assert ids(page(jobs, api.ListJobsRequest(page_size=2, page_token=first.next_page_token))) == [3, 2]


def test_states_and_the_beginning_of_the_name_choose_jobs() -> None:
    jobs = [listed(1, state=RUNNING, name="net-a"), listed(2, name="net-b"), listed(3, name="other")]
    assert ids(page(jobs, api.ListJobsRequest(states=[RUNNING]))) == [1]
    assert ids(page(jobs, api.ListJobsRequest(states=[RUNNING, SUCCEEDED], name_prefix="net"))) == [2, 1]
    assert ids(page(jobs, api.ListJobsRequest(name_prefix="Net"))) == []


def test_a_page_has_a_size_whatever_is_asked_for() -> None:
    jobs = [listed(number) for number in range(LARGEST_PAGE_SIZE + 1)]
    assert len(page(jobs, api.ListJobsRequest(page_size=2**31 - 1)).jobs) == LARGEST_PAGE_SIZE
    assert len(page(jobs, api.ListJobsRequest()).jobs) == 100


def test_jobs_with_long_specs_make_short_pages() -> None:
    jobs = [listed(number) for number in range(3)]
    for job in jobs:
        job.message().spec.model.loss = "x" * (1 << 20)
    assert all_pages(jobs, api.ListJobsRequest()) == [[2], [1], [0]]


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("nonsense", "is no page token"),
        ("é", "is no page token"),
        (base64.urlsafe_b64encode(b'[1, "a"]').decode(), "is no page token"),
        (base64.urlsafe_b64encode(b"[" * 100_000).decode(), "is no page token"),
        (base64.urlsafe_b64encode(b'[1, "a", "other"]').decode(), "belongs to another filter"),
    ],
)
def test_a_token_of_another_request_is_refused(token: str, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        page([], api.ListJobsRequest(page_token=token))
    ((path, message),) = caught.value.violations
    assert (path, message.split(";")[0]) == ("page_token", why)


def test_a_token_belongs_to_its_filter() -> None:
    jobs = [listed(number) for number in range(3)]
    token = page(jobs, api.ListJobsRequest(page_size=1, name_prefix="job")).next_page_token
    with pytest.raises(InvalidRequest, match="another filter"):
        page(jobs, api.ListJobsRequest(page_token=token))


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        page([], api.ListJobsRequest(page_size=-1, states=[RUNNING, 0, 99], page_token="x"))  # noqa: S106
    assert [path for path, _ in caught.value.violations] == ["page_size", "page_token", "states[1]", "states[2]"]
