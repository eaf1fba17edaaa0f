"""How a worker's messages leave the server: over its gRPC stream, or over the local socket. Neither ever blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import DecodeError

from chainrule.transport.local_link.socket_connection import LinkClosed, MessageTooLong, SocketConnection, close_all
from chainrule.transport.wire_codec import OutgoingResponse
from chainrule.v1 import worker_service_pb2 as pb

# None ends the worker's stream.
Outgoing = asyncio.Queue[OutgoingResponse | None]


class WorkerLink(Protocol):
    """Where a worker's messages go."""

    shares_memory: bool

    def send(self, response: OutgoingResponse, descriptors: tuple[int, ...] = ()) -> None:
        """Send a message after those before it."""

    def without_memory(self) -> WorkerLink:
        """The link by which the worker is reached from now on, where its memory can't be shared."""

    def close(self) -> None:
        """End the link after what was sent."""


class WorkerStreamLink:
    """The gRPC stream, whose method takes the messages from a queue."""

    shares_memory = False

    def __init__(self) -> None:
        self.outgoing: Outgoing = asyncio.Queue()

    def send(self, response: OutgoingResponse, descriptors: tuple[int, ...] = ()) -> None:  # noqa: ARG002
        """See WorkerLink."""
        self.outgoing.put_nowait(response)

    def without_memory(self) -> WorkerLink:
        """See WorkerLink."""
        return self

    def close(self) -> None:
        """See WorkerLink."""
        self.outgoing.put_nowait(None)


class WorkerSocketLink:
    """The local socket: the event loop itself reads and writes it, so no other thread or task stands between.

    deliver: takes each message. lost: called once, when the link has broken; the worker then goes on with the stream.
    """

    shares_memory = True

    def __init__(
        self,
        connection: SocketConnection,
        *,
        stream: WorkerStreamLink,
        deliver: Callable[[pb.TrainRequest], None],
        lost: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._deliver = deliver
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._read_socket)

    def send(self, response: OutgoingResponse, descriptors: tuple[int, ...] = ()) -> None:
        """See WorkerLink."""
        if not isinstance(response, pb.TrainResponse):
            raise TypeError("vectors don't go over the local link")
        if self._connection.fileno() < 0:
            return
        try:
            self._connection.send_nowait(response.SerializeToString(), descriptors)
        except (LinkClosed, MessageTooLong) as error:
            self._fail(str(error))
        else:
            if self._connection.is_congested:
                self._loop.add_writer(self._connection.fileno(), self._flush)

    def without_memory(self) -> WorkerLink:
        """See WorkerLink: the worker sees the socket closed, and looks at its stream."""
        self.close()
        return self._stream

    def close(self) -> None:
        """See WorkerLink."""
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection.fileno())
            self._loop.remove_writer(self._connection.fileno())
            self._connection.close()

    def _read_socket(self) -> None:
        try:
            # One only: to ask for a second, which is rarely there, costs more than to be called again.
            message = self._connection.receive_nowait()
            if message is not None:
                close_all(message.descriptors)  # a worker has none to give
                self._deliver(pb.TrainRequest.FromString(message.payload))
        except (LinkClosed, DecodeError) as error:
            self._fail(str(error))

    def _flush(self) -> None:
        try:
            if self._connection.flush():
                self._loop.remove_writer(self._connection.fileno())
        except LinkClosed as error:
            self._fail(str(error))

    def _fail(self, reason: str) -> None:
        self.close()
        # Not at once: whoever is sending must not find its workers changed.
        self._loop.call_soon(self._lost, reason)
