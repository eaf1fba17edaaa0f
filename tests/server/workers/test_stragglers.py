"""Who is slow, and how shards are shared out; the bits are held in test_training.py and tests/cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_engine.reduction import assign
from chainrule_server.workers.stragglers import (
    FEWEST_STEPS,
    Progress,
    Speed,
    decide,
    forgiven_after_s,
    overdue,
    ranges_of,
    share_out,
    slow_share,
)

MS = 1_000_000
TIMES = st.lists(st.floats(1.0, 1e6), min_size=1, max_size=9)
SHARDS = st.sampled_from([1, 2, 8, 64])


def speed(*took_ms: float, rows: int = 10) -> Speed:
    found = Speed()
    for each in took_ms:
        found.answered(rows, int(each * MS))
    return found


@given(shard_count=SHARDS, times=TIMES)
def test_every_shard_has_one_worker_whatever_the_speeds(shard_count: int, times: list[float]) -> None:
    ranges = ranges_of(share_out(shard_count, times))
    assert [shard for each in ranges for shard in each] == list(range(shard_count))
    assert len(ranges) == len(times)


@given(shard_count=SHARDS, times=TIMES, moved=st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_no_shard_can_be_moved_so_that_the_last_worker_is_done_earlier(
    shard_count: int, times: list[float], moved: tuple[int, int]
) -> None:
    counts = share_out(shard_count, times)
    giver, taker = moved[0] % len(times), moved[1] % len(times)
    if counts[giver] and giver != taker:
        other = [count - (n == giver) + (n == taker) for n, count in enumerate(counts)]
        last = max(count * time for count, time in zip(counts, times, strict=True))
        assert max(count * time for count, time in zip(other, times, strict=True)) >= last * (1 - 1e-9)


@given(shard_count=SHARDS, worker_count=st.integers(1, 8))
def test_equal_workers_get_what_they_get_without_any_measuring(shard_count: int, worker_count: int) -> None:
    if worker_count <= shard_count:
        expected = assign(shard_count=shard_count, worker_count=worker_count)
        assert ranges_of(share_out(shard_count, [5.0] * worker_count)) == expected


@given(times=TIMES, scale=st.sampled_from([0.25, 2.0, 1024.0]))
def test_only_the_ratio_of_speeds_counts(times: list[float], scale: float) -> None:
    assert share_out(8, times) == share_out(8, [time * scale for time in times])


def test_a_worker_ten_times_slower_loses_its_shards() -> None:
    assert share_out(8, [1.0, 1.0, 10.0]) == [4, 4, 0]
    assert share_out(64, [1.0, 1.0, 10.0]) == [31, 30, 3]
    speeds = {"a": speed(*[10] * 8), "b": speed(*[11] * 8), "slow": speed(*[100] * 8)}
    move = decide(speeds, {"a": 3, "b": 3, "slow": 2}, factor=3.0)
    assert move is not None
    assert (move.slow, move.times_slower) == ("slow", 10.0)


def test_with_factor_0_nothing_ever_moves() -> None:
    speeds = {"a": speed(*[10] * 8), "slow": speed(*[1000] * 8)}
    assert decide(speeds, {"a": 4, "slow": 4}, factor=0) is None


def test_a_few_slow_steps_move_nothing() -> None:
    slow = speed(*[10] * 20, *[100] * 8)
    assert 0 < slow_share("slow", {"a": speed(*[10] * 28), "slow": slow}, factor=3.0) < 0.5
    assert decide({"a": speed(*[10] * 28), "slow": slow}, {"a": 4, "slow": 4}, factor=3.0) is None


def test_too_few_steps_move_nothing() -> None:
    few = FEWEST_STEPS - 1
    speeds = {"a": speed(*[10] * few), "slow": speed(*[1000] * few)}
    assert decide(speeds, {"a": 4, "slow": 4}, factor=3.0) is None


def test_a_worker_with_few_rows_that_nobody_waits_for_is_not_slow() -> None:
    # Where the way there and back takes all the time, who has fewer rows takes longer for each.
    speeds = {"a": speed(*[1.0] * 8, rows=40), "few": speed(*[1.0] * 8, rows=10)}
    assert slow_share("few", speeds, factor=3.0) == 0
    assert decide(speeds, {"a": 4, "few": 1}, factor=3.0) is None


def test_where_shards_have_moved_a_worker_that_is_fast_again_gets_some_back() -> None:
    speeds = {"a": speed(*[70] * 32, rows=70), "again": speed(*[10] * 32, rows=10)}
    assert decide(speeds, {"a": 7, "again": 1}, factor=3.0, is_uneven=True) is not None
    assert decide(speeds, {"a": 4, "again": 4}, factor=3.0, is_uneven=True) is None


@given(
    times=st.lists(st.lists(st.floats(0.1, 1e4), min_size=FEWEST_STEPS, max_size=40), min_size=2, max_size=5),
    factor=st.floats(1.5, 10),
)
def test_shards_that_move_make_steps_shorter_and_then_stay(times: list[list[float]], factor: float) -> None:
    speeds = {str(number): speed(*each) for number, each in enumerate(times)}
    even = assign(shard_count=8, worker_count=len(times))
    counts = {name: len(shards) for name, shards in zip(speeds, even, strict=True)}
    move = decide(speeds, counts, factor=factor)
    if move is not None:
        per_row = list(move.ns_per_row.values())
        after = share_out(8, per_row)
        then = max(count * time for count, time in zip(after, per_row, strict=True))
        assert then < max(counts[name] * move.ns_per_row[name] for name in counts)
        assert decide(speeds, dict(zip(speeds, after, strict=True)), factor=factor, is_uneven=True) is None


def test_a_worker_without_shards_is_tried_again_later_and_later() -> None:
    assert [forgiven_after_s(times) for times in (0, 1, 2)] == [30, 60, 120]
    assert forgiven_after_s(100) == forgiven_after_s(5)


def test_who_is_late_with_an_order_gets_nothing_for_now() -> None:
    speeds = {"a": speed(*[10] * 3), "late": Speed()}
    progress = {"a": Progress(10, 10 * MS, is_done=True), "late": Progress(10, 2001 * MS, is_done=False)}
    move = overdue(progress, speeds, factor=3.0)
    assert move is not None
    assert move.slow == "late"
    assert share_out(8, list(move.ns_per_row.values())) == [8, 0]


@pytest.mark.parametrize(
    ("done_ms", "late_ms", "rows"),
    [(10, 1900, 10), (1000, 2900, 10), (100, 2900, 100)],
    ids=["less than 2 s", "less than the factor", "more rows"],
)
def test_who_is_not_so_late_is_waited_for(done_ms: int, late_ms: int, rows: int) -> None:
    progress = {"a": Progress(10, done_ms * MS, is_done=True), "late": Progress(rows, late_ms * MS, is_done=False)}
    assert overdue(progress, {}, factor=3.0) is None


def test_before_anybody_has_answered_nobody_is_late() -> None:
    progress = {name: Progress(10, 1e12, is_done=False) for name in ("a", "b")}
    assert overdue(progress, {}, factor=3.0) is None


def test_with_factor_0_nobody_is_late() -> None:
    progress = {"a": Progress(10, MS, is_done=True), "late": Progress(10, 1e12, is_done=False)}
    assert overdue(progress, {}, factor=0) is None


def test_a_difference_that_lasts_less_than_a_moment_waits_is_not_worth_a_move() -> None:
    # Steps of a tenth of a millisecond: whatever the ratio, nobody waits for long.
    speeds = {"a": speed(*[0.1] * 32), "b": speed(*[0.9] * 32)}
    assert decide(speeds, {"a": 4, "b": 4}, factor=3.0, is_uneven=True) is None


def test_workers_that_are_about_equally_fast_get_equal_shares() -> None:
    speeds = {"a": speed(*[10] * 8), "b": speed(*[11.5] * 8), "c": speed(*[10.9] * 8), "slow": speed(*[200] * 8)}
    move = decide(speeds, {"a": 2, "b": 2, "c": 2, "slow": 2}, factor=3.0)
    assert move is not None
    assert share_out(9, [move.ns_per_row[name] for name in ("a", "b", "c")]) == [3, 3, 3]
