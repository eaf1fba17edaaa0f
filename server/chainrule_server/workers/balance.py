"""How one job's shards are balanced over its workers: what is known of their speeds, and what has come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def ranges(self, names: Sequence[str], shard_count: int) -> dict[str, range]:
        """The shards of each of these workers; who isn't in it gets none. Of too many workers the last get none."""
        names = names[:shard_count]
        known = [self._ns_per_row[name] for name in names if name in self._ns_per_row]
        if not known:
            even = assign(shard_count=shard_count, worker_count=len(names)) if names else []
            return dict(zip(names, even, strict=True))
        counts = share_out(shard_count, [self._ns_per_row.get(name, min(known)) for name in names])
        return {name: shards for name, shards in zip(names, ranges_of(counts), strict=True) if shards}

    def look(
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
            move = decide(speeds, shard_counts, factor=self.factor, is_uneven=bool(self._ns_per_row))
        if move is not None:
            self._ns_per_row |= move.ns_per_row
            left = self.ranges(list(speeds), sum(shard_counts.values()))
            for name in speeds.keys() - left.keys():
                before = self._idle.get(name)
                self._idle[name] = _Idle(now_s, 0 if before is None else before.times + 1)
        return move

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
    moved = job_pb2.ShardsMoved(slow_worker=move.slow, times_slower=move.times_slower)
    for name, shards in ranges.items():
        moved.shares.add(worker=name, shard_count=len(shards))
    return job_pb2.JobEvent(shards_moved=moved)
