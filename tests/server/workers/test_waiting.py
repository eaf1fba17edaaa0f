"""What a job says it waits for."""

from __future__ import annotations

import pytest

from chainrule.holding.lease import Lease
from chainrule.v1 import job_pb2
from chainrule_server.workers.waiting import Silent, Waiting, for_workers

PARTIAL_SUMS = job_pb2.WAITING_REASON_PARTIAL_SUMS


def silent(name: str, *, seconds: float) -> Silent:
    lease = Lease(10.0, now_s=0.0)
    while lease.now_s < seconds - 1e-9:
        lease.count_time(min(lease.now_s + 0.1, seconds), owes=True)
    return Silent.of(name, lease)


def test_a_silent_worker_is_named_with_who_gets_its_shards_and_when() -> None:
    workers = [Silent.of("w-2", Lease(10.0, 0.0)), silent("w-3", seconds=4.1)]
    waiting = for_workers(PARTIAL_SUMS, "a partial sum of step 7", workers, others=["w-1"], for_s=4.3)
    assert waiting.words == "a partial sum of step 7; w-3 is silent for 4.1 s; in 5.9 s its shards go to w-1"
    message = waiting.message(now_s=1000.0)
    assert [worker.name for worker in message.workers] == ["w-3", "w-2"]
    assert message.since.ToSeconds() == 995
    assert message.next_time.ToNanoseconds() / 1e9 == pytest.approx(1005.9)
    assert message.next == "its shards go to w-1"


def test_the_last_worker_s_shards_go_to_the_next_that_joins() -> None:
    waiting = for_workers(PARTIAL_SUMS, "a partial sum", [silent("w-1", seconds=9.0)], others=[], for_s=9.0)
    assert waiting.words.endswith("in 1.0 s its shards go to the next worker that joins")


def test_with_two_silent_workers_the_first_to_lose_its_shards_is_named() -> None:
    workers = [silent("w-2", seconds=3.0), silent("w-3", seconds=8.0)]
    waiting = for_workers(PARTIAL_SUMS, "partial sums", workers, others=["w-1"], for_s=8.0)
    assert waiting.words.endswith("w-3 is silent for 8.0 s; w-2 is silent for 3.0 s; in 2.0 s w-3's shards go to w-1")


def test_workers_that_are_heard_of_are_only_named() -> None:
    waiting = for_workers(PARTIAL_SUMS, "partial sums of w-1", [Silent("w-1")], others=["w-2"], for_s=2.0)
    assert waiting.words == "partial sums of w-1"
    assert not waiting.message(0.0).HasField("next_time")


def test_a_worker_that_lives_but_gets_nothing_done_is_said_to_do_so() -> None:
    assert Silent("w", still_s=3.0, left_s=7.0).words == "w lives, but has got nothing done for 3.0 s"


def test_without_a_time_nothing_is_said_of_it() -> None:
    waiting = Waiting(job_pb2.WAITING_REASON_TURN, "job a to end")
    assert (waiting.words, waiting.message(5.0)) == ("job a to end", job_pb2.Waiting(reason=1))
