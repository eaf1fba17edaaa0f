"""The server's local socket: it offers a link to each worker that asks, and pairs who connects with who was offered."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets

from google.protobuf.message import DecodeError

from chainrule.process.logs import log_event
from chainrule.transport.local_link.listener import TOKEN_BYTES, Listener, Proof
from chainrule.transport.local_link.segment import SegmentError
from chainrule.transport.local_link.socket_connection import LinkClosed, SocketConnection, close_all
from chainrule.v1 import worker_service_pb2 as pb

log = logging.getLogger(__name__)
HANDSHAKE_TIMEOUT_S = 5.0
ACCEPT_PAUSE_S = 1.0


class LinkOffers:
    """Handshakes on a listener, driven by the running event loop."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._offered: dict[bytes, asyncio.Future[SocketConnection]] = {}
        self._handshakes: set[asyncio.Task[None]] = set()
        self._listen()

    def offer(self) -> tuple[pb.LocalLink, asyncio.Future[SocketConnection]]:
        """An offer for one worker, and what becomes its connection once it has proved that it reads our memory.

        Cancel the future to withdraw the offer."""
        token = secrets.token_bytes(TOKEN_BYTES)
        future: asyncio.Future[SocketConnection] = asyncio.get_running_loop().create_future()
        self._offered[token] = future
        future.add_done_callback(lambda _: self._offered.pop(token, None))
        return pb.LocalLink(address=self._listener.address, token=token), future

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        for task in self._handshakes:
            task.cancel()

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection = self._listener.accept_nowait()
        except OSError as error:
            # The loop would call again at once, for as long as no descriptor is free.
            extra, message = log_event("local_link_failed"), "no local link can be accepted: %s; trying again in %g s"
            log.error(message, error.strerror, ACCEPT_PAUSE_S, extra=extra)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener.fileno())
            loop.call_later(ACCEPT_PAUSE_S, self._listen)
            return
        if connection is not None:
            task = asyncio.get_running_loop().create_task(self._shake_hands(connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connection: SocketConnection) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                presented = await _next(connection)
                future = next((f for token, f in self._offered.items() if hmac.compare_digest(token, presented)), None)
                if future is None:
                    raise LinkClosed("its token is not one that was offered")
                proof = Proof()
                connection.send_nowait(b"\0", (proof.descriptor,))
                answer = pb.TrainRequest.FromString(await _next(connection))
                if not proof.holds(answer.link_proof.value) or future.done():
                    raise LinkClosed("its proof is wrong, or too late")
        except (LinkClosed, TimeoutError, DecodeError, SegmentError, OSError) as error:
            extra = log_event("local_link_refused")
            reason = str(error) or "it was silent"
            log.warning("a process on this machine was refused a local link: %s", reason, extra=extra)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
        else:
            future.set_result(connection)


async def _next(connection: SocketConnection) -> bytes:
    """The payload of the next message. Raises LinkClosed."""
    loop = asyncio.get_running_loop()
    while (message := connection.receive_nowait()) is None:
        readable = asyncio.Event()
        loop.add_reader(connection.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(connection.fileno())
    close_all(message.descriptors)
    return message.payload
