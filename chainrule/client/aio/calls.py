"""How the asyncio client calls a server: an answer that is awaited, answers that are read, and what waits beside.

`chainrule.client.blocking.calls` has the same names; all that is built on them is written once. A task that is
cancelled while it waits cancels its call.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import sleep as sleep
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import grpc
import grpc.aio

from chainrule.client.grpc_errors import translated
from chainrule.client.model_output import replace_file
from chainrule.errors import ServerUnavailable
from chainrule.security.credentials import Credentials
from chainrule.security.secure_channel import Options, open_aio_channel

P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """Calls over one channel. Every one raises ServerError, of the subclass that fits."""

    address: str
    _channel: grpc.aio.Channel
    _credentials: Credentials
    _timeout_s: float
    _is_closed: bool

    async def _ask(self, method: Callable[..., Any], request: Any, timeout_s: float | None = None) -> Any:
        """The answer to a call. timeout_s: None for a short one."""
        if timeout_s is None:
            timeout_s = self._timeout_s
        async with self._errors(timeout_s):
            return await method(request, timeout=timeout_s)

    async def _read(self, method: Callable[..., Any], request: Any, timeout_s: float) -> AsyncGenerator[Any, None]:
        """The answers to a call; whoever stops reading cancels it."""
        async with self._errors(timeout_s):
            call = method(request, timeout=timeout_s)
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()

    @contextlib.asynccontextmanager
    async def _errors(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            # In a thread, because it may ask once more, blocking, why nobody answers.
            raise await asyncio.to_thread(translated, error, self.address, timeout_s, self._credentials) from None
        except grpc.aio.UsageError:
            # gRPC says so where the channel was closed.
            raise ServerUnavailable(f"the connection to {self.address} is closed") from None
        except asyncio.CancelledError:
            # A channel that is closed cancels who waits for its calls; a task that somebody cancelled ends as it is.
            task = asyncio.current_task()
            if not self._is_closed or task is None or task.cancelling():
                raise
            raise ServerUnavailable(f"the connection to {self.address} was closed during the call") from None


def open_channel(address: str, credentials: Credentials, options: Options) -> grpc.aio.Channel:
    """A channel for the event loop that runs. Raises RuntimeError outside of one, CredentialsError."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("an asyncio client needs a running event loop; connect inside of a coroutine") from None
    return open_aio_channel(address, credentials, options)


async def close_channel(channel: grpc.aio.Channel) -> None:
    """Close a channel."""
    await channel.close()


async def wait_for(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """What a function that works with files returns: it runs in a thread, and the loop goes on."""
    return await asyncio.to_thread(function, *arguments, **keywords)


async def sent(parts: Iterator[T]) -> AsyncIterator[T]:
    """The requests of one call, each made in a thread."""
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        yield part


async def write_model(path: Path, responses: AsyncGenerator[Any, None]) -> None:
    """Write a model to a file, whole or not at all. It is held in memory until it is whole."""
    parts: list[bytes] = [response.content async for response in responses]
    await asyncio.to_thread(replace_file, path, parts)
