"""How a local link comes about: the server listens, the worker connects, and both prove what they are.

The worker learns address and token over gRPC. It presents the token; the server answers with a segment that holds a
random value; the worker reads the value in the memory and sends it back. Only then do they share memory.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import logging
import os
import secrets
import socket
import stat
import sys
import time
from pathlib import Path

import numpy as np

from chainrule.process.logs import log_event
from chainrule.transport.local_link.segment import Segment, SegmentError
from chainrule.transport.local_link.socket_connection import LinkClosed, SocketConnection, close_all

log = logging.getLogger(__name__)
TOKEN_BYTES = 16
PROBE_TIMEOUT_S = 1.0
PROOF_BYTES = 16
# What the kernel takes of a path, without its closing zero.
MAX_PATH_BYTES = 107
_PROOF_ELEMENTS = PROOF_BYTES // 4


class CannotShare(Exception):
    """Memory can't be shared with the server; the message says why. Vectors then go over gRPC."""


def why_unsupported() -> str | None:
    """Why this system can't share memory in this way; None where it can."""
    if not (hasattr(os, "memfd_create") and hasattr(socket, "SO_PEERCRED") and hasattr(socket, "SOCK_SEQPACKET")):
        return f"{sys.platform} has no memfd_create"
    return None


class Listener:
    """Where workers on this machine connect. path: None for an abstract name, which needs no cleaning up.

    Raises OSError where the address can't be listened on, also where another server listens at the path, and
    ValueError for a path that is too long."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            if path is None:
                name = f"chainrule-{secrets.token_hex(8)}"
                self.address = f"@{name}"
                self._socket.bind(f"\0{name}")
            else:
                self.address = str(path)
                if len(os.fsencode(path)) > MAX_PATH_BYTES:
                    raise ValueError(f"a socket's path has at most {MAX_PATH_BYTES} bytes: {path}")
                _remove_socket(path)
                self._socket.bind(str(path))
                path.chmod(0o600)
                self._inode = path.stat().st_ino
            self._socket.listen(128)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor to wait on; -1 once closed."""
        return self._socket.fileno()

    def accept_nowait(self) -> SocketConnection | None:
        """A worker that has connected; None where there is none. One of another user is turned away.

        Raises OSError where this process has no descriptor left."""
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return None
        connection = SocketConnection(accepted)
        user_id = connection.peer_user_id()
        if user_id not in (os.getuid(), 0):
            extra = log_event("local_link_refused")
            log.warning("a process of user %d was refused a local link", user_id, extra=extra)
            connection.close()
            return None
        return connection

    def close(self) -> None:
        """Stop listening; links that are there stay."""
        self._socket.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                # Not one that another server has put there meanwhile.
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()


class Proof:
    """The server's side of the proof: a segment with a random value in it."""

    def __init__(self) -> None:
        self.value = secrets.token_bytes(PROOF_BYTES)
        self._segment = Segment.create(PROOF_BYTES, name="chainrule-proof")
        self._segment.vector(0, _PROOF_ELEMENTS)[:] = np.frombuffer(self.value, dtype=np.float32)

    @property
    def descriptor(self) -> int:
        """To be handed over."""
        return self._segment.descriptor

    def holds(self, value: bytes) -> bool:
        """Whether this is what the worker could only read there."""
        return hmac.compare_digest(value, self.value)


def connect(address: str, token: bytes, *, timeout_s: float) -> tuple[SocketConnection, bytes]:
    """The link to a server on this machine, and the value that its memory holds. Raises CannotShare.

    The value is to be sent back as the link's next message."""
    reason = why_unsupported()
    if reason is not None:
        raise CannotShare(reason)
    if not token:
        raise CannotShare("the server gave no token")
    deadline_s = time.monotonic() + timeout_s
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connecting.settimeout(timeout_s)
        connecting.connect("\0" + address[1:] if address.startswith("@") else address)
        connection = SocketConnection(connecting)
    except OSError as error:
        connecting.close()
        raise CannotShare(f"the server's local socket can't be reached ({error.strerror or error})") from error
    try:
        connection.send(token, timeout_s=timeout_s)
        answer = connection.receive(max(0.001, deadline_s - time.monotonic()))
        try:
            if len(answer.descriptors) != 1:
                raise CannotShare("the server handed over no memory")
            segment = Segment.open(answer.descriptors[0], PROOF_BYTES, writable=False)
            return connection, segment.vector(0, _PROOF_ELEMENTS).tobytes()
        finally:
            close_all(answer.descriptors)
    except (LinkClosed, TimeoutError, SegmentError) as error:
        connection.close()
        raise CannotShare(f"the server's local socket is of no use ({error or 'no answer in time'})") from error
    except CannotShare:
        connection.close()
        raise


def _remove_socket(path: Path) -> None:
    """Remove what a killed server left; anything else at that path stays, and can't be bound to.

    Raises OSError where a server listens there."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, f"another server listens at {path}")
