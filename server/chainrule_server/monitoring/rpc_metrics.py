"""How often each RPC method was called, how that ended and how long it took: an interceptor around every handler."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chainrule_server.api.handler_wrapping import surrounded

# What stands for every method that the server doesn't have: a caller must not be able to make up labels.
UNKNOWN_METHOD = "unknown"
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RpcMetrics(grpc.aio.ServerInterceptor):
    """Counts calls in a registry. It must come first of the interceptors, to see what the others refuse."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "chainrule_rpcs", "Calls that have ended, by gRPC status code.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "chainrule_rpc_seconds",
            "How long calls took that are answered with one message; streams last as long as they are read.",
            ["method"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._open = Gauge("chainrule_rpcs_open", "Calls that are being answered now.", ["method"], registry=registry)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, which is counted when it ends."""
        handler = await continuation(handler_call_details)
        if handler is None:
            self._calls.labels(UNKNOWN_METHOD, grpc.StatusCode.UNIMPLEMENTED.name).inc()
            return None
        method = handler_call_details.method.removeprefix("/")

        @contextlib.asynccontextmanager
        async def counted(_: Any, context: Any) -> AsyncIterator[None]:
            started_s = time.perf_counter()
            self._open.labels(method).inc()
            code = grpc.StatusCode.UNKNOWN
            try:
                yield
                code = _code_of(context, otherwise=grpc.StatusCode.OK)
            except (asyncio.CancelledError, GeneratorExit):
                code = grpc.StatusCode.CANCELLED
                raise
            except BaseException:
                code = _code_of(context, otherwise=grpc.StatusCode.UNKNOWN)
                raise
            finally:
                self._open.labels(method).dec()
                self._calls.labels(method, code.name).inc()
                if not handler.response_streaming and not handler.request_streaming:
                    self._seconds.labels(method).observe(time.perf_counter() - started_s)

        return surrounded(handler, counted)


def _code_of(context: Any, *, otherwise: grpc.StatusCode) -> grpc.StatusCode:
    """The code that a method has set; gRPC keeps it as a number, 0 where none was set."""
    code = context.code()
    found = next((each for each in grpc.StatusCode if each is code or each.value[0] == code), grpc.StatusCode.OK)
    return otherwise if found is grpc.StatusCode.OK else found
