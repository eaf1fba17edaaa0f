"""When a worker loses its shards, by a clock that the test turns."""

from __future__ import annotations

import random

import pytest

from chainrule.holding.lease import FIRST_PATIENCE, LONGEST_LOOK_S, PATIENCE, Lease

LOOK_S = 0.2


def pass_time(lease: Lease, seconds: float, *, owes: bool = True, is_first: bool = False) -> None:
    """Look every 0.2 s, without any sign of the worker."""
    end_s = lease.now_s + seconds
    while lease.now_s < end_s - 1e-9:
        lease.count_time(min(lease.now_s + LOOK_S, end_s), owes=owes, is_first=is_first)


def test_a_silent_worker_keeps_its_shards_for_the_lease_and_no_longer() -> None:
    lease = Lease(10.0, now_s=1000.0)
    pass_time(lease, 9.9, owes=False)
    assert lease.why_expired() == ""
    assert lease.left_s == pytest.approx(0.1)
    pass_time(lease, 0.2, owes=False)
    assert lease.why_expired() == "silent for 10.1 s"
    assert not lease.hangs


def test_every_sign_of_life_begins_the_lease_anew() -> None:
    lease = Lease(10.0, now_s=0.0)
    for number in range(20):
        pass_time(lease, 9.0, owes=False)
        lease.lives(number)
        lease.count_time(lease.now_s + LOOK_S, owes=False)
    assert (lease.why_expired(), lease.silent_s) == ("", 0.0)


def test_a_worker_that_says_alive_but_gets_nothing_done_loses_its_shards() -> None:
    lease = Lease(10.0, now_s=0.0)
    lease.works()
    for _ in range(12):
        pass_time(lease, 1.0)
        lease.lives(7)
    assert lease.hangs
    assert lease.why_expired().startswith("alive, but its work has stood still for 10.")


def test_a_worker_that_owes_nothing_may_do_nothing() -> None:
    lease = Lease(10.0, now_s=0.0)
    for _ in range(100):
        pass_time(lease, 1.0, owes=False)
        lease.lives(7)
    assert lease.why_expired() == ""


def test_work_that_is_counted_keeps_the_shards_however_long_an_order_takes() -> None:
    lease = Lease(10.0, now_s=0.0)
    for count in range(100):
        pass_time(lease, 8.0)
        lease.lives(count)
    assert lease.why_expired() == ""


def test_long_microbatches_get_as_much_patience_as_they_have_needed() -> None:
    lease = Lease(10.0, now_s=0.0)
    for count in range(1, 4):
        for _ in range(30):
            pass_time(lease, 1.0, is_first=count == 1)
            lease.lives(count)
    assert lease.patience_s == pytest.approx(PATIENCE * 29, rel=0.1)


def test_who_reads_shards_gets_as_much_as_for_any_order_and_ten_times_its_longest_wait() -> None:
    lease = Lease(10.0, now_s=0.0)
    for _ in range(11):
        lease.lives(0, is_loading=True)
        pass_time(lease, 1.0, is_first=True)
    assert lease.hangs
    slow = Lease(10.0, now_s=0.0)
    for count in range(5):
        slow.lives(count, is_loading=True)
        pass_time(slow, 5.0, is_first=True)
    assert slow.patience_s == pytest.approx(PATIENCE * 5, rel=0.1)
    # Once it computes, its first order may take long again.
    slow.lives(5)
    slow.count_time(slow.now_s + LOOK_S, owes=True, is_first=True)
    assert slow.patience_s == 100.0


def test_the_first_order_gets_ten_leases() -> None:
    lease = Lease(10.0, now_s=0.0)
    for _ in range(int(10 * FIRST_PATIENCE) - 1):
        pass_time(lease, 1.0, is_first=True)
        lease.lives(0)
    assert lease.why_expired() == ""
    pass_time(lease, 1.5, is_first=True)
    assert lease.hangs


def test_who_was_taken_for_hanging_gets_twice_the_time_when_it_comes_back() -> None:
    assert [Lease(10.0, 0.0, hangs).patience_s for hangs in (0, 1, 2)] == [100.0, 200.0, 400.0]
    lease = Lease(10.0, 0.0, 1)
    lease.count_time(LOOK_S, owes=True, is_first=False)
    assert lease.patience_s == 20.0


def test_a_server_that_stood_still_itself_takes_no_shards_away() -> None:
    lease = Lease(10.0, now_s=0.0)
    lease.count_time(3600.0, owes=True)
    assert lease.silent_s == LONGEST_LOOK_S
    lease.works()
    lease.count_time(3600.2, owes=True)
    assert (lease.silent_s, lease.still_s) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_lease_ends_only_after_so_much_silence_or_standstill(seed: int) -> None:
    generator = random.Random(seed)
    lease = Lease(generator.uniform(0.5, 20), now_s=generator.uniform(0, 1e6))
    heard_s = worked_s = lease.now_s
    told = 0
    for count in range(500):
        now_s = lease.now_s + generator.uniform(0.01, 0.4)
        sign = generator.random()
        if sign < 0.1:
            lease.works()
            heard_s = worked_s = now_s
        elif sign < 0.2:
            told, before = (count if generator.random() < 0.5 else told), told
            lease.lives(told)
            heard_s = now_s
            worked_s = now_s if told != before else worked_s
        lease.count_time(now_s, owes=True)
        if lease.why_expired():
            assert now_s - heard_s >= lease.lease_s - 1e-6 or now_s - worked_s >= lease.lease_s - 1e-6, f"seed {seed}"
            return
