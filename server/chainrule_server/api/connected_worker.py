"""A worker from its hello to its end: the stream that it lives by, and the local link if it takes one up.

Whoever is silent, or stands still, for longer than its lease is cut off; it is told so should it still listen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from chainrule.holding.errors import ServiceError
from chainrule.holding.lease import Lease
from chainrule.holding.worker_links import WorkerSocketLink, WorkerStreamLink
from chainrule.process.logs import log_event
from chainrule.transport.local_link.socket_connection import SocketConnection
from chainrule.transport.wire_codec import RawPart, Request
from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_server.errors import LeaseExpired
from chainrule_server.jobs.worker_sharing import WorkerSharing
from chainrule_server.workers.departure import CONNECTION_LOST, Departure
from chainrule_server.workers.hello import short

log = logging.getLogger(__name__)
HELLO_TIMEOUT_S = 10.0
LOOK_INTERVAL_S = 0.2


@dataclass
class ConnectedWorker:
    """local: the connection that was offered, once the worker has taken it up; None where none was offered."""

    sharing: WorkerSharing
    name: str
    lease: Lease
    local: asyncio.Future[SocketConnection] | None = None
    stream: WorkerStreamLink = field(default_factory=WorkerStreamLink)
    _socket: WorkerSocketLink | None = None
    _failure: Exception | None = None
    _loss: Departure = CONNECTION_LOST
    _has_left: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, requests: AsyncIterator[Request]) -> None:
        """Take in what the worker sends, and let it join once it has chosen its link."""
        self._tasks = [asyncio.create_task(work) for work in (self._read_stream(requests), self._join(), self._watch())]

    def raise_failure(self) -> None:
        """Raise what ended the stream, if it was an error."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """The worker is gone; its shards go to others."""
        for task in self._tasks:
            task.cancel()
        if self._socket is not None:
            self._socket.close()
        elif self.local is not None and not self.local.cancel() and not self.local.cancelled():
            self.local.result().close()  # the worker took it up, but was gone before it joined
        self._leave()

    def _leave(self) -> None:
        """Once: another worker may have the name afterwards."""
        if not self._has_left:
            self._has_left = True
            self.sharing.pool.leave(self.name, self._loss)

    async def _join(self) -> None:
        connection = None
        if self.local is not None:
            await asyncio.wait([self.local], timeout=HELLO_TIMEOUT_S)
            if self.local.done() and not self.local.cancelled():
                connection = self.local.result()
            self.local.cancel()
        if connection is not None:
            self._socket = WorkerSocketLink(connection, stream=self.stream, deliver=self._deliver, lost=self._unlink)
        if not self._has_left:
            self.sharing.pool.join(self.name, self._socket or self.stream)

    async def _watch(self) -> None:
        while not self._has_left:
            await asyncio.sleep(LOOK_INTERVAL_S)
            owes, is_first = self.sharing.owes(self.name)
            self.lease.count_time(time.monotonic(), owes=owes, is_first=is_first)
            why = self.lease.why_expired()
            if why:
                where = self.sharing.where(self.name)
                self._cut_off(LeaseExpired(f"{why}; its lease of {self.lease.lease_s:g} s is over{where}"))
            else:
                self.sharing.relieve_stragglers(self.name)

    def _unlink(self, reason: str) -> None:
        """The local link is lost; if the worker isn't, it goes on with the stream."""
        if not self._has_left:
            log.info("worker %s shares memory no longer: %s", self.name, reason, extra=self._event("worker_unlinked"))
            self.sharing.pool.relink(self.name, self.stream)

    async def _read_stream(self, requests: AsyncIterator[Request]) -> None:
        try:
            async for request in requests:
                if not isinstance(request, RawPart) and request.HasField("link_declined"):
                    reason = short(request.link_declined.reason)
                    log.info("worker %s shares no memory: %s", self.name, reason, extra=self._event("link_declined"))
                    if self.local is not None:
                        self.local.cancel()
                elif not isinstance(request, RawPart) and request.HasField("alive"):
                    self.lease.lives(request.alive.work_count, is_loading=request.alive.is_loading)
                elif not isinstance(request, RawPart) and request.HasField("goodbye"):
                    reason = request.goodbye.reason or "it gave no reason"
                    self._loss = Departure(job_pb2.LOSS_REASON_STOPPED, reason)
                    return
                else:
                    self._deliver(request)
        except ServiceError as error:
            self._failure = error
        finally:
            self.stream.close()

    def _deliver(self, request: Request | pb.TrainRequest) -> None:
        """Pass a message on. An error ends the stream; until then nothing that the worker owes is waited for."""
        if self._has_left:
            return
        self.lease.works()
        try:
            self.sharing.route_message(self.name, request)
        except Exception as error:
            if not isinstance(error, ServiceError):
                extra = self._event("message_failed")
                log.error("a message of worker %s can't be dealt with", self.name, exc_info=error, extra=extra)
            self._cut_off(error)

    def _cut_off(self, error: Exception) -> None:
        self._failure, self._loss = error, Departure.of_error(error)
        self._leave()
        self.stream.close()

    def _event(self, name: str) -> dict[str, Any]:
        return log_event(name, worker=self.name)
