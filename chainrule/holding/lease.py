"""How long a worker may be silent, and how long its work may stand still, before it loses its shards.

Two signs are told apart, because gRPC's threads, and a thread that only says "alive", go on where the computing hangs:
any message is a sign of life, and one that carries work, or an Alive whose count has grown, is a sign of work.

It has no clock: whoever looks says what time it is. Time that passes between two looks that are far apart isn't
counted, because then it was the server that stood still, and what workers sent meanwhile waits to be read.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_LEASE_S = 10.0
# More than this between two looks is the server's own delay.
LONGEST_LOOK_S = 0.5
# A microbatch may take so many times as long as the longest before it.
PATIENCE = 10.0
# Before the first is known, so many leases: plans are compiled.
FIRST_PATIENCE = 10.0
MOST_DOUBLINGS = 6


@dataclass
class Lease:
    """A worker's. Times are seconds; `now_s` is of a monotonic clock.

    hang_count: how often the worker hanged before, each of which doubles the time that it gets: what was taken for
    hanging may have been a long computation."""

    lease_s: float
    now_s: float
    hang_count: int = 0
    silent_s: float = 0.0
    still_s: float = 0.0
    _life_count: int = 0
    _seen_life: int = 0
    _work_count: int = 0
    _seen_work: int = 0
    _reported_work: int = 0
    _longest_still_s: float = 0.0
    _is_first: bool = True
    _is_loading: bool = False
    _was_loading: bool = False

    def works(self) -> None:
        """A message that carries work came. It is called for every message of every step, so it only counts."""
        self._life_count += 1
        self._work_count += 1

    def lives(self, work_count: int, *, is_loading: bool = False) -> None:
        """An Alive came, with what it counts. is_loading: the worker reads shards."""
        self._life_count += 1
        self._is_loading = is_loading
        if work_count != self._reported_work:
            self._reported_work = work_count
            self._work_count += 1

    def count_time(self, now_s: float, *, owes: bool, is_first: bool = False) -> None:
        """Take in how time has passed. owes: the worker was given something to do and hasn't answered.

        is_first: it has answered nothing yet of what it was assigned. While it reads shards that is no excuse."""
        # What stood still before it said that it reads shards was no wait for one.
        counts = not is_first or self._was_loading
        self._was_loading = self._is_loading
        self._is_first = is_first and not self._is_loading
        passed_s = min(max(now_s - self.now_s, 0.0), LONGEST_LOOK_S)
        self.now_s = now_s
        self.silent_s = 0.0 if self._seen_life != self._life_count else self.silent_s + passed_s
        self._seen_life = self._life_count
        if owes and self._seen_work == self._work_count:
            self.still_s += passed_s
        else:
            if counts:
                self._longest_still_s = max(self.still_s, self._longest_still_s)
            self.still_s = 0.0
            self._seen_work = self._work_count

    @property
    def patience_s(self) -> float:
        """How long the work may stand still."""
        patience_s = max(self.lease_s, PATIENCE * self._longest_still_s)
        if self._is_first:
            patience_s = max(patience_s, FIRST_PATIENCE * self.lease_s)
        return float(patience_s * 2 ** min(self.hang_count, MOST_DOUBLINGS))

    @property
    def left_s(self) -> float:
        """The time until the lease expires if nothing more comes; 0 or less where it has."""
        return min(self.lease_s - self.silent_s, self.patience_s - self.still_s)

    @property
    def hangs(self) -> bool:
        """Whether the worker lives, but its work has stood still for too long."""
        return self.still_s >= self.patience_s and self.silent_s < self.lease_s

    def why_expired(self) -> str:
        """Why the worker loses its shards, in words; empty while it keeps them."""
        if self.silent_s >= self.lease_s:
            return f"silent for {self.silent_s:.1f} s"
        if self.hangs:
            return f"alive, but its work has stood still for {self.still_s:.1f} s"
        return ""
