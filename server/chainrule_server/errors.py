"""What the server refuses. `grpc_status` has the table from these errors to gRPC codes.

ServiceError
├── InvalidRequest    fields of a request that are wrong, all of them at once
│   └── InvalidSpec   those of a job
├── NotFound          a job that isn't there
├── WrongState        a call that doesn't fit the state of the job
├── OutOfRange        a shard, an event or a place in an upload that isn't there
├── TooMuch
│   ├── OutOfMemory   more than this machine has
│   └── LimitExceeded more than the operator lets this server take
├── DamagedFile       a file that isn't what was written
├── StorageFull       no room on the server's disk for what was to be stored
├── LeaseExpired      a worker that was silent, or stood still, for too long
├── WorkerFailed      a worker that can't go on, through no fault of the job
├── Unauthenticated   a caller that nobody knows
├── PermissionDenied  a caller whose role doesn't allow the call
└── ProtocolError     a worker's message that breaks the contract; it is in chainrule.holding.errors
"""

from __future__ import annotations

from chainrule.holding.errors import ServiceError


class InvalidRequest(ServiceError):
    """violations: (path of the field, what is wrong with it and what to do)."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{path}: {message}" if path else message for path, message in violations))


class InvalidSpec(InvalidRequest):
    """violations: their paths are those of the JobSpec."""

    reason = "INVALID_SPEC"


class NotFound(ServiceError):
    """A thing that isn't there."""

    reason = "NOT_FOUND"


class WrongState(ServiceError):
    """A call that the state of the job doesn't allow."""

    reason = "WRONG_STATE"


class OutOfRange(ServiceError):
    """A number beyond what there is."""

    reason = "OUT_OF_RANGE"


class TooMuch(ServiceError):
    """More than there is. field: the path of what asks for it in the request; empty where that is no field's doing."""

    def __init__(self, message: str, *, field: str = "") -> None:
        self.field = field
        super().__init__(message)


class OutOfMemory(TooMuch):
    """More than this machine has."""

    reason = "OUT_OF_MEMORY"


class DamagedFile(ServiceError):
    """A file of the server that isn't what was written."""

    reason = "DAMAGED_FILE"


class LimitExceeded(TooMuch):
    """More than the operator lets this server take; the message names the limit and the setting."""

    reason = "LIMIT_EXCEEDED"


class StorageFull(ServiceError):
    """The server's disk has no room for what was to be stored, or can't be written."""

    reason = "STORAGE_FULL"


class LeaseExpired(ServiceError):
    """A worker that was silent, or whose work stood still, for longer than its lease; it may join again."""

    reason = "LEASE_EXPIRED"


class WorkerFailed(ServiceError):
    """A worker that can't go on, through no fault of the job; it may join again."""

    reason = "WORKER_FAILED"


class Unauthenticated(ServiceError):
    """A caller that shows no token or certificate, or one that nobody here knows."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """A caller that is known, whose role doesn't allow the call."""

    reason = "PERMISSION_DENIED"


def shortened(text: str, size_bytes: int) -> str:
    """The text in at most so many bytes of UTF-8, with '…' where its end is missing."""
    content = text.encode()
    if len(content) <= size_bytes:
        return text
    return content[: size_bytes - 3].decode(errors="ignore") + "…"
