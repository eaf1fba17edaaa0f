"""Who is slow, and what is done about it: functions of what was measured, which no bit of the result depends on."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

# The steps that a worker's speed is judged by.
JUDGED_STEPS = 32


@dataclass
class Speed:
    """How long a worker took in the last steps, from an order's departure to its answer's arrival."""

    samples_ns_per_row: deque[float] = field(default_factory=lambda: deque(maxlen=JUDGED_STEPS))

    def answered(self, row_count: int, took_ns: int) -> None:
        """It answered for so many rows."""
        if row_count:
            self.samples_ns_per_row.append(took_ns / row_count)

    @property
    def ns_per_row(self) -> float:
        """The median; 0 where nothing is known."""
        return statistics.median(self.samples_ns_per_row) if self.samples_ns_per_row else 0.0
