"""When shards move on machines that are busy for a while or for good: simulated workers, seen as a server sees them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.client.job_text import event_text
from chainrule.v1 import job_pb2
from chainrule_engine.reduction import assign
from chainrule_server.workers.balance import FIRST_STAY_S, LASTING_S, Balance, event_of
from chainrule_server.workers.stragglers import Move, Speed

SHARDS, ROWS_PER_SHARD = 8, 10
LOOK_INTERVAL_S = 0.2
# The nanoseconds for a row of a worker at a time.
Pace = Callable[[str, float], float]


@dataclass
class Cluster:
    """Workers that compute steps at their paces, in a time that only passes here."""

    names: list[str]
    pace: Pace
    balance: Balance = field(default_factory=lambda: Balance(3.0))
    now_s: float = 0.0
    moves: list[tuple[float, Move]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._take()

    def run(self, until_s: float) -> None:
        looked_at_s = self.now_s
        while self.now_s < until_s:
            took_ns = {
                name: int(len(shards) * ROWS_PER_SHARD * self.pace(name, self.now_s))
                for name, shards in self.ranges.items()
            }
            for name, took in took_ns.items():
                self.speeds[name].answered(len(self.ranges[name]) * ROWS_PER_SHARD, took)
            self.now_s += max(took_ns.values()) / 1e9
            if self.now_s - looked_at_s >= LOOK_INTERVAL_S:
                looked_at_s = self.now_s
                self._look()

    def _look(self) -> None:
        counts = {name: len(shards) for name, shards in self.ranges.items()}
        move = self.balance.next_move(self.now_s, self.speeds, counts)
        if move is not None:
            self.moves.append((self.now_s, move))
        idle = [name for name in self.names if name not in self.ranges]
        if move is not None or self.balance.forgives(self.now_s, idle):
            self._take()

    def _take(self) -> None:
        self.ranges = self.balance.ranges(self.names, SHARDS)
        self.speeds = {name: Speed() for name in self.ranges}


def noisy(seed: int, *, base_ns: float, spread: float) -> Pace:
    """A busy machine: each step of each worker takes up to so many times as long, at random."""
    randomness = random.Random(seed)
    return lambda _name, _now_s: base_ns * randomness.uniform(1.0, spread)


def slow_from(name: str, *, times: float, since_s: float = 0.0, until_s: float = float("inf")) -> Pace:
    return lambda worker, now_s: 1e5 * (times if worker == name and since_s <= now_s < until_s else 1.0)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    workers=st.integers(2, 8),
    spread=st.floats(1.0, 20.0),
    base_ns=st.sampled_from([1e5, 1e6]),
)
def test_on_a_busy_machine_shards_stay_where_they_are(seed: int, workers: int, spread: float, base_ns: float) -> None:
    cluster = Cluster([f"w-{n}" for n in range(workers)], noisy(seed, base_ns=base_ns, spread=spread))
    # Before: 50 moves in 140 s.
    cluster.run(20.0)
    assert cluster.moves == []


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), period_s=st.floats(1.0, 20.0), times=st.floats(3.0, 30.0))
def test_whatever_workers_do_shards_move_more_and_more_rarely(seed: int, period_s: float, times: float) -> None:
    def pace(worker: str, now_s: float) -> float:
        # Another one is slow in each period.
        slow = random.Random(f"{seed} {int(now_s / period_s)}").choice("abc")
        return 1e6 * (times if worker == slow else 1.0)

    cluster = Cluster(["a", "b", "c"], pace)
    cluster.run(140.0)
    # Each of three is tried again after 30 s and after 60 s more; besides, moves are 15 s, 30 s and 60 s apart.
    assert len(cluster.moves) <= 12


@pytest.mark.parametrize("times", [4.0, 10.0, 100.0])
def test_a_worker_that_is_slow_for_good_loses_its_shards_soon_and_it_is_said_once(times: float) -> None:
    cluster = Cluster(["a", "b", "slow"], slow_from("slow", times=times))
    cluster.run(28.0)
    ((moved_at_s, move),) = cluster.moves
    assert LASTING_S <= moved_at_s < LASTING_S + 5.0
    assert (move.slow, move.reason) == ("slow", job_pb2.MOVE_REASON_SLOW)
    assert move.times_slower == pytest.approx(times)


def test_a_worker_that_was_slow_for_less_than_a_moment_keeps_its_shards() -> None:
    cluster = Cluster(["a", "b", "slow"], slow_from("slow", times=10.0, since_s=5.0, until_s=6.0))
    cluster.run(30.0)
    assert cluster.moves == []


def test_a_worker_that_is_fast_again_gets_shards_back_and_they_stay() -> None:
    # Five times slower: it keeps one of eight shards, and is measured.
    cluster = Cluster(["a", "b"], slow_from("b", times=5.0, until_s=10.0))
    cluster.run(120.0)
    assert [move.reason for _, move in cluster.moves] == [job_pb2.MOVE_REASON_SLOW, job_pb2.MOVE_REASON_EVENED]
    assert cluster.moves[1][0] - cluster.moves[0][0] >= FIRST_STAY_S
    even = assign(shard_count=SHARDS, worker_count=2)
    assert list(cluster.ranges.values()) == even


@settings(max_examples=30)
@given(paces=st.lists(st.floats(1e5, 1e7), min_size=2, max_size=6))
def test_what_is_said_of_a_move_is_true(paces: list[float]) -> None:
    names = [f"w-{number}" for number in range(len(paces))]
    of_name: Mapping[str, float] = dict(zip(names, paces, strict=True))
    cluster = Cluster(names, lambda worker, _now_s: of_name[worker])
    cluster.run(10.0)
    for _, move in cluster.moves:
        assert move.times_slower == pytest.approx(of_name[move.slow] / min(paces), rel=1e-3)
        assert move.times_slower >= 3.0
        assert move.times_shorter >= 1.3


def told(move: Move, **shares: int) -> str:
    ranges = {name: range(count) for name, count in shares.items()}
    return event_text(event_of(move, ranges))


def test_each_reason_has_words_that_are_true_of_it() -> None:
    slow = Move("c", 4.25, {}, job_pb2.MOVE_REASON_SLOW, 2.0)
    assert told(slow, a=4, b=4) == (
        "c takes 4.2 times as long for a row as the fastest, and all wait for it; "
        "shards now: a 4, b 4, c none until it is tried again"
    )
    late = Move("c", 30.0, {}, job_pb2.MOVE_REASON_LATE)
    assert told(late, a=8).startswith(
        "c is late with a step, by 30.0 times what the others took; shards now: a 8, c none"
    )
    evened = Move("a", 1.0, {}, job_pb2.MOVE_REASON_EVENED, 1.75)
    assert told(evened, a=4, b=4) == (
        "shards are shared out anew, because a makes steps 1.8 times as long as they need be; shards now: a 4, b 4"
    )
