"""The local socket: whole messages and descriptors, their limits, and an end that both sides see."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.transport.local_link.listener import why_unsupported
from chainrule.transport.local_link.segment import Segment
from chainrule.transport.local_link.socket_connection import (
    MAX_BACKLOG,
    MESSAGE_BYTES,
    MESSAGE_DESCRIPTORS,
    LinkClosed,
    Message,
    MessageTooLong,
    SocketConnection,
    close_all,
)

pytestmark = pytest.mark.skipif(why_unsupported() is not None, reason=str(why_unsupported()))
TIMEOUT_S = 60.0


def pair() -> tuple[SocketConnection, SocketConnection]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return SocketConnection(left), SocketConnection(right)


@pytest.fixture
def ends() -> Iterator[tuple[SocketConnection, SocketConnection]]:
    """Both ends of a link."""
    left, right = pair()
    yield left, right
    left.close()
    right.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


Ends = tuple[SocketConnection, SocketConnection]


def test_messages_come_whole_and_in_order(ends: Ends) -> None:
    left, right = ends
    payloads = [b"a", bytes(MESSAGE_BYTES), b"\0", b"b" * 1000]
    for payload in payloads:
        left.send(payload, timeout_s=TIMEOUT_S)
        assert right.receive(TIMEOUT_S) == Message(payload)
    assert right.receive_nowait() is None


def test_descriptors_pass_and_the_memory_is_shared_both_ways(ends: Ends) -> None:
    left, right = ends
    segment = Segment.create(4096, name="test")
    left.send(b"x", (segment.descriptor,), timeout_s=TIMEOUT_S)
    message = right.receive(TIMEOUT_S)
    opened = Segment.open(message.descriptors[0], 4096, writable=True)
    close_all(message.descriptors)
    opened.vector(0, 2)[:] = 1.0, 2.0
    segment.vector(8, 1)[:] = 3.0
    assert opened.vector(0, 3).tolist() == segment.vector(0, 3).tolist() == [1.0, 2.0, 3.0]
    assert not os.get_inheritable(opened.descriptor)


def test_1000_rounds_leak_no_descriptor(ends: Ends) -> None:
    left, right = ends
    segment = Segment.create(4096, name="test")
    before = open_descriptors()
    for _ in range(1000):
        left.send_nowait(b"x", (segment.descriptor,) * MESSAGE_DESCRIPTORS)
        message = right.receive(TIMEOUT_S)
        Segment.open(message.descriptors[0], 4096, writable=False).vector(0, 1)
        close_all(message.descriptors)
    assert open_descriptors() == before


def test_a_message_that_nobody_reads_leaks_no_descriptor() -> None:
    segment = Segment.create(4096, name="test")
    before = open_descriptors()
    left, right = pair()
    with contextlib.suppress(LinkClosed):
        while True:
            left.send_nowait(bytes(4096), (segment.descriptor,))
    left.close()
    right.close()
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("payload", "descriptor_count"), [(b"", 0), (bytes(MESSAGE_BYTES + 1), 0), (b"x", MESSAGE_DESCRIPTORS + 1)]
)
@pytest.mark.parametrize("is_congested", [False, True])
def test_a_message_of_no_or_too_many_bytes_or_descriptors_is_refused_and_the_link_lives(
    ends: Ends, payload: bytes, descriptor_count: int, is_congested: bool
) -> None:
    left, right = ends
    while is_congested and not left.is_congested:
        left.send_nowait(bytes(MESSAGE_BYTES))
    with pytest.raises(MessageTooLong, match="has 1 to 131072 bytes and up to 4 descriptors"):
        left.send_nowait(payload, (0,) * descriptor_count)
    with pytest.raises(MessageTooLong):
        left.send(payload, (0,) * descriptor_count, timeout_s=0.01)
    while not left.flush():
        right.receive(TIMEOUT_S)
    while right.receive_nowait() is not None:
        pass
    left.send(b"after", timeout_s=TIMEOUT_S)
    assert right.receive(TIMEOUT_S).payload == b"after"


def test_an_oversize_message_of_a_peer_without_our_limits_ends_the_link() -> None:
    raw, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection = SocketConnection(theirs)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE_BYTES)
    raw.send(bytes(MESSAGE_BYTES + 1))
    with pytest.raises(LinkClosed, match="cut off"):
        connection.receive(TIMEOUT_S)
    connection.close()
    raw.close()


def test_what_waits_for_a_slow_peer_is_bounded_and_goes_in_order(ends: Ends) -> None:
    left, right = ends
    count = 0
    while not left.is_congested:
        left.send_nowait(count.to_bytes(4, "little") + bytes(60_000))
        count += 1
    for _ in range(MAX_BACKLOG - 1):
        left.send_nowait(count.to_bytes(4, "little") + bytes(60_000))
        count += 1
    with pytest.raises(LinkClosed, match="the peer reads nothing: 64 messages wait"):
        left.send_nowait(b"x")
    received = []
    while len(received) < count:
        left.flush()
        received.append(int.from_bytes(right.receive(TIMEOUT_S).payload[:4], "little"))
    assert received == list(range(count))
    assert left.flush()


def test_a_wait_ends_with_its_deadline(ends: Ends) -> None:
    left = ends[0]
    with pytest.raises(TimeoutError):
        left.receive(0.01)
    while not left.is_congested:
        left.send_nowait(bytes(MESSAGE_BYTES))
    with pytest.raises(TimeoutError):
        left.send(bytes(MESSAGE_BYTES), timeout_s=0.01)


def test_a_closed_link_says_so_on_both_sides() -> None:
    left, right = pair()
    left.close()
    assert left.fileno() == -1
    for end in (left, right):
        with pytest.raises(LinkClosed):
            end.receive(TIMEOUT_S)
        with pytest.raises(LinkClosed):
            end.send(b"x", timeout_s=TIMEOUT_S)
        with pytest.raises(LinkClosed):
            end.send_nowait(b"x")
    left.close()
    right.close()


def test_the_peer_s_user_is_known_by_the_kernel(ends: Ends) -> None:
    assert ends[0].peer_user_id() == os.getuid()
