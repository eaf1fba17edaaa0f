"""A connected local socket: whole messages, in order, with file descriptors where a message brings some along."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

# A message goes in one piece; who has a longer one closes the link, and goes on over gRPC.
MESSAGE_BYTES = 1 << 17
MESSAGE_DESCRIPTORS = 4
# Messages that wait for a peer that doesn't read; a worker is owed a few at most.
MAX_BACKLOG = 64
_ANCILLARY_BYTES = socket.CMSG_SPACE(MESSAGE_DESCRIPTORS * array.array("i").itemsize)
_RECEIVE_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class MessageTooLong(ValueError):
    """A message that doesn't go over a local link."""


class LinkClosed(Exception):
    """The other side has closed the link, or is gone."""


class Message(NamedTuple):
    """What came. descriptors: the receiver's, to be closed by it."""

    payload: bytes
    descriptors: tuple[int, ...] = ()


class SocketConnection:
    """One end of a link, on a SOCK_SEQPACKET socket. `receive` and `send` block; the `…_nowait` ones never do."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE_BYTES)
        self._backlog: deque[Message] = deque()
        self._timeout_s: float | None = -1.0

    def fileno(self) -> int:
        """The socket's descriptor, to wait on; -1 once closed."""
        return self._socket.fileno()

    def receive(self, timeout_s: float | None) -> Message:
        """The next message. Raises TimeoutError, LinkClosed. None waits without end."""
        self._set_timeout(timeout_s)
        return self._receive()

    def receive_nowait(self) -> Message | None:
        """The next message, or None where none is there. Raises LinkClosed."""
        self._set_timeout(0.0)
        try:
            return self._receive()
        except BlockingIOError:
            return None

    def send(self, payload: bytes, descriptors: Sequence[int] = (), *, timeout_s: float) -> None:
        """Send a message. The descriptors stay the caller's. Raises TimeoutError, LinkClosed, MessageTooLong."""
        _check_length(payload, descriptors)
        self._set_timeout(timeout_s)
        self._send(payload, descriptors)

    def send_nowait(self, payload: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message, or keep it for `flush` where the peer is slow.

        Raises MessageTooLong, and LinkClosed also where too many wait."""
        _check_length(payload, descriptors)
        if not self._backlog:
            self._set_timeout(0.0)
            try:
                self._send(payload, descriptors)
            except BlockingIOError:
                pass
            else:
                return
        if len(self._backlog) >= MAX_BACKLOG:
            raise LinkClosed(f"the peer reads nothing: {MAX_BACKLOG} messages wait for it")
        self._backlog.append(Message(payload, _duplicates(descriptors)))

    def flush(self) -> bool:
        """Send what waits, as far as it goes; whether nothing waits any more. Raises LinkClosed."""
        self._set_timeout(0.0)
        while self._backlog:
            message = self._backlog[0]
            try:
                self._send(message.payload, message.descriptors)
            except BlockingIOError:
                return False
            close_all(self._backlog.popleft().descriptors)
        return True

    @property
    def is_congested(self) -> bool:
        """Whether messages wait for `flush`."""
        return bool(self._backlog)

    def close(self) -> None:
        """Close the link; what still waits is dropped."""
        for message in self._backlog:
            close_all(message.descriptors)
        self._backlog.clear()
        self._socket.close()

    def peer_user_id(self) -> int:
        """The user of the process at the other end, as the kernel knows it."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return array.array("i", credentials)[1]

    def _set_timeout(self, timeout_s: float | None) -> None:
        # A system call that is mostly needless.
        if timeout_s != self._timeout_s:
            try:
                self._socket.settimeout(timeout_s)
            except OSError as error:
                raise LinkClosed("this side has closed the link") from error
            self._timeout_s = timeout_s

    def _receive(self) -> Message:
        try:
            payload, ancillary, flags, _ = self._socket.recvmsg(MESSAGE_BYTES, _ANCILLARY_BYTES, _RECEIVE_FLAGS)
        except (BlockingIOError, TimeoutError):
            raise
        except OSError as error:
            raise LinkClosed(f"the link broke: {error.strerror}") from error
        descriptors = _descriptors(ancillary) if ancillary else ()
        if not payload or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            close_all(descriptors)
            raise LinkClosed("a message was cut off" if payload else "the other side closed the link")
        return Message(payload, descriptors)

    def _send(self, payload: bytes, descriptors: Sequence[int]) -> None:
        try:
            if descriptors:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
                self._socket.sendmsg([payload], [rights], socket.MSG_NOSIGNAL)
            else:
                self._socket.send(payload, socket.MSG_NOSIGNAL)
        except (BlockingIOError, TimeoutError):
            raise
        except OSError as error:
            raise LinkClosed(f"the link broke: {error.strerror}") from error


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody needs any more."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _check_length(payload: bytes, descriptors: Sequence[int]) -> None:
    if not 1 <= len(payload) <= MESSAGE_BYTES or len(descriptors) > MESSAGE_DESCRIPTORS:
        raise MessageTooLong(
            f"a message has 1 to {MESSAGE_BYTES} bytes and up to {MESSAGE_DESCRIPTORS} descriptors, "
            f"not {len(payload)} and {len(descriptors)}"
        )


def _duplicates(descriptors: Sequence[int]) -> tuple[int, ...]:
    """Descriptors of our own, for a message that waits. Raises LinkClosed where none is free."""
    own: list[int] = []
    try:
        for descriptor in descriptors:
            own.append(os.dup(descriptor))
    except OSError as error:
        close_all(own)
        raise LinkClosed(f"no descriptor is free: {error.strerror}") from error
    return tuple(own)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return tuple(found)
