"""How a caller that has gone stops the thread that computes for it."""

from __future__ import annotations

import threading


class Stopped(Exception):
    """Nobody waits for the result any more."""


class Stop(threading.Event):
    """Set when nobody waits any more; whoever computes looks at it from time to time."""

    def check(self) -> None:
        """Raise Stopped where it is set."""
        if self.is_set():
            raise Stopped
