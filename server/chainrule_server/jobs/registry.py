"""All jobs of the server, by id and by the request that made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chainrule_server.errors import InvalidSpec, NotFound
from chainrule_server.jobs.job import Job

LONGEST_REQUEST_ID = 128


@dataclass
class JobRegistry:
    """All jobs of the server, in the order of their creation. `new_id` draws an id; it must not repeat."""

    new_id: Callable[[], str]
    _jobs: dict[str, Job] = field(default_factory=dict)
    _by_request: dict[str, Job] = field(default_factory=dict)

    def add(self, job: Job) -> None:
        """A job at the queue's end."""
        self._jobs[job.job_id] = job
        if job.request_id:
            self._by_request[job.request_id] = job

    def remove(self, job: Job) -> None:
        """Forget a job; its request_id may make another one."""
        self._jobs.pop(job.job_id, None)
        if self._by_request.get(job.request_id) is job:
            del self._by_request[job.request_id]

    def of_request(self, request_id: str, request_sha256: str) -> Job | None:
        """The job that a request with this id made before; None for one that is new, or without id.

        request_sha256: of its spec. Raises InvalidSpec where the request before asked for something else."""
        job = self._by_request.get(request_id)
        if job is not None and job.request_sha256 != request_sha256:
            message = f"made job {job.job_id} from another spec before; draw a new id for each new job"
            raise InvalidSpec([("request_id", message)])
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

    def active(self) -> list[Job]:
        """The jobs that haven't ended, the oldest first."""
        return [job for job in self._jobs.values() if not job.is_final and not job.life.is_over]


def checked_request_id(request_id: str) -> str:
    """The id itself. Raises InvalidSpec where it is too long or not printable ASCII."""
    if len(request_id) > LONGEST_REQUEST_ID or not (request_id.isascii() and request_id.isprintable()):
        message = f"must be at most {LONGEST_REQUEST_ID} printable ASCII characters; a UUID is one"
        raise InvalidSpec([("request_id", message)])
    return request_id
