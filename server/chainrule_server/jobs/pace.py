"""How fast a job is: its steps over the last while, and the time that the rest will take at that rate.

Marks are set at steps' ends, at most ten a second, so that they cost nothing beside a step."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MARK_INTERVAL_S = 0.1
# What is told of the speed looks back so far,
SHORT_S = 1.5
# and the estimate so far: long enough to hold evaluations, short enough to notice that workers came or went.
LONG_S = 60.0
# Less than this says nothing about the rest.
LEAST_S = 1.0


@dataclass
class Pace:
    """Times are a monotonic clock's."""

    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def restart(self) -> None:
        """What was before says nothing about what comes: the workers are others now."""
        self._marks.clear()

    def mark(self, now_s: float, step: int) -> None:
        """A job is at this step."""
        if not self._marks or now_s - self._marks[-1][0] >= MARK_INTERVAL_S:
            self._marks.append((now_s, step))
        # One mark from before the window stays: its beginning.
        while len(self._marks) > 2 and now_s - self._marks[1][0] > LONG_S:
            self._marks.popleft()

    def steps_per_second(self, now_s: float, step: int) -> float:
        """Over about the last second; 0 where no step has ended for so long."""
        return self._rate(now_s, step, SHORT_S) or 0.0

    def left_s(self, now_s: float, step: int, total_steps: int) -> float | None:
        """The seconds that the steps to the last take at the rate of the last minute; None: it isn't known."""
        if not self._marks or now_s - self._marks[0][0] < LEAST_S:
            return None
        rate = self._rate(now_s, step, LONG_S)
        return (total_steps - step) / rate if rate else None

    def _rate(self, now_s: float, step: int, window_s: float) -> float | None:
        """Steps per second since the last mark that is as old as the window, or the first."""
        if not self._marks:
            return None
        old = (mark for mark in reversed(self._marks) if now_s - mark[0] >= window_s)
        since_s, since_step = next(old, self._marks[0])
        return (step - since_step) / (now_s - since_s) if now_s > since_s else None
