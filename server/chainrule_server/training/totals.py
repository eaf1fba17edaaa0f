"""What a server has done since it started, all jobs together: figures that only grow, for whoever reads them.

Adding up costs a step next to nothing: the times of phases are sorted into buckets a thousand steps at once. It knows
nothing of Prometheus.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

PHASES = ("pull", "compute", "push", "wait", "reduce", "update")
# 10 µs to 5 s, in seconds; a bucket holds what is at most its bound, and the last one, without bound, the rest.
BOUNDS_S = tuple(float(f"{digits}e{power}") for power in range(-5, 1) for digits in (1, 2.5, 5))
_NS_IN_S = 1e9


@dataclass
class StepTotals:
    """Steps that were applied. Those that a restarted server computes again count again."""

    steps: int = 0
    samples: int = 0
    # Gradients and parameters, over the wire.
    pushed_bytes: int = 0
    pulled_bytes: int = 0
    # A row for each of PHASES, an entry for each bucket.
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(PHASES), len(BOUNDS_S) + 1), np.int64))
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(PHASES)))

    def applied(self, *, sample_count: int, wire_bytes: tuple[int, int]) -> None:
        """A step was applied. wire_bytes: pushed, pulled."""
        self.steps += 1
        self.samples += sample_count
        self.pushed_bytes += wire_bytes[0]
        self.pulled_bytes += wire_bytes[1]

    def add_phases(self, phases_ns: NDArray[np.float64]) -> None:
        """The times of steps' phases, (steps, phases) in nanoseconds."""
        buckets = np.searchsorted(np.array(BOUNDS_S) * _NS_IN_S, phases_ns)
        for phase in range(len(PHASES)):
            self.counts[phase] += np.bincount(buckets[:, phase], minlength=len(BOUNDS_S) + 1)
        self.seconds += phases_ns.sum(axis=0) / _NS_IN_S


@dataclass
class CheckpointTotals:
    """Checkpoints. seconds: hashing, writing and syncing of those that were written."""

    written: int = 0
    failed: int = 0
    written_bytes: int = 0
    seconds: float = 0.0

    def add(self, *, size_bytes: int, duration_s: float) -> None:
        """A checkpoint was written."""
        self.written += 1
        self.written_bytes += size_bytes
        self.seconds += duration_s


@dataclass
class Totals:
    """All of it."""

    steps: StepTotals = field(default_factory=StepTotals)
    checkpoints: CheckpointTotals = field(default_factory=CheckpointTotals)
