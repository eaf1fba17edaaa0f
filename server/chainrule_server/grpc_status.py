"""The one table from errors to gRPC codes, and what wraps every method so that its errors become a status."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from chainrule.holding.errors import ProtocolError, ServiceError
from chainrule.process.logs import log_event
from chainrule_server.errors import (
    DamagedFile,
    InvalidRequest,
    InvalidSpec,
    LeaseExpired,
    LimitExceeded,
    NotFound,
    OutOfMemory,
    OutOfRange,
    PermissionDenied,
    StorageFull,
    TooMuch,
    Unauthenticated,
    WorkerFailed,
    WrongState,
    shortened,
)

log = logging.getLogger(__name__)
# Of the streaming call that is being served: where it comes from, as gRPC writes it.
peer: ContextVar[str] = ContextVar("peer", default="")
DOMAIN = "chainrule"
# A status goes as trailers: its message in up to three bytes for each of its own, and all of it again in base64.
MESSAGE_BYTES = 800
PATH_BYTES = 200
VIOLATIONS_BYTES = 2_500


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
    """The google.rpc.Status of an error: ErrorInfo with its reason, BadRequest where fields are wrong or ask for too
    much, and QuotaFailure where a limit is reached.

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
    if isinstance(error, TooMuch) and error.field:
        details.append(any_pb2.Any())
        details[-1].Pack(_bad_request([(error.field, str(error))]))
    number: int = CODES[type(error)].value[0]
    return status_pb2.Status(code=number, message=shortened(str(error), MESSAGE_BYTES), details=details)


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
