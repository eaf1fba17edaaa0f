"""One page of a list of jobs: which come, in which order, and where the next page begins.

A page token tells the last job of a page by its time of creation and its id, so a page begins at the right place even
where that job was deleted meanwhile. It also carries a digest of the filter that it belongs to.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from server.errors import InvalidRequest

DEFAULT_PAGE_SIZE = 100
LARGEST_PAGE_SIZE = 1_000
# Specs may be long; a stock client takes messages of at most 4 MiB.
PAGE_BYTES = 2 << 20
# A job's place in the list, the latest first.
Key = tuple[int, str]


@dataclass(frozen=True)
class Listed:
    """A job as far as lists need it. message: makes what clients see; called only for the jobs of the page."""

    job_id: str
    name: str
    state: job_pb2.JobState
    created_at_s: float
    message: Callable[[], job_pb2.Job]

    @property
    def key(self) -> Key:
        """Microseconds of its creation, and its id."""
        return round(self.created_at_s * 1e6), self.job_id


def page(jobs: Iterable[Listed], request: api.ListJobsRequest) -> api.ListJobsResponse:
    """The jobs that the request asks for. Raises InvalidRequest for a wrong size, state or token."""
    violations = []
    if request.page_size < 0:
        violations.append(("page_size", f"must be at least 0, got {request.page_size}"))
    known = set(job_pb2.JobState.values()) - {job_pb2.JOB_STATE_UNSPECIFIED}
    for number, state in enumerate(request.states):
        if state not in known:
            violations.append((f"states[{number}]", f"must be a state of a job, got {state}"))
    after = None
    try:
        after = _read_token(request)
    except ValueError as error:
        violations.append(("page_token", f"{error}; take next_page_token of the page before, and the same filter"))
    if violations:
        raise InvalidRequest(violations)
    wanted = set(request.states) or known
    fitting = [job for job in jobs if job.state in wanted and job.name.startswith(request.name_prefix)]
    fitting.sort(key=lambda job: job.key, reverse=True)
    if after is not None:
        fitting = [job for job in fitting if job.key < after]
    return _filled(fitting, request)


def _filled(jobs: Sequence[Listed], request: api.ListJobsRequest) -> api.ListJobsResponse:
    response = api.ListJobsResponse()
    size_bytes = 0
    last = None
    for job in jobs[: min(request.page_size or DEFAULT_PAGE_SIZE, LARGEST_PAGE_SIZE)]:
        message = job.message()
        size_bytes += message.ByteSize()
        if size_bytes > PAGE_BYTES and response.jobs:
            break
        response.jobs.append(message)
        last = job
    if last is not None and len(response.jobs) < len(jobs):
        response.next_page_token = _token(last.key, request)
    return response


def _filter_digest(request: api.ListJobsRequest) -> str:
    text = json.dumps([sorted(set(request.states)), request.name_prefix])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _token(key: Key, request: api.ListJobsRequest) -> str:
    return base64.urlsafe_b64encode(json.dumps([*key, _filter_digest(request)]).encode()).decode()


def _read_token(request: api.ListJobsRequest) -> Key | None:
    """Where the page begins; None: with the first job. Raises ValueError, whose message says why it can't be."""
    if not request.page_token:
        return None
    try:
        fields = json.loads(base64.b64decode(request.page_token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise ValueError("is no page token") from None
    match fields:
        case [int(created), str(job_id), str(digest)]:
            if digest != _filter_digest(request):
                raise ValueError("belongs to another filter")
            return created, job_id
        case _:
            raise ValueError("is no page token")
