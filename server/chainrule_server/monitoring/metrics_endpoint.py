"""`/metrics` over HTTP, in a thread of its own: text that Prometheus reads, for whoever can reach the address.

prometheus-client is imported here, in `chainrule_server.monitoring.metrics` and in
`chainrule_server.monitoring.rpc_metrics` alone, so a server without an endpoint doesn't load it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TextIO, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from chainrule.process.logs import log_event
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.monitoring.metrics import LogCounter, families
from chainrule_server.monitoring.rpc_metrics import RpcMetrics

log = logging.getLogger(__name__)
PATH = "/metrics"
# How long the event loop may take to answer, and a client to ask.
SCRAPE_TIMEOUT_S = 5.0


class MetricsEndpoint:
    """Made before the gRPC server, which takes its interceptor `rpcs`, and started once there is a scheduler."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rpcs = RpcMetrics(self.registry)
        ProcessCollector(registry=self.registry)
        self._logged = LogCounter()
        self._http: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    def start(self, scheduler: Scheduler, *, host: str, port: int) -> str:
        """Listen; the address. port: 0 takes a free one. To be called on the scheduler's loop. Raises OSError."""
        self.registry.register(_OnLoop(asyncio.get_running_loop(), lambda: families(scheduler, self._logged)))
        answer: Callable[..., Iterable[bytes]] = make_wsgi_app(self.registry)

        def application(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if environment["PATH_INFO"] != PATH:
                start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
                return [f"there is only {PATH}\n".encode()]
            try:
                return answer(environment, start_response)
            except TimeoutError:
                start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
                return [f"the server didn't answer within {SCRAPE_TIMEOUT_S:g} s\n".encode()]
            except Exception as error:
                log.error("metrics can't be told", exc_info=error, extra=log_event("metrics_failed"))
                start_response("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
                return [b"an error of the server itself; its log says more\n"]

        server_class = _Server6 if ":" in host else _Server
        self._http = make_server(host, port, application, server_class, _Handler)
        logging.getLogger().addHandler(self._logged)
        self._thread = threading.Thread(target=self._http.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        return f"[{host}]:{self._http.server_port}" if ":" in host else f"{host}:{self._http.server_port}"

    def close(self) -> None:
        """Listen no longer."""
        logging.getLogger().removeHandler(self._logged)
        if self._http is not None and self._thread is not None:
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()


class _OnLoop(Collector):
    """Collects on the event loop, to which the jobs belong, for the thread that asks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, collect: Callable[[], list[Metric]]) -> None:
        self._loop = loop
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """See Collector. Raises TimeoutError."""

        async def there() -> list[Metric]:
            return self._collect()

        future = asyncio.run_coroutine_threadsafe(there(), self._loop)
        try:
            return future.result(SCRAPE_TIMEOUT_S)
        finally:
            future.cancel()


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        """It is written nowhere."""
        return len(text)


_NOWHERE = cast(TextIO, _Nowhere())


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """One that asks slowly, or takes no answer, is no error of the server: no traceback, and no line in its log
        that anybody could repeat as often as they like."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("a request for metrics can't be answered", exc_info=error, extra=log_event("metrics_failed"))


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = SCRAPE_TIMEOUT_S

    def get_stderr(self) -> TextIO:
        """Nowhere: wsgiref would write there what a slow client causes. What we cause is logged by the application."""
        return _NOWHERE

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Not a line for each scrape."""
