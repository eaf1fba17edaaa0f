"""One page of a list of jobs: which come, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.api.pages import Key, beginning, digest_of, filled, token
from chainrule_server.errors import InvalidRequest
from chainrule_server.preparation.labels import has


@dataclass(frozen=True)
class Listed:
    """A job as far as lists need it. number: in the order of creation. message: makes what clients see; called only for
    the jobs of the page."""

    job_id: str
    name: str
    state: job_pb2.JobState
    number: int
    message: Callable[[], job_pb2.Job]
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Its place in the list."""
        return self.number, self.job_id


def page(jobs: Iterable[Listed], request: api.ListJobsRequest) -> api.ListJobsResponse:
    """The jobs that the request asks for. Raises InvalidRequest for a wrong size, state or token."""
    after, violations = beginning(request.page_size, request.page_token, _filter_digest(request))
    known = set(job_pb2.JobState.values()) - {job_pb2.JOB_STATE_UNSPECIFIED}
    for number, state in enumerate(request.states):
        if state not in known:
            violations.append((f"states[{number}]", f"must be a state of a job, got {state}"))
    if violations:
        raise InvalidRequest(violations)
    wanted = set(request.states) or known
    fitting = [
        job
        for job in jobs
        if job.state in wanted and job.name.startswith(request.name_prefix) and has(job.labels, request.labels)
    ]
    fitting.sort(key=lambda job: job.key, reverse=True)
    if after is not None:
        fitting = [job for job in fitting if job.key < after]
    return _filled(fitting, request)


def _filled(jobs: Sequence[Listed], request: api.ListJobsRequest) -> api.ListJobsResponse:
    messages = filled((job.message() for job in jobs), request.page_size)
    response = api.ListJobsResponse(jobs=messages)
    if messages and len(messages) < len(jobs):
        response.next_page_token = token(jobs[len(messages) - 1].key, _filter_digest(request))
    return response


def _filter_digest(request: api.ListJobsRequest) -> str:
    return digest_of(sorted(set(request.states)), request.name_prefix, sorted(request.labels.items()))
