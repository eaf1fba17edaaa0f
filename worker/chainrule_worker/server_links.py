"""The two ways by which a worker's messages come and go: the gRPC stream, and the socket on the server's machine.

Both are used by one thread, the one that computes: a message that arrives wakes it, and nothing else.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import grpc
from google.protobuf.message import DecodeError

from chainrule.transport.local_link.socket_connection import (
    LinkClosed,
    Message,
    MessageTooLong,
    SocketConnection,
    close_all,
)
from chainrule.transport.wire_codec import RawPart, Request, Response, open_train
from chainrule.v1 import worker_service_pb2 as pb

# How long the socket is waited for before the stream is looked at: a server that hangs is noticed by gRPC's pings.
LOCAL_WAIT_S = 1.0
SEND_TIMEOUT_S = 20.0
# How often whoever waits for gRPC to copy a message looks whether the stream still lives.
STREAM_LOOK_S = 1.0


class LinkLost(Exception):
    """The link has ended. code, reason: what the server said, as far as it said anything."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class ServerLink(Protocol):
    """Messages to and from the server. Both methods raise LinkLost."""

    transport: str

    def next_message(self) -> tuple[Response, tuple[int, ...]]:
        """The next message, and the descriptors that came with it, which are the caller's to close. It waits."""

    def send(self, message: Request) -> int:
        """Send a message, after those before it; its number. A RawPart's values may be changed once it is copied."""

    def wait_copied(self, number: int) -> None:
        """Wait until the message with this number, and those before it, have been copied to the wire."""


class ServerStreamLink:
    """The gRPC stream. gRPC's own thread sends, one message at a time, while the caller computes on."""

    transport = "grpc"

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: queue.SimpleQueue[Request | _Aside | None] = queue.SimpleQueue()
        self._sent = self._copied = 0
        self._some_copied = threading.Condition()
        self._call = open_train(channel)(self._messages())

    def next_message(self) -> tuple[Response, tuple[int, ...]]:
        """See ServerLink."""
        try:
            return next(self._call), ()
        except StopIteration:
            raise LinkLost(grpc.StatusCode.OK, "the server ended the stream") from None
        except grpc.RpcError as error:
            raise self._lost(error) from error

    def send(self, message: Request) -> int:
        """See ServerLink."""
        if not self._call.is_active():
            raise self._lost(None)
        self._requests.put(message)
        self._sent += 1
        return self._sent

    def wait_copied(self, number: int) -> None:
        """See ServerLink."""
        with self._some_copied:
            while self._copied < number:
                if not self._some_copied.wait(STREAM_LOOK_S) and not self._call.is_active():
                    raise self._lost(None)

    def say(self, message: pb.TrainRequest) -> None:
        """Send a message that is no answer, such as a sign of life, from any thread; nobody waits for its copy."""
        self._requests.put(_Aside(message))

    def ends_within(self, timeout_s: float) -> bool:
        """Whether the stream has ended, or does so in this time."""
        ended = threading.Event()
        return not self._call.add_callback(ended.set) or ended.wait(timeout_s)

    def _messages(self) -> Iterator[Request]:
        while (message := self._requests.get()) is not None:
            if isinstance(message, _Aside):
                yield message.message
                continue
            yield message
            # gRPC takes the next message once it has made bytes of this one.
            with self._some_copied:
                self._copied += 1
                self._some_copied.notify_all()

    @property
    def is_active(self) -> bool:
        """Whether the stream has not ended."""
        return bool(self._call.is_active())

    def close(self) -> None:
        """End the stream."""
        self._requests.put(None)
        self._call.cancel()

    def _lost(self, error: grpc.RpcError | None) -> LinkLost:
        code = self._call.code()
        details = self._call.details() or str(error or "the stream has ended")
        return LinkLost(code, f"{code.name}: {details}" if code is not grpc.StatusCode.OK else details)


class _Aside(NamedTuple):
    """A message that is not counted."""

    message: pb.TrainRequest


class ServerSocketLink:
    """The socket on one machine, for as long as the gRPC stream lives too."""

    transport = "shared-memory"

    def __init__(self, connection: SocketConnection, stream: ServerStreamLink) -> None:
        self._connection = connection
        self._stream = stream

    def next_message(self) -> tuple[Response, tuple[int, ...]]:
        """See ServerLink."""
        while True:
            try:
                message = self._connection.receive(LOCAL_WAIT_S)
            except TimeoutError:
                if not self._stream.is_active:
                    raise LinkLost(grpc.StatusCode.UNAVAILABLE, "the stream has ended") from None
            except LinkClosed as error:
                raise LinkLost(grpc.StatusCode.UNAVAILABLE, str(error)) from error
            else:
                return self._decoded(message)

    def send(self, message: Request) -> int:
        """See ServerLink."""
        if isinstance(message, RawPart):
            raise TypeError("vectors don't go over the local link")
        try:
            self._connection.send(message.SerializeToString(), timeout_s=SEND_TIMEOUT_S)
        except (LinkClosed, MessageTooLong, TimeoutError) as error:
            raise LinkLost(grpc.StatusCode.UNAVAILABLE, str(error) or "the server reads nothing") from error
        return 0

    def wait_copied(self, number: int) -> None:
        """See ServerLink: a message is copied when it is sent."""

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()

    @staticmethod
    def _decoded(message: Message) -> tuple[Response, tuple[int, ...]]:
        try:
            return pb.TrainResponse.FromString(message.payload), message.descriptors
        except DecodeError as error:
            close_all(message.descriptors)
            raise LinkLost(grpc.StatusCode.UNAVAILABLE, f"what came is no message: {error}") from error
