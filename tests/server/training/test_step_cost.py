"""Where a step's time goes, with clocks that a test turns."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from chainrule_server.training.step_cost import KEPT_STEPS, ClockOffset, StepCosts
from chainrule_server.training.totals import BOUNDS_S, PHASES, StepTotals

HOUR_NS = 3600 * 10**9
MS = 10**6


def step(
    costs: StepCosts, number: int, *, at_ns: int, ahead_ns: dict[str, int], compute_ms: dict[str, int], way_ms: int = 1
) -> int:
    """A step with a way of way_ms in each direction, 2 ms of reduction and 3 of update; when it ended."""
    costs.issued(at_ns)
    arrivals = []
    for name, ahead in ahead_ns.items():
        started_ns = at_ns + way_ms * MS
        finished_ns = started_ns + compute_ms[name] * MS
        arrivals.append((finished_ns + way_ms * MS, name, started_ns + ahead, finished_ns + ahead))
    for arrived_ns, name, started_ns, finished_ns in sorted(arrivals):
        costs.arrived(name, started_ns, finished_ns, arrived_ns)
    complete_ns = max(arrivals)[0]
    updated_ns = complete_ns + 5 * MS
    costs.applied(number, complete_ns=complete_ns, reduced_ns=complete_ns + 2 * MS, updated_ns=updated_ns)
    return updated_ns


def phases(costs: StepCosts) -> dict[str, float]:
    message = costs.message()
    assert message is not None
    return {phase: getattr(message, phase).median_ms for phase in PHASES}


def test_the_totals_have_every_step_once_whenever_they_are_added_up() -> None:
    totals, now_ns = StepTotals(), HOUR_NS
    for costs in (StepCosts(totals), StepCosts(totals)):
        for number in range(1, 2 * KEPT_STEPS + 2):
            now_ns = step(costs, number, at_ns=now_ns, ahead_ns={"w": 0}, compute_ms={"w": 4})
            if number in (3, KEPT_STEPS - 1, KEPT_STEPS, KEPT_STEPS + 7):
                costs.add_up()
        costs.add_up()
    count = 2 * (2 * KEPT_STEPS + 1)
    assert totals.steps == count
    assert totals.counts.sum(axis=1).tolist() == [count] * len(PHASES)
    expected_s = {"pull": 0.001, "compute": 0.004, "push": 0.001, "wait": 0.0, "reduce": 0.002, "update": 0.003}
    assert totals.seconds.tolist() == pytest.approx([count * expected_s[phase] for phase in PHASES])


def test_a_bucket_of_the_totals_holds_what_is_at_most_its_bound() -> None:
    totals = StepTotals()
    bound_ns = BOUNDS_S[3] * 1e9
    for time_ns in (bound_ns, np.nextafter(bound_ns, np.inf), 1e12):
        totals.add_phases(np.full((1, len(PHASES)), time_ns))
    for counts in totals.counts:
        assert {bucket: count for bucket, count in enumerate(counts.tolist()) if count} == {
            3: 1,
            4: 1,
            len(BOUNDS_S): 1,
        }


def test_nothing_is_told_before_the_first_step() -> None:
    assert StepCosts().message() is None
    assert list(StepCosts().spans(origin_ns=0)) == []


@pytest.mark.parametrize("ahead_ns", [0, 7 * HOUR_NS, -7 * HOUR_NS])
def test_a_worker_s_clock_that_is_hours_away_is_taken_out(ahead_ns: int) -> None:
    costs, now_ns = StepCosts(), 10 * HOUR_NS
    for number in range(1, 20):
        ahead = {"near": 0, "far": ahead_ns}
        now_ns = step(costs, number, at_ns=now_ns, ahead_ns=ahead, compute_ms={"near": 4, "far": 10})
    expected = {"pull": 1.0, "compute": 10.0, "push": 1.0, "wait": 6.0, "reduce": 2.0, "update": 3.0}
    assert phases(costs) == pytest.approx(expected)


@pytest.mark.parametrize("ahead_ns", [0, 7 * HOUR_NS, -7 * HOUR_NS])
def test_every_span_lies_in_its_step_by_the_server_s_clock(ahead_ns: int) -> None:
    costs, first_ns = StepCosts(), 10 * HOUR_NS
    end_ns = step(costs, 1, at_ns=first_ns, ahead_ns={"far": ahead_ns}, compute_ms={"far": 10})
    spans = list(costs.spans(origin_ns=first_ns))
    assert [span.name for span in spans] == list(PHASES)
    for before, after in itertools.pairwise(spans):
        assert before.start_us + before.duration_us == pytest.approx(after.start_us)
    assert spans[0].start_us == 0
    assert sum(span.duration_us for span in spans) == pytest.approx((end_ns - first_ns) / 1000)
    assert {span.process for span in spans} == {"far", "server"}


def test_the_phases_add_up_to_the_step_but_for_the_wait_of_the_first_for_the_last() -> None:
    costs = StepCosts()
    end_ns = step(costs, 1, at_ns=0, ahead_ns={"a": 5, "b": HOUR_NS}, compute_ms={"a": 3, "b": 20})
    found = phases(costs)
    assert sum(found.values()) - found["wait"] == pytest.approx(end_ns / MS)
    assert found["wait"] == pytest.approx(17.0)


def test_uneven_ways_and_wrong_clocks_never_give_a_negative_or_infinite_time() -> None:
    costs = StepCosts()
    odd = [(0, 0), (2**63, 2**63 + 5), (5, 0), (1, 2**64 - 1), (2**64 - 1, 0), (50, 60)]
    for number, (started_ns, finished_ns) in enumerate(odd, start=1):
        costs.issued(number * 100)
        costs.arrived("odd", started_ns, finished_ns, number * 100 + 50)
        costs.applied(number, complete_ns=number * 100 + 60, reduced_ns=number * 100 + 70, updated_ns=number * 100 + 80)
    message = costs.message()
    assert message is not None
    for phase in PHASES:
        for value in (getattr(message, phase).median_ms, getattr(message, phase).p95_ms):
            assert math.isfinite(value)
            assert 0 <= value < 1
    for span in costs.spans(origin_ns=0):
        assert 0 <= span.start_us <= 1
        assert 0 <= span.duration_us <= 1


def test_several_partial_sums_of_a_worker_are_one_answer() -> None:
    costs = StepCosts()
    costs.issued(0)
    costs.arrived("a", 1 * MS, 4 * MS, 5 * MS)
    costs.arrived("a", 4 * MS, 9 * MS, 10 * MS)
    costs.applied(1, complete_ns=10 * MS, reduced_ns=10 * MS, updated_ns=10 * MS)
    assert phases(costs)["compute"] == pytest.approx(8.0)


def test_an_evaluation_between_two_steps_is_no_step() -> None:
    costs = StepCosts()
    end_ns = step(costs, 1, at_ns=0, ahead_ns={"a": 0}, compute_ms={"a": 3})
    costs.issued(end_ns)
    costs.arrived("a", end_ns, end_ns + 100 * MS, end_ns + 100 * MS)
    step(costs, 2, at_ns=end_ns + 200 * MS, ahead_ns={"a": 0}, compute_ms={"a": 3})
    assert phases(costs)["compute"] == pytest.approx(3.0)
    assert {span.step for span in costs.spans(origin_ns=0)} == {1, 2}


def test_only_the_last_steps_are_kept() -> None:
    costs, now_ns = StepCosts(), 0
    for number in range(1, KEPT_STEPS + 3):
        now_ns = step(costs, number, at_ns=now_ns, ahead_ns={"a": 0}, compute_ms={"a": 1 if number > 2 else 50})
    assert min(span.step for span in costs.spans(origin_ns=0)) == 3
    message = costs.message()
    assert message is not None
    assert message.compute.p95_ms == pytest.approx(1.0)


def test_a_name_that_comes_back_has_a_new_clock_and_its_old_spans_keep_the_old_one() -> None:
    costs = StepCosts()
    end_ns = step(costs, 1, at_ns=0, ahead_ns={"a": 0}, compute_ms={"a": 5})
    costs.keep_clocks(set())
    step(costs, 2, at_ns=end_ns, ahead_ns={"a": HOUR_NS}, compute_ms={"a": 5}, way_ms=2)
    computed = [span for span in costs.spans(origin_ns=0) if span.name == "compute"]
    assert [span.start_us for span in computed] == pytest.approx([1000.0, end_ns / 1000 + 2000])
    assert [span.duration_us for span in computed] == pytest.approx([5000.0, 5000.0])


def test_the_exchange_with_the_shortest_way_decides_the_offset() -> None:
    offset = ClockOffset()
    offset.observe(issued_ns=0, started_ns=1000 + 10, finished_ns=1000 + 20, arrived_ns=30)
    assert offset.offset_ns == 1000
    # A way of 500 there and 10 back says nothing better.
    offset.observe(issued_ns=100, started_ns=1600, finished_ns=1610, arrived_ns=620)
    assert offset.offset_ns == 1000
    offset.observe(issued_ns=1000, started_ns=2003, finished_ns=2010, arrived_ns=1011)
    assert offset.offset_ns == 1001
