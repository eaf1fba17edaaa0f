"""How the blocking client calls a server: the same names as in `chainrule.client.aio.calls`, for one thread that waits.

A wait that is interrupted (ctrl-C) cancels its call.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from time import sleep as sleep
from typing import Any, ParamSpec, TypeVar

import grpc

from chainrule.client.grpc_errors import translated
from chainrule.client.model_output import replace_file
from chainrule.errors import ServerUnavailable
from chainrule.security.credentials import Credentials
from chainrule.security.secure_channel import open_channel as open_channel

P = ParamSpec("P")
T = TypeVar("T")
CLOSE_TIMEOUT_S = 3.0


class Calls:
    """Calls over one channel. Every one raises ServerError, of the subclass that fits."""

    address: str
    _channel: grpc.Channel
    _credentials: Credentials
    _timeout_s: float
    _is_closed: bool

    def _ask(self, method: Callable[..., Any], request: Any, timeout_s: float | None = None) -> Any:
        """The answer to a call. timeout_s: None for a short one."""
        if timeout_s is None:
            timeout_s = self._timeout_s
        with self._errors(timeout_s):
            return method(request, timeout=timeout_s)

    def _read(self, method: Callable[..., Any], request: Any, timeout_s: float) -> Generator[Any, None, None]:
        """The answers to a call; whoever stops reading cancels it."""
        with self._errors(timeout_s):
            call = method(request, timeout=timeout_s)
            try:
                yield from call
            finally:
                call.cancel()

    @contextlib.contextmanager
    def _errors(self, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise translated(error, self.address, timeout_s, self._credentials) from None
        except ValueError as error:
            # gRPC says so where the channel was closed.
            raise ServerUnavailable(f"the connection to {self.address} is closed ({error})") from None


def close_channel(channel: grpc.Channel) -> None:
    """Close a channel, in a few seconds at most: one whose call was interrupted while it began never ends by itself."""
    closing = threading.Thread(target=channel.close, name="close channel", daemon=True)
    closing.start()
    closing.join(CLOSE_TIMEOUT_S)


def wait_for(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """What a function that works with files returns."""
    return function(*arguments, **keywords)


def sent(parts: Iterator[T]) -> Iterator[T]:
    """The requests of one call; gRPC asks for them in a thread of its own."""
    return parts


def write_model(path: Path, responses: Generator[Any, None, None]) -> None:
    """Write a model to a file as it comes, whole or not at all."""
    with contextlib.closing(responses):
        replace_file(path, (response.content for response in responses))
