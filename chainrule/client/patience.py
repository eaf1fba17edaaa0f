"""How long a client goes on while nobody answers: a watch of a job, and an upload."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from chainrule.errors import ServerError

# How long a server may be away, such as for a restart.
RECONNECT_TIMEOUT_S = 60.0
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 2.0


class Patience:
    """For at most timeout_s in a row, with growing pauses. clock: seconds, monotonic."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """The server has answered."""
        self._lost_at_s: float | None = None
        self._backoff_s = FIRST_BACKOFF_S

    @property
    def is_fresh(self) -> bool:
        """Whether nothing went wrong since the server's last answer."""
        return self._lost_at_s is None

    def pause_s(self, error: ServerError) -> float:
        """How long to wait before the next attempt. Raises the error where it has been too long."""
        now_s = self._clock()
        self._lost_at_s = now_s if self._lost_at_s is None else self._lost_at_s
        if now_s + self._backoff_s >= self._lost_at_s + self._timeout_s:
            raise error
        # Jitter, so that clients don't come all at once.
        pause_s = self._backoff_s * (0.5 + random.random())  # noqa: S311
        self._backoff_s = min(2 * self._backoff_s, LONGEST_BACKOFF_S)
        return pause_s
