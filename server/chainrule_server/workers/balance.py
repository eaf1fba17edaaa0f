"""How one job's shards are balanced over its workers: what is known of their speeds, and what has come of it."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chainrule.v1 import job_pb2
from chainrule_engine.reduction import assign
from chainrule_server.workers.stragglers import (
    Move,
    Progress,
    Speed,
    decide,
    forgiven_after_s,
    overdue,
    ranges_of,
    share_out,
)

# What doesn't last so long moves nothing.
LASTING_S = 2.0
# After a move shards stay for so long, after another within REMEMBERED_S for twice that, and so on.
FIRST_STAY_S = 15.0
MOST_STAY_DOUBLINGS = 6
REMEMBERED_S = 3600.0


@dataclass(frozen=True)
class _Wish:
    """A move that is worth it, as far as is known since then. whose: the worker that is slow; "" for evening out."""

    whose: str
    since_s: float


@dataclass(frozen=True)
class _Idle:
    """A worker that lost all its shards because it was slow. times: how often it has."""

    since_s: float
    times: int


@dataclass
class Balance:
    """factor: how many times as long as the fastest a worker may take for a row; 0: shards never move for that."""

    factor: float
    # What moved shards last; nothing before the first time.
    _ns_per_row: dict[str, float] = field(default_factory=dict)
    _idle: dict[str, _Idle] = field(default_factory=dict)
    _wish: _Wish | None = None
    # When shards have moved, of late.
    _moved_at_s: list[float] = field(default_factory=list)

    def ranges(self, names: Sequence[str], shard_count: int) -> dict[str, range]:
        """The shards of each of these workers; who isn't in it gets none. Of too many workers the last get none."""
        names = names[:shard_count]
        known = [self._ns_per_row[name] for name in names if name in self._ns_per_row]
        if not known:
            even = assign(shard_count=shard_count, worker_count=len(names)) if names else []
            return dict(zip(names, even, strict=True))
        counts = share_out(shard_count, [self._ns_per_row.get(name, min(known)) for name in names])
        return {name: shards for name, shards in zip(names, ranges_of(counts), strict=True) if shards}

    def next_move(
        self,
        now_s: float,
        speeds: Mapping[str, Speed],
        shard_counts: Mapping[str, int],
        progress: Mapping[str, Progress] | None = None,
    ) -> Move | None:
        """What moves shards now; None: they stay as they are. The arguments are those of the workers with shards.

        progress: how far those that work are with the current order."""
        move = overdue(progress or {}, speeds, factor=self.factor)
        if move is None:
            wanted = decide(speeds, shard_counts, factor=self.factor, is_uneven=bool(self._ns_per_row))
            move = wanted if wanted is not None and self._is_due(now_s, wanted) else None
            if wanted is None:
                self._wish = None
        if move is not None:
            self._wish = None
            self._moved_at_s.append(now_s)
            self._ns_per_row |= move.ns_per_row
            left = self.ranges(list(speeds), sum(shard_counts.values()))
            for name in speeds.keys() - left.keys():
                before = self._idle.get(name)
                self._idle[name] = _Idle(now_s, 0 if before is None else before.times + 1)
        return move

    def _is_due(self, now_s: float, wanted: Move) -> bool:
        """Whether a move has been wanted for long enough, and shards have stayed for long enough since the last."""
        is_slow = wanted.reason == job_pb2.MOVE_REASON_SLOW
        whose = wanted.slow if is_slow else ""
        if self._wish is None or self._wish.whose != whose:
            self._wish = _Wish(whose, now_s)
        if now_s - self._wish.since_s < LASTING_S:
            return False
        self._moved_at_s = [each for each in self._moved_at_s if now_s - each < REMEMBERED_S]
        # Who is only being tried again has a time of its own that doubles.
        if not self._moved_at_s or (is_slow and whose in self._idle):
            return True
        doublings = min(len(self._moved_at_s) - 1, MOST_STAY_DOUBLINGS)
        return now_s - self._moved_at_s[-1] >= FIRST_STAY_S * 2.0**doublings

    def resting(self, names: Sequence[str], ranges: Container[str]) -> list[str]:
        """Those of the workers that have no shards because they are slow. ranges: who has some."""
        return [name for name in names if name in self._idle and name in self._ns_per_row and name not in ranges]

    def forgives(self, now_s: float, names: Sequence[str]) -> bool:
        """Whether one of these workers, which has no shards, is to be tried again; it then counts as unknown."""
        found = False
        for name in names:
            idle = self._idle.get(name)
            if idle is not None and name in self._ns_per_row and now_s - idle.since_s >= forgiven_after_s(idle.times):
                del self._ns_per_row[name]
                self._idle[name] = replace(idle, since_s=now_s)
                found = True
        return found


def event_of(move: Move, ranges: Mapping[str, range]) -> job_pb2.JobEvent:
    """What a job's watchers are told. ranges: the shards of each worker from now on."""
    moved = job_pb2.ShardsMoved(
        slow_worker=move.slow,
        times_slower=move.times_slower,
        reason=move.reason,
        times_shorter=move.times_shorter,
    )
    for name, shards in ranges.items():
        moved.shares.add(worker=name, shard_count=len(shards))
    return job_pb2.JobEvent(shards_moved=moved)
