"""Bytes that are no message of their type, or too many: a status that says so, where gRPC itself would say INTERNAL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from chainrule.holding.errors import ServiceError
from chainrule_server.api.handler_wrapping import surrounded
from chainrule_server.errors import InvalidRequest
from chainrule_server.grpc_status import abort
from chainrule_server.limits import Limits


@dataclass(frozen=True)
class _Unreadable:
    """What stands for a request that can't be read."""

    error: ServiceError


@dataclass(frozen=True)
class ReadableRequests(grpc.aio.ServerInterceptor):
    """Lets methods see only requests that could be read. A stream of requests raises the error where one couldn't."""

    limits: Limits = field(default_factory=Limits)

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
            return handler._replace(request_deserializer=self._raising(handler.request_deserializer))
        return surrounded(handler._replace(request_deserializer=self._safely(handler.request_deserializer)), _refusing)

    def _safely(self, deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        raising = self._raising(deserialize)

        def read(content: bytes) -> Any:
            try:
                return raising(content)
            except ServiceError as error:
                return _Unreadable(error)

        return read

    def _raising(self, deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def read(content: bytes) -> Any:
            self.limits.check_message(len(content))
            try:
                return deserialize(content)
            except DecodeError as error:
                why = f"the request can't be read: {error}; texts must be UTF-8"
                raise InvalidRequest([("", why)]) from None

        return read


@contextlib.asynccontextmanager
async def _refusing(request: Any, context: Any) -> AsyncIterator[None]:
    if isinstance(request, _Unreadable):
        await abort(context, request.error)
    yield
