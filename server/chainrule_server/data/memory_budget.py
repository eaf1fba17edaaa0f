"""The memory that reading data sets may take, all preparations together: reserved before it is spent, and given back.

Whether enough is free can't be seen by looking: of two that look at once, both would see it. Who finds no room waits
until those before are done, in order, and is told for what it waited when that takes too long.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chainrule.process.available_memory import available_memory_bytes
from chainrule.process.logs import log_event
from chainrule.text import size
from chainrule_server.errors import LimitExceeded, OutOfMemory

log = logging.getLogger(__name__)
WAIT_TIMEOUT_S = 60.0
SETTING = "--max-preparation-bytes (CHAINRULE_MAX_PREPARATION_BYTES)"


class MemoryBudget:
    """most_bytes: of all preparations together. free_bytes: what the process can still take; None: nobody knows.

    For threads: each prepares one data set."""

    def __init__(
        self,
        most_bytes: int,
        *,
        wait_timeout_s: float = WAIT_TIMEOUT_S,
        free_bytes: Callable[[], int | None] = available_memory_bytes,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most_bytes = most_bytes
        self._wait_timeout_s = wait_timeout_s
        self._free_bytes = free_bytes
        self._clock_s = clock_s
        self._changed = threading.Condition()
        self._reserved: dict[object, int] = {}
        self._waiting: deque[object] = deque()

    @property
    def reserved_bytes(self) -> int:
        """What is reserved now."""
        with self._changed:
            return sum(self._reserved.values())

    @contextmanager
    def reserved(self, size_bytes: int, what: str) -> Iterator[None]:
        """A stretch in which so many bytes are this caller's. what: it reads.

        Raises OutOfMemory where they can't be had at all, LimitExceeded where they aren't in time."""
        if size_bytes > self.most_bytes:
            raise LimitExceeded(
                f"{what} takes about {size(size_bytes)} of memory while it is read, more than the "
                f"{size(self.most_bytes)} that are allowed; take fewer rows or columns, or start the server with a "
                f"larger {SETTING}",
                field="data.uri",
            )
        ticket = object()
        self._acquire(ticket, size_bytes, what)
        try:
            yield
        finally:
            with self._changed:
                del self._reserved[ticket]
                self._changed.notify_all()

    def _acquire(self, ticket: object, size_bytes: int, what: str) -> None:
        deadline_s = self._clock_s() + self._wait_timeout_s
        with self._changed:
            self._waiting.append(ticket)
            try:
                has_told = False
                while self._waiting[0] is not ticket or not self._has_room(size_bytes, what):
                    if not has_told:
                        has_told = True
                        waits = log_event("preparation_waits")
                        message = "%s waits for %s of memory; %s are reserved for %d others"
                        others = size(sum(self._reserved.values())), len(self._reserved)
                        log.info(message, what, size(size_bytes), *others, extra=waits)
                    left_s = deadline_s - self._clock_s()
                    if left_s <= 0:
                        raise LimitExceeded(self._why_late(size_bytes, what))
                    self._changed.wait(left_s)
                self._reserved[ticket] = size_bytes
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _has_room(self, size_bytes: int, what: str) -> bool:
        """Whether so much can be had now. Raises OutOfMemory where nobody gives any back and it can't."""
        reserved_bytes, free_bytes = sum(self._reserved.values()), self._free_bytes()
        if not reserved_bytes and free_bytes is not None and size_bytes > free_bytes:
            raise OutOfMemory(
                f"{what} takes about {size(size_bytes)} of memory while it is read, but the server has "
                f"{size(free_bytes)} left; take fewer rows or columns, or submit it when other jobs have ended",
                field="data.uri",
            )
        room_bytes = self.most_bytes if free_bytes is None else min(self.most_bytes, free_bytes)
        # Part of what is reserved may be spent already, and is then no longer free: what is left is never too much.
        return reserved_bytes + size_bytes <= room_bytes

    def _why_late(self, size_bytes: int, what: str) -> str:
        return (
            f"{what} waited {self._wait_timeout_s:g} s for {size(size_bytes)} of memory, of which "
            f"{size(sum(self._reserved.values()))} are reserved for {len(self._reserved)} others that are being "
            f"prepared; try again later, or start the server with a larger {SETTING}"
        )
