"""Why a worker is gone, as far as the server knows."""

from __future__ import annotations

from dataclasses import dataclass

from chainrule.holding.errors import ServiceError
from chainrule.v1 import job_pb2
from chainrule_server.errors import LeaseExpired, WorkerFailed
from chainrule_server.workers.hello import LONGEST_FAILURE_BYTES, short


@dataclass(frozen=True)
class Departure:
    """details: in words, for people, on one line; a longer text is cut."""

    reason: job_pb2.LossReason
    details: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "details", short(self.details, LONGEST_FAILURE_BYTES))

    @classmethod
    def of_error(cls, error: Exception) -> Departure:
        """What a worker's stream was ended with by the server itself."""
        reason = job_pb2.LOSS_REASON_REFUSED
        if isinstance(error, LeaseExpired):
            reason = job_pb2.LOSS_REASON_LEASE_EXPIRED
        elif isinstance(error, WorkerFailed):
            reason = job_pb2.LOSS_REASON_FAILED
        elif not isinstance(error, ServiceError):
            return cls(reason, "an error of the server itself in dealing with its message; the log says more")
        return cls(reason, str(error))

    def event(self, worker: str) -> job_pb2.JobEvent:
        """The event of a job that the worker computed for."""
        lost = job_pb2.WorkerLost(worker=worker, reason=self.reason, details=self.details)
        return job_pb2.JobEvent(worker_lost=lost)


CONNECTION_LOST = Departure(job_pb2.LOSS_REASON_CONNECTION_LOST, "its connection ended without a word")
