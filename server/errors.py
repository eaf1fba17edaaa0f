"""What the server refuses, and the one table from these errors to gRPC codes.

ServiceError
├── InvalidSpec       fields of a job that are wrong, all of them at once
├── NotFound          a job that isn't there
├── WrongState        a call that doesn't fit the state of the job
├── OutOfRange        a shard that the job doesn't have
└── ProtocolError     a worker's message that breaks the contract
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

log = logging.getLogger(__name__)
DOMAIN = "chainrule"


class ServiceError(Exception):
    """An error of the caller. `reason` is for programs, the message for people."""

    reason = "UNKNOWN"


class InvalidSpec(ServiceError):
    """violations: (path of the field in the JobSpec, what is wrong with it and what to do)."""

    reason = "INVALID_SPEC"

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{path}: {message}" for path, message in violations))


class NotFound(ServiceError):
    """A thing that isn't there."""

    reason = "NOT_FOUND"


class WrongState(ServiceError):
    """A call that the state of the job doesn't allow."""

    reason = "WRONG_STATE"


class OutOfRange(ServiceError):
    """A number beyond what there is."""

    reason = "OUT_OF_RANGE"


class ProtocolError(ServiceError):
    """A message that breaks the contract in worker_service.proto."""

    reason = "PROTOCOL_ERROR"


CODES: dict[type[ServiceError], grpc.StatusCode] = {
    InvalidSpec: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    ProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
}


def status_of(error: ServiceError) -> status_pb2.Status:
    """The google.rpc.Status of an error, with BadRequest or ErrorInfo as its detail."""
    detail = any_pb2.Any()
    if isinstance(error, InvalidSpec):
        request = error_details_pb2.BadRequest()
        for path, message in error.violations:
            request.field_violations.add(field=path, description=message)
        detail.Pack(request)
    else:
        detail.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    number: int = CODES[type(error)].value[0]
    return status_pb2.Status(code=number, message=str(error), details=[detail])


async def _abort(context: Any, error: Exception) -> None:
    if isinstance(error, ServiceError):
        details = (("grpc-status-details-bin", status_of(error).SerializeToString()),)
        await context.abort(CODES[type(error)], str(error), trailing_metadata=details)
    log.error("an error of the server itself", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "an error of the server itself; its log says more")


def unary(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """A servicer method of (self, request), its errors mapped by the table."""

    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request)
        except Exception as error:  # noqa: BLE001 - the boundary: everything becomes a status, and is logged
            await _abort(context, error)

    return call


def streaming(
    method: Callable[[Any, Any], AsyncIterator[Any]],
) -> Callable[[Any, Any, Any], AsyncIterator[Any]]:
    """The same for a method that answers with a stream. `request` is an iterator where the client streams too."""

    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in method(self, request):
                yield response
        except Exception as error:  # noqa: BLE001 - the boundary, as above
            await _abort(context, error)

    return call
