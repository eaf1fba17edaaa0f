"""What the server refuses, and the one table from these errors to gRPC codes.

ServiceError
├── InvalidRequest    fields of a request that are wrong, all of them at once
│   └── InvalidSpec   those of a job
├── NotFound          a job that isn't there
├── WrongState        a call that doesn't fit the state of the job
├── OutOfRange        a shard, an event or a place in an upload that isn't there
├── OutOfMemory       more than this machine has
├── DamagedFile       a file that isn't what was written
├── LimitExceeded     more than the operator lets this server take
├── StorageFull       no room on the server's disk for what was to be stored
├── LeaseExpired      a worker that was silent, or stood still, for too long
├── WorkerFailed      a worker that can't go on, through no fault of the job
├── Unauthenticated   a caller that nobody knows
├── PermissionDenied  a caller whose role doesn't allow the call
└── ProtocolError     a worker's message that breaks the contract
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from chainrule.logs import log_event

log = logging.getLogger(__name__)
# Of the streaming call that is being served: where it comes from, as gRPC writes it.
peer: ContextVar[str] = ContextVar("peer", default="")
DOMAIN = "chainrule"
# A status goes as trailers: its message in up to three bytes for each of its own, and all of it again in base64.
MESSAGE_BYTES = 800
PATH_BYTES = 200
VIOLATIONS_BYTES = 2_500


class ServiceError(Exception):
    """An error of the caller. `reason` is for programs, the message for people."""

    reason = "UNKNOWN"


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


class OutOfMemory(ServiceError):
    """More than this machine has."""

    reason = "OUT_OF_MEMORY"


class DamagedFile(ServiceError):
    """A file of the server that isn't what was written."""

    reason = "DAMAGED_FILE"


class LimitExceeded(ServiceError):
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


class ProtocolError(ServiceError):
    """A message that breaks the contract in worker_service.proto."""

    reason = "PROTOCOL_ERROR"


CODES: dict[type[ServiceError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidSpec: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    OutOfMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DamagedFile: grpc.StatusCode.DATA_LOSS,
    LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StorageFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    ProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
    LeaseExpired: grpc.StatusCode.ABORTED,
    WorkerFailed: grpc.StatusCode.ABORTED,
}


def status_of(error: ServiceError) -> status_pb2.Status:
    """The google.rpc.Status of an error: ErrorInfo with its reason, and BadRequest where fields are wrong, or
    QuotaFailure where a limit is reached.

    Short enough for the trailers of a call, of which clients take 8 KiB; fields that find no room are counted."""
    details = [any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if isinstance(error, InvalidRequest):
        details.append(any_pb2.Any())
        details[1].Pack(_bad_request(error.violations))
    elif isinstance(error, LimitExceeded):
        violation = error_details_pb2.QuotaFailure.Violation(
            subject="server", description=shortened(str(error), MESSAGE_BYTES)
        )
        details.append(any_pb2.Any())
        details[1].Pack(error_details_pb2.QuotaFailure(violations=[violation]))
    number: int = CODES[type(error)].value[0]
    return status_pb2.Status(code=number, message=shortened(str(error), MESSAGE_BYTES), details=details)


def shortened(text: str, size_bytes: int) -> str:
    """The text in at most so many bytes of UTF-8, with '…' where its end is missing."""
    content = text.encode()
    if len(content) <= size_bytes:
        return text
    return content[: size_bytes - 3].decode(errors="ignore") + "…"


def _bad_request(violations: list[tuple[str, str]]) -> error_details_pb2.BadRequest:
    request = error_details_pb2.BadRequest()
    room = VIOLATIONS_BYTES
    for number, (path, message) in enumerate(violations):
        field, description = shortened(path, PATH_BYTES), shortened(message, MESSAGE_BYTES)
        room -= len(field.encode()) + len(description.encode())
        if room < 0 and number:
            request.field_violations.add(description=f"and {len(violations) - number} more")
            break
        request.field_violations.add(field=field, description=description)
    return request


async def abort(context: Any, error: Exception) -> None:
    """End a call with the status of an error. One that isn't in the table is our own: INTERNAL, and in the log."""
    if isinstance(error, MemoryError):
        error = OutOfMemory(f"the server has not enough memory for this ({error}); take fewer parameters or rows")
    if isinstance(error, ServiceError):
        status = status_of(error)
        details = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(CODES[type(error)], status.message, trailing_metadata=details)
    log.error("an error of the server itself", exc_info=error, extra=log_event("internal_error"))
    await context.abort(grpc.StatusCode.INTERNAL, "an error of the server itself; its log says more")


def unary(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """A servicer method of (self, request), its errors mapped by the table."""

    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request)
        except Exception as error:  # noqa: BLE001 - the boundary: everything becomes a status, and is logged
            await abort(context, error)

    return call


def streaming(
    method: Callable[[Any, Any], AsyncIterator[Any]],
) -> Callable[[Any, Any, Any], AsyncIterator[Any]]:
    """The same for a method that answers with a stream. `request` is an iterator where the client streams too."""

    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        peer.set(context.peer())
        try:
            async for response in method(self, request):
                yield response
        except Exception as error:  # noqa: BLE001 - the boundary, as above
            await abort(context, error)

    return call
