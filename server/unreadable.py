"""Bytes that are no message of their type: INVALID_ARGUMENT to the caller, where gRPC itself would say INTERNAL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.errors import InvalidRequest, abort
from server.surrounded import surrounded


@dataclass(frozen=True)
class _Unreadable:
    """What stands for a request that can't be read."""

    why: str


class ReadableRequests(grpc.aio.ServerInterceptor):
    """Lets methods see only requests that could be read. A stream of requests raises InvalidRequest where one can't."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, which aborts where the request is unreadable."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        if handler.request_streaming:
            return handler._replace(request_deserializer=_raising(handler.request_deserializer))
        return surrounded(handler._replace(request_deserializer=_safely(handler.request_deserializer)), _refusing)


def _safely(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError as error:
            return _Unreadable(str(error))

    return read


def _raising(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError as error:
            raise _refusal(_Unreadable(str(error))) from None

    return read


@contextlib.asynccontextmanager
async def _refusing(request: Any, context: Any) -> AsyncIterator[None]:
    if isinstance(request, _Unreadable):
        await abort(context, _refusal(request))
    yield


def _refusal(request: _Unreadable) -> InvalidRequest:
    return InvalidRequest([("", f"the request can't be read: {request.why}; texts must be UTF-8")])
