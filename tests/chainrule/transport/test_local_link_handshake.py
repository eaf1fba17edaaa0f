"""The handshake on the local socket: who is refused, and that nothing is left by whoever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from chainrule.holding import link_offers
from chainrule.holding.link_offers import LinkOffers
from chainrule.transport.local_link.listener import (
    MAX_PATH_BYTES,
    PROOF_BYTES,
    TOKEN_BYTES,
    CannotShare,
    Listener,
    Proof,
    connect,
    why_unsupported,
)
from chainrule.transport.local_link.segment import Segment
from chainrule.transport.local_link.socket_connection import MESSAGE_BYTES, LinkClosed, SocketConnection, close_all
from chainrule.v1 import worker_service_pb2 as pb
from tests.cluster.support import shared_files

pytestmark = pytest.mark.skipif(why_unsupported() is not None, reason=str(why_unsupported()))
TIMEOUT_S = 60.0
REPOSITORY = Path(__file__).resolve().parents[3]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[LinkOffers]:
    links = LinkOffers(Listener())
    try:
        yield links
    finally:
        links.close()


async def take_up(offer: pb.LocalLink) -> tuple[SocketConnection, bytes]:
    return await asyncio.to_thread(connect, offer.address, bytes(offer.token), timeout_s=TIMEOUT_S)


def proof_of(value: bytes) -> bytes:
    return pb.TrainRequest(link_proof=pb.LinkProof(value=value)).SerializeToString()


async def link_up(links: LinkOffers) -> tuple[SocketConnection, SocketConnection]:
    """The server's and the worker's end of a link that was proved."""
    offer, future = links.offer()
    worker, value = await take_up(offer)
    worker.send(proof_of(value), timeout_s=TIMEOUT_S)
    return await asyncio.wait_for(future, TIMEOUT_S), worker


def test_a_worker_that_reads_the_server_s_memory_gets_its_link() -> None:
    async def run() -> None:
        async with listening() as links:
            server, worker = await link_up(links)
            server.send_nowait(b"hello")
            assert worker.receive(TIMEOUT_S).payload == b"hello"
            server.close()
            worker.close()

    asyncio.run(run())


def _wrong_token(links: LinkOffers, offer: pb.LocalLink) -> socket.socket:
    return _present(offer, bytes(TOKEN_BYTES))


def _no_token(links: LinkOffers, offer: pb.LocalLink) -> socket.socket:
    return _present(offer, b"\0")


def _gone(links: LinkOffers, offer: pb.LocalLink) -> socket.socket:
    ours = _present(offer, b"\0")
    ours.shutdown(socket.SHUT_RDWR)
    return ours


def _too_long(links: LinkOffers, offer: pb.LocalLink) -> socket.socket:
    return _present(offer, bytes(offer.token) + bytes(MESSAGE_BYTES))


def _wrong_proof(links: LinkOffers, offer: pb.LocalLink) -> socket.socket:
    return _present(offer, bytes(offer.token), proof_of(bytes(PROOF_BYTES)))


def _no_proof(links: LinkOffers, offer: pb.LocalLink) -> socket.socket:
    return _present(offer, bytes(offer.token), pb.TrainRequest(ready=pb.Ready(job_id="x")).SerializeToString())


def _no_message(links: LinkOffers, offer: pb.LocalLink) -> socket.socket:
    return _present(offer, bytes(offer.token), b"\xff\xff\xff\xff")


def _silent(links: LinkOffers, offer: pb.LocalLink) -> socket.socket:
    return _present(offer)


def _withdrawn(links: LinkOffers, offer: pb.LocalLink) -> socket.socket:
    for future in list(links._offered.values()):
        future.cancel()
    return _present(offer, bytes(offer.token))


def _present(offer: pb.LocalLink, *messages: bytes) -> socket.socket:
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(TIMEOUT_S)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE_BYTES)
    ours.connect("\0" + offer.address[1:])
    for message in messages:
        ours.send(message)
    return ours


INTRUDERS = [_wrong_token, _no_token, _gone, _too_long, _wrong_proof, _no_proof, _no_message, _silent, _withdrawn]


@pytest.mark.parametrize("intrude", INTRUDERS, ids=lambda each: each.__name__[1:])
def test_who_proves_nothing_is_refused_and_the_listener_goes_on(
    intrude: Callable[[LinkOffers, pb.LocalLink], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(link_offers, "HANDSHAKE_TIMEOUT_S", 0.2)

    async def run() -> None:
        async with listening() as links:
            offer, future = links.offer()
            ours = intrude(links, offer)
            await asyncio.sleep(0)
            with ours, contextlib.suppress(ConnectionResetError):
                # Whatever comes first: in the end there is nothing more to read.
                while await asyncio.to_thread(ours.recv, 1):
                    pass
            while links._handshakes:
                await asyncio.sleep(0.01)
            assert not future.done() or future.cancelled()
            for end in await link_up(links):
                end.close()

    before = open_descriptors()
    asyncio.run(run())
    assert "refused a local link" in caplog.text
    assert open_descriptors() == before


def test_a_worker_whose_token_is_wrong_cannot_share() -> None:
    async def run() -> None:
        async with listening() as links:
            offer, _ = links.offer()
            offer.token = bytes(TOKEN_BYTES)
            with pytest.raises(CannotShare, match="is of no use"):
                await take_up(offer)

    asyncio.run(run())


@pytest.mark.parametrize("address", ["@chainrule-nobody-listens-here", "/nowhere/socket", "/" + "x" * 200])
def test_a_worker_that_cannot_reach_the_socket_cannot_share(address: str) -> None:
    with pytest.raises(CannotShare, match="can't be reached"):
        connect(address, b"token", timeout_s=0.5)


def test_a_token_is_good_for_one_worker() -> None:
    async def run() -> None:
        async with listening() as links:
            offer, future = links.offer()
            worker, value = await take_up(offer)
            worker.send(proof_of(value), timeout_s=TIMEOUT_S)
            server = await asyncio.wait_for(future, TIMEOUT_S)
            with pytest.raises(CannotShare):
                await take_up(offer)
            server.close()
            worker.close()

    asyncio.run(run())


def test_without_free_descriptors_the_listener_waits_instead_of_spinning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link_offers, "ACCEPT_PAUSE_S", 0.05)

    async def run() -> None:
        async with listening() as links:
            offer, future = links.offer()
            ours = _present(offer, bytes(offer.token))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
            taken = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.dup(0))
                await asyncio.sleep(0.2)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                close_all(taken)
            assert 1 <= caplog.text.count("no local link can be accepted") <= 5
            with ours:
                handed_over = await asyncio.to_thread(socket.recv_fds, ours, 10, 1)
                segment = Segment.open(handed_over[1][0], PROOF_BYTES, writable=False)
                close_all(handed_over[1])
                ours.send(proof_of(segment.vector(0, PROOF_BYTES // 4).tobytes()))
                (await asyncio.wait_for(future, TIMEOUT_S)).close()

    asyncio.run(run())


def test_a_proof_s_value_is_random_and_lies_in_the_memory() -> None:
    first, second = Proof(), Proof()
    assert first.value != second.value
    segment = Segment.open(first.descriptor, PROOF_BYTES, writable=False)
    assert first.holds(segment.vector(0, PROOF_BYTES // 4).tobytes())
    assert not first.holds(second.value)
    assert not first.holds(b"")


# Sockets with a path.


def test_a_socket_s_file_is_private_and_goes_with_its_listener(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = Listener(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    assert not path.exists()


def test_the_file_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(path))
    assert path.exists()
    listener = Listener(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ours:
        ours.connect(str(path))
    listener.close()


def test_the_socket_of_a_living_server_and_any_other_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = Listener(path)
    with pytest.raises(OSError, match="another server listens"):
        Listener(path)
    assert stat.S_ISSOCK(path.stat().st_mode)
    listener.close()
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        Listener(path)
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("x" * MAX_PATH_BYTES)
    with pytest.raises(ValueError, match="at most 107 bytes"):
        Listener(path)


# Real processes.

SERVER = """
    import asyncio, sys
    from chainrule.transport.local_link.listener import Listener
    from chainrule.transport.local_link.segment import Segment
    from chainrule.holding.link_offers import LinkOffers

    async def serve():
        links = LinkOffers(Listener())
        offer, future = links.offer()
        print(offer.address, offer.token.hex(), flush=True)
        connection = await future
        segment = Segment.create(4096, name="chainrule-killed")
        segment.vector(0, 1)[0] = 42.0
        connection.send_nowait(b"here", (segment.descriptor,))
        await asyncio.sleep(60)

    asyncio.run(serve())
"""
WORKER = """
    import sys, time
    from chainrule.transport.local_link.listener import connect
    from chainrule.v1 import worker_service_pb2 as pb

    connection, value = connect(sys.argv[1], bytes.fromhex(sys.argv[2]), timeout_s=10)
    connection.send(pb.TrainRequest(link_proof=pb.LinkProof(value=value)).SerializeToString(), timeout_s=10)
    message = connection.receive(10)
    print("linked", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-c", textwrap.dedent(code), *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        try:
            yield started
        finally:
            started.kill()


def line_of(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline()


def test_a_killed_server_leaves_nothing_and_its_worker_sees_the_link_closed() -> None:
    shared_before = shared_files()
    with process(SERVER) as server:
        address, token = line_of(server).split()
        connection, value = connect(address, bytes.fromhex(token), timeout_s=TIMEOUT_S)
        connection.send(proof_of(value), timeout_s=TIMEOUT_S)
        message = connection.receive(TIMEOUT_S)
        segment = Segment.open(message.descriptors[0], 4096, writable=True)
        close_all(message.descriptors)
        server.send_signal(signal.SIGKILL)
        server.wait()
        with pytest.raises(LinkClosed):
            connection.receive(TIMEOUT_S)
        connection.close()
    # What was shared is still there for who has mapped it: no SIGBUS.
    assert segment.vector(0, 1).tolist() == [42.0]
    segment.vector(0, 1024)[...] = np.ones(1024, dtype=np.float32)
    assert shared_files() == shared_before
    assert address[1:] not in Path("/proc/net/unix").read_text()


def test_a_killed_worker_leaves_nothing_and_its_server_sees_the_link_closed() -> None:
    shared_before = shared_files()

    async def run() -> None:
        async with listening() as links:
            offer, future = links.offer()
            with process(WORKER, offer.address, offer.token.hex()) as worker:
                connection = await asyncio.wait_for(future, TIMEOUT_S)
                segment = Segment.create(4096, name="chainrule-killed")
                connection.send_nowait(b"here", (segment.descriptor,))
                assert await asyncio.to_thread(line_of, worker) == "linked\n"
                worker.send_signal(signal.SIGKILL)
                worker.wait()
                with pytest.raises(LinkClosed):
                    connection.receive(TIMEOUT_S)
                connection.close()

    before = open_descriptors()
    asyncio.run(run())
    assert open_descriptors() == before
    assert shared_files() == shared_before


TINY_SHM = """
    import os
    import numpy as np
    from chainrule.transport.local_link.segment import Segment
    status = os.statvfs("/dev/shm")
    assert status.f_blocks * status.f_frsize <= 65536, status
    segment = Segment.create(8 << 20, name="test")
    segment.vector(0, 2 << 20)[...] = np.ones(2 << 20, dtype=np.float32)
    print("shared", os.listdir("/dev/shm"))
"""


def test_a_tiny_dev_shm_does_not_matter() -> None:
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', "sh"]
    tried = subprocess.run([*mount, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"/dev/shm can't be mounted anew here: {tried.stderr.strip()}")  # noqa: S108
    done = subprocess.run(
        [*mount, sys.executable, "-P", "-c", textwrap.dedent(TINY_SHM)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "shared []\n"), done.stderr
