"""Watching through lost connections, with a clock of the test's own."""

from __future__ import annotations

import pytest

from chainrule.client.watching import CALL_TIMEOUT_S, Watch
from chainrule.errors import ArgumentError, JobNotEnded, JobNotFound, ServerTimeout, ServerUnavailable
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api

RUNNING = api.WatchJobResponse(job=job_pb2.Job(job_id="abcdef", state=job_pb2.JOB_STATE_RUNNING), last_event=5)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_lost_watch_goes_on_after_the_last_event_that_was_told() -> None:
    told = []
    watch = Watch("abcd", lost=told.append, clock=Clock())
    assert not watch.told(RUNNING)
    gone = ServerUnavailable("gone")
    assert 0.05 <= watch.wait_after(gone) <= 0.15
    assert 0.1 <= watch.wait_after(gone) <= 0.3
    assert told == [gone]
    assert (watch.request.job_id, watch.request.after_event) == ("abcdef", 5)


def test_a_connection_that_stays_lost_is_given_up() -> None:
    clock = Clock()
    watch = Watch("abcd", reconnect_timeout_s=10, clock=clock)
    watch.told(RUNNING)
    watch.wait_after(None)
    clock.now_s += 10
    with pytest.raises(ServerUnavailable, match="stopped telling how job abcdef goes on"):
        watch.wait_after(None)


def test_a_first_call_that_fails_and_any_other_error_end_the_watch() -> None:
    with pytest.raises(ServerUnavailable):
        Watch("abcd", clock=Clock()).wait_after(ServerUnavailable("nobody"))
    watch = Watch("abcd", clock=Clock())
    watch.told(RUNNING)
    with pytest.raises(JobNotFound):
        watch.wait_after(JobNotFound("no such job"))


def test_every_call_has_a_deadline_and_the_next_one_goes_on_at_once() -> None:
    clock = Clock()
    watch = Watch("abcd", clock=clock)
    assert watch.begin_call() == CALL_TIMEOUT_S
    with pytest.raises(ServerTimeout):  # the server's own, long before
        watch.wait_after(ServerTimeout("busy"))
    clock.now_s += CALL_TIMEOUT_S
    assert watch.wait_after(ServerTimeout("the deadline")) == 0


def test_a_watch_with_a_timeout_says_in_which_state_the_job_is() -> None:
    clock = Clock()
    watch = Watch("abcd", timeout_s=3, clock=clock)
    assert watch.begin_call() == 3
    watch.told(RUNNING)
    clock.now_s += 3
    with pytest.raises(JobNotEnded, match="job abcdef is still running after 3 s"):
        watch.wait_after(ServerTimeout("the deadline"))


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), "3"])
def test_a_time_that_is_none_is_refused(timeout_s: float) -> None:
    with pytest.raises(ArgumentError, match="timeout_s: must be seconds, 0 or more"):
        Watch("abcd", timeout_s=timeout_s)
