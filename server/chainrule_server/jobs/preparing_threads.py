"""Threads in which specs are prepared, and in which nothing else is done: a download waits for none of them.

At most so many are prepared at once; who comes then waits its turn, in order, and is refused in words after a while.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from chainrule_server.errors import LimitExceeded

# More at once would only fight for processors and memory.
MOST_AT_ONCE = 2
WAIT_TIMEOUT_S = 60.0

Answer = TypeVar("Answer")


class PreparingThreads:
    """wait_timeout_s: how long a call waits for its turn at most."""

    def __init__(self, count: int = MOST_AT_ONCE, *, wait_timeout_s: float = WAIT_TIMEOUT_S) -> None:
        self._count = count
        self._wait_timeout_s = wait_timeout_s
        self._turns = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="prepare")

    async def run(self, call: Callable[..., Answer], *arguments: Any, **named: Any) -> Answer:
        """What a call returns or raises, made in one of the threads. Raises LimitExceeded where its turn doesn't come.

        A caller that gives up keeps its turn until the call is over: a thread can't be stopped."""
        try:
            async with asyncio.timeout(self._wait_timeout_s):
                await self._turns.acquire()
        except TimeoutError:
            raise LimitExceeded(
                f"{self._count} other jobs are being prepared, which is the most at once, and none of them was done "
                f"within {self._wait_timeout_s:g} s; try again later"
            ) from None
        context = contextvars.copy_context()
        work = functools.partial(context.run, call, *arguments, **named)
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._turns.release()
        if not future.cancelled():
            future.exception()  # whoever waited for it may be gone
