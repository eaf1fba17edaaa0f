"""Who is slow, and how many shards each worker gets: functions of what was measured.

Time decides here who computes what, and no bit of the result depends on that: `chainrule_engine.reduction` adds the
same microbatches along the same tree, whoever computed them.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chainrule.v1 import job_pb2

# The steps that a worker's speed is judged by, and the fewest that are enough.
JUDGED_STEPS = 32
FEWEST_STEPS = 5
# A worker that is slow in so many of its steps is slow for good.
SLOW_SHARE = 0.5
# Shards move only where steps become so much shorter; a shorter wait than this isn't worth it.
LEAST_GAIN = 1.3
LEAST_WAIT_NS = 2e6
# Who takes so little longer than the fastest counts as equally fast: on a busy machine no difference so small lasts.
LIKE_THE_FASTEST = 1.2
# A worker that has worked for less isn't late with an order, however slow it is: others are asked to help only then.
LATE_NS = 1e8
# Nor do its shards move in mid-step.
OVERDUE_NS = 2e9
# A worker without shards is tried again after so long, then after twice that, and so on.
FIRST_FORGIVEN_AFTER_S = 30.0
MOST_DOUBLINGS = 5


@dataclass
class Speed:
    """How long a worker took in the last steps, from an order's departure to its answer's arrival."""

    samples_ns_per_row: deque[float] = field(default_factory=lambda: deque(maxlen=JUDGED_STEPS))
    took_ns: deque[int] = field(default_factory=lambda: deque(maxlen=JUDGED_STEPS))

    def answered(self, row_count: int, took_ns: int) -> None:
        """It answered for so many rows."""
        if row_count:
            self.samples_ns_per_row.append(took_ns / row_count)
            self.took_ns.append(took_ns)

    @property
    def ns_per_row(self) -> float:
        """The median; 0 where nothing is known."""
        return statistics.median(self.samples_ns_per_row) if self.samples_ns_per_row else 0.0


@dataclass(frozen=True)
class Progress:
    """How far a worker is with the current order. row_count: its rows. took_ns: until it answered, or until now."""

    row_count: int
    took_ns: float
    is_done: bool


@dataclass(frozen=True)
class Move:
    """Shards move. slow: for whom the others waited, and how many times as long as the fastest it takes for a row.

    ns_per_row: what they are shared out by. times_shorter: what that makes of steps; 1 where it isn't known."""

    slow: str
    times_slower: float
    ns_per_row: Mapping[str, float]
    reason: job_pb2.MoveReason
    times_shorter: float = 1.0


def share_out(shard_count: int, ns_per_row: Sequence[float]) -> list[int]:
    """How many shards each worker gets, so that the last of them is done as early as can be; some may get none.

    ns_per_row: what each takes, above 0. Equal times give sizes that differ by at most one, earlier workers have more.
    """
    counts = [0] * len(ns_per_row)
    for _ in range(shard_count):
        # To whoever would be done first with one more.
        chosen = min(range(len(counts)), key=lambda number: ((counts[number] + 1) * ns_per_row[number], number))
        counts[chosen] += 1
    return counts


def ranges_of(counts: Sequence[int]) -> list[range]:
    """Contiguous ranges of shards of these sizes, in order."""
    found, start = [], 0
    for count in counts:
        found.append(range(start, start + count))
        start += count
    return found


def slow_share(name: str, speeds: Mapping[str, Speed], *, factor: float) -> float:
    """In which share of its last steps a worker was slow: it took above `factor` times as long for a row as the fastest
    does, and the others had to wait for it."""
    own = speeds[name]
    others = [speed for other, speed in speeds.items() if other != name and speed.took_ns]
    if not others or not own.took_ns:
        return 0.0
    fastest = min(speed.ns_per_row for speed in others)
    waited = max(statistics.median(speed.took_ns) for speed in others) + LEAST_WAIT_NS
    slow = sum(
        per_row > factor * fastest and took > waited
        for per_row, took in zip(own.samples_ns_per_row, own.took_ns, strict=True)
    )
    return slow / len(own.took_ns)


def decide(
    speeds: Mapping[str, Speed], shard_counts: Mapping[str, int], *, factor: float, is_uneven: bool = False
) -> Move | None:
    """Whether shards had better move, by the workers' last steps; None: they stay.

    They move away from one that is slow in most of its steps, or, where they have moved before (is_uneven), wherever
    steps would become shorter. factor: 0 lets them always stay. Whether that lasts is for `Balance` to see."""
    # What has moved is to stay for a while: each move costs a step.
    fewest = JUDGED_STEPS if is_uneven else FEWEST_STEPS
    if factor == 0 or len(speeds) < 2 or any(len(speed.took_ns) < fewest for speed in speeds.values()):
        return None
    ns_per_row = {name: speed.ns_per_row for name, speed in speeds.items()}
    slowest = max(ns_per_row, key=lambda name: ns_per_row[name])
    is_slow = slow_share(slowest, speeds, factor=factor) >= SLOW_SHARE
    if not is_uneven and not is_slow:
        return None
    fastest = min(ns_per_row.values())
    levelled = {name: fastest if time < LIKE_THE_FASTEST * fastest else time for name, time in ns_per_row.items()}
    counts = dict(zip(speeds, share_out(sum(shard_counts.values()), list(levelled.values())), strict=True))
    last = max(speeds, key=lambda name: shard_counts[name] * ns_per_row[name])
    now = shard_counts[last] * ns_per_row[last]
    then = max(counts[name] * ns_per_row[name] for name in speeds)
    rows_per_shard = _rows_per_shard(speeds[last], shard_counts[last])
    if now < LEAST_GAIN * then or (now - then) * rows_per_shard < LEAST_WAIT_NS:
        return None
    reason = job_pb2.MOVE_REASON_SLOW if is_slow else job_pb2.MOVE_REASON_EVENED
    slow = slowest if is_slow else last
    return Move(slow, ns_per_row[slow] / fastest, levelled, reason, now / then)


def late(progress: Mapping[str, Progress], *, factor: float, least_ns: float = LATE_NS) -> dict[str, float]:
    """Who is so late with an order that others had better compute its part, and how many times as long it has taken for
    a row by now as the slowest of those who have answered. None is where nobody has answered yet.

    factor: 0 lets nobody ever be late. least_ns: who works for less than this is not late."""
    slowest_done = _slowest_done(progress)
    if factor == 0 or not slowest_done:
        return {}
    times = {
        name: each.took_ns / (each.row_count * slowest_done)
        for name, each in progress.items()
        if each.row_count and not each.is_done and each.took_ns > least_ns
    }
    return {name: each for name, each in times.items() if each > factor}


def overdue(progress: Mapping[str, Progress], speeds: Mapping[str, Speed], *, factor: float) -> Move | None:
    """Whether a worker is so late that all its shards had better move to the others; None where nobody is."""
    times = late(progress, factor=factor, least_ns=OVERDUE_NS)
    if not times:
        return None
    slow = max(times, key=lambda name: times[name])
    # Whoever has answered is as fast as its last steps were; the late one gets nothing for now.
    ns_per_row = {name: speed.ns_per_row or _slowest_done(progress) for name, speed in speeds.items()}
    return Move(slow, times[slow], ns_per_row | {slow: math.inf}, job_pb2.MOVE_REASON_LATE)


def _rows_per_shard(speed: Speed, shard_count: int) -> float:
    """How many rows of a step are in one shard of a worker."""
    rows = [took / per_row for took, per_row in zip(speed.took_ns, speed.samples_ns_per_row, strict=True) if per_row]
    return statistics.median(rows) / shard_count if rows and shard_count else 0.0


def _slowest_done(progress: Mapping[str, Progress]) -> float:
    """The nanoseconds for a row of the slowest of those who have answered; 0 where nobody has."""
    done = (each.took_ns / each.row_count for each in progress.values() if each.is_done and each.row_count)
    return max(done, default=0.0)


def forgiven_after_s(times: int) -> float:
    """After how long a worker that has lost all its shards is tried again. times: how often it has been before."""
    return FIRST_FORGIVEN_AFTER_S * float(2 ** min(times, MOST_DOUBLINGS))
