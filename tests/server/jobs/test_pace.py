"""What is told of a job's speed, and of the time that it has left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_server.jobs.pace import LONG_S, MARK_INTERVAL_S, Pace


def paced(*, step_s: float, steps: int) -> Pace:
    pace = Pace()
    for step in range(steps + 1):
        pace.mark(step * step_s, step)
    return pace


@pytest.mark.parametrize("step_s", [0.001, 0.05, 2.0, 100.0])
def test_a_steady_job_has_the_time_left_that_its_steps_take(step_s: float) -> None:
    steps = max(3, int(30 / step_s))
    left_s = paced(step_s=step_s, steps=steps).left_s(steps * step_s, steps, 3 * steps)
    assert left_s == pytest.approx(2 * steps * step_s, rel=0.01)


def test_nothing_is_known_before_a_second_or_a_step_has_passed() -> None:
    assert Pace().left_s(5.0, 0, 10) is None
    assert paced(step_s=0.1, steps=5).left_s(0.5, 5, 10) is None
    pace = Pace()
    pace.mark(0.0, 7)
    assert pace.left_s(10.0, 7, 10) is None
    assert pace.steps_per_second(10.0, 7) == 0.0


def test_a_job_that_stands_still_has_ever_more_time_left_and_no_speed() -> None:
    pace = paced(step_s=0.1, steps=100)
    first, second = (pace.left_s(now_s, 100, 200) for now_s in (10.0, 40.0))
    assert first is not None
    assert second is not None
    assert second > 2 * first
    assert pace.steps_per_second(12.0, 100) == 0.0


def test_other_workers_begin_a_new_estimate() -> None:
    pace = paced(step_s=1.0, steps=50)
    pace.restart()
    assert pace.left_s(51.0, 50, 100) is None
    for step in range(51, 80):
        pace.mark(50 + (step - 50) * 0.5, step)
    assert pace.left_s(65.0, 80, 100) == pytest.approx(10.0, rel=0.05)


def test_the_estimate_forgets_what_is_older_than_a_minute() -> None:
    pace = paced(step_s=10.0, steps=100)
    now_s = 1000.0
    for _ in range(int(3 * LONG_S)):
        now_s += 1.0
        pace.mark(now_s, 100 + int(now_s - 1000))
    assert pace.left_s(now_s, 280, 380) == pytest.approx(100.0, rel=0.02)


@given(st.lists(st.tuples(st.floats(0, 200), st.integers(0, 1000)), max_size=60))
def test_no_time_left_is_below_zero_and_marks_do_not_pile_up(steps: list[tuple[float, int]]) -> None:
    pace, now_s, step = Pace(), 0.0, 0
    for seconds, count in steps:
        now_s, step = now_s + seconds, step + count
        pace.mark(now_s, step)
        left_s = pace.left_s(now_s, step, 100_000)
        assert left_s is None or left_s > 0
        assert pace.steps_per_second(now_s, step) >= 0
    assert len(pace._marks) <= LONG_S / MARK_INTERVAL_S + 2
