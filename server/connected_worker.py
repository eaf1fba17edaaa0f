"""A worker from its hello to its end: the stream that it lives by, and the local link if it takes one up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from chainrule.local_link.link import Connection
from chainrule.logs import log_event
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.wire_codec import RawPart, Request
from server.errors import InvalidRequest, ServiceError
from server.links import SocketLink, StreamLink
from server.scheduler import Scheduler

log = logging.getLogger(__name__)
HELLO_TIMEOUT_S = 10.0


@dataclass
class ConnectedWorker:
    """local: the connection that was offered, once the worker has taken it up; None where none was offered."""

    scheduler: Scheduler
    name: str
    local: asyncio.Future[Connection] | None = None
    stream: StreamLink = field(default_factory=StreamLink)
    _socket: SocketLink | None = None
    _failure: Exception | None = None
    _has_left: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, requests: AsyncIterator[Request]) -> None:
        """Take in what the worker sends, and let it join once it has chosen its link."""
        self._tasks = [asyncio.create_task(self._read(requests)), asyncio.create_task(self._join())]

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
            self.scheduler.leave(self.name)

    async def _join(self) -> None:
        connection = None
        if self.local is not None:
            await asyncio.wait([self.local], timeout=HELLO_TIMEOUT_S)
            if self.local.done() and not self.local.cancelled():
                connection = self.local.result()
            self.local.cancel()
        if connection is not None:
            self._socket = SocketLink(connection, stream=self.stream, received=self._receive, lost=self._unlink)
        if not self._has_left:
            self.scheduler.join(self.name, self._socket or self.stream)

    def _unlink(self, reason: str) -> None:
        """The local link is lost; if the worker isn't, it goes on with the stream."""
        if not self._has_left:
            log.info("worker %s shares memory no longer: %s", self.name, reason, extra=self._event("worker_unlinked"))
            self.scheduler.relink(self.name, self.stream)

    async def _read(self, requests: AsyncIterator[Request]) -> None:
        try:
            async for request in requests:
                if not isinstance(request, RawPart) and request.HasField("link_declined"):
                    reason = request.link_declined.reason
                    log.info("worker %s shares no memory: %s", self.name, reason, extra=self._event("link_declined"))
                    if self.local is not None:
                        self.local.cancel()
                else:
                    self._receive(request)
        except InvalidRequest as error:
            self._failure = error
        finally:
            self.stream.close()

    def _receive(self, request: Request | pb.TrainRequest) -> None:
        """Pass a message on. An error ends the stream; until then nothing that the worker owes is waited for."""
        if self._has_left:
            return
        try:
            self.scheduler.receive(self.name, request)
        except Exception as error:
            if not isinstance(error, ServiceError):
                extra = self._event("message_failed")
                log.error("a message of worker %s can't be dealt with", self.name, exc_info=error, extra=extra)
            self._failure = error
            self._leave()
            self.stream.close()

    def _event(self, name: str) -> dict[str, Any]:
        return log_event(name, worker=self.name)
