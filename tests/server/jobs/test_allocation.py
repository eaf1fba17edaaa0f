"""Who gets which workers: rules that hold in every situation, and some situations by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule_server.jobs.allocation import Claim, allocate, in_line

WORKERS = tuple(f"w{number}" for number in range(9))
Allocation = dict[str, tuple[str, ...]]


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Claim], list[str]]:
    """Jobs that run or wait, in the order of creation; a worker that one holds may be gone."""
    connected = draw(st.lists(st.sampled_from(WORKERS), unique=True))
    not_held = draw(st.permutations(WORKERS))
    claims = []
    for number in range(draw(st.integers(0, 6))):
        least = draw(st.integers(1, 4))
        claim = Claim(
            f"job-{number}",
            least,
            draw(st.integers(least, 8)),
            draw(st.integers(-1, 1)),
            is_running=draw(st.booleans()),
        )
        if claim.is_running:
            count = draw(st.integers(0, min(len(not_held), claim.max_workers)))
            claim = dataclasses.replace(claim, held=tuple(not_held[:count]))
            not_held = not_held[count:]
        claims.append(claim)
    return claims, connected


@st.composite
def mixed_situations(draw: st.DrawFn) -> tuple[list[Claim], list[str]]:
    """The same with two kinds of workers, of which jobs take one, either or both."""
    claims, workers = draw(situations())
    odd = draw(st.frozensets(st.sampled_from(WORKERS)))
    sets = tuple(frozenset(kind) for kind in ({*workers} - odd, {*workers} & odd) if kind)
    kinds = st.sampled_from([None, (), *((kind,) for kind in sets), sets, sets[::-1]])
    return [dataclasses.replace(claim, kinds=draw(kinds)) for claim in claims], workers


def taken_by(claim: Claim, workers: Sequence[str]) -> frozenset[str]:
    """Whom a job takes."""
    return frozenset(workers) if claim.kinds is None else frozenset().union(*claim.kinds)


def most_that_can_be_met(claims: list[Claim], workers: list[str]) -> int:
    """How many minimums' workers the jobs can have together, found by trying all that there is (slow)."""
    slots = [claim for claim in claims for _ in range(claim.min_workers)]

    @functools.cache
    def best(number: int, left: frozenset[str]) -> int:
        if number == len(slots) or not left:
            return 0
        takes = taken_by(slots[number], workers) & left
        return max([best(number + 1, left), *(1 + best(number + 1, left - {name}) for name in takes)])

    return best(0, frozenset(workers))


def after(claims: list[Claim], found: Allocation) -> list[Claim]:
    """The jobs once they have what they are to have."""
    return [
        dataclasses.replace(claim, held=names, is_running=True, kinds=_begun_with(claim, names))
        if (names := found.get(claim.job_id)) is not None
        else claim
        for claim in claims
    ]


def _begun_with(claim: Claim, names: tuple[str, ...]) -> tuple[frozenset[str], ...] | None:
    return claim.kinds and tuple(kind for kind in claim.kinds if not names or kind >= {*names})


@given(situations())
def test_a_worker_serves_one_job_and_only_where_it_is_connected(situation: tuple[list[Claim], list[str]]) -> None:
    claims, workers = situation
    given_away = [name for names in allocate(claims, workers).values() for name in names]
    assert len(given_away) == len(set(given_away))
    assert set(given_away) <= set(workers)


@given(situations())
def test_every_running_job_has_its_minimum_where_there_are_so_many_and_the_first_in_line_where_not(
    situation: tuple[list[Claim], list[str]],
) -> None:
    claims, workers = situation
    found = allocate(claims, workers)
    left = len(workers)
    for claim in sorted((claim for claim in claims if claim.is_running), key=lambda claim: -claim.priority):
        assert len(found[claim.job_id]) >= min(claim.min_workers, left)
        left -= min(claim.min_workers, left)


@given(situations())
def test_no_job_has_more_than_its_maximum_and_none_begins_below_its_minimum(
    situation: tuple[list[Claim], list[str]],
) -> None:
    claims, workers = situation
    found = allocate(claims, workers)
    for claim in claims:
        assert len(found.get(claim.job_id, ())) <= claim.max_workers
        if claim.job_id in found and not claim.is_running:
            assert len(found[claim.job_id]) >= claim.min_workers


@given(situations())
def test_behind_a_job_that_could_ever_begin_nobody_begins(situation: tuple[list[Claim], list[str]]) -> None:
    claims, workers = situation
    found = allocate(claims, workers)
    begins = [claim.job_id in found for claim in in_line(claims) if claim.min_workers <= len(workers)]
    assert begins == sorted(begins, reverse=True)


@given(situations())
def test_the_first_in_line_begins_where_the_running_jobs_can_spare_its_minimum(
    situation: tuple[list[Claim], list[str]],
) -> None:
    claims, workers = situation
    needed = sum(claim.min_workers for claim in claims if claim.is_running)
    first = next((claim for claim in in_line(claims) if claim.min_workers <= len(workers)), None)
    if first is not None and needed + first.min_workers <= len(workers):
        assert first.job_id in allocate(claims, workers)


@given(situations())
def test_no_worker_is_idle_that_a_running_job_could_use(situation: tuple[list[Claim], list[str]]) -> None:
    claims, workers = situation
    found = allocate(claims, workers)
    is_idle = len(workers) > sum(len(names) for names in found.values())
    if is_idle:
        assert all(len(names) == claim.max_workers for claim in claims for names in [found.get(claim.job_id)] if names)


@given(situations())
def test_only_a_minimum_takes_a_worker_away_and_no_more_of_them_than_it_lacks(
    situation: tuple[list[Claim], list[str]],
) -> None:
    claims, workers = situation
    found = allocate(claims, workers)
    stayed = {claim.job_id: [name for name in claim.held if name in workers] for claim in claims}
    taken = sum(len(set(names) - set(found.get(job_id, ()))) for job_id, names in stayed.items())
    free = len(workers) - sum(len(names) for names in stayed.values())
    wanted = sum(
        max(0, min(claim.min_workers, len(found[claim.job_id])) - len(stayed[claim.job_id]))
        for claim in claims
        if claim.job_id in found
    )
    assert taken == max(0, wanted - free)
    for claim in claims:
        names = found.get(claim.job_id, ())
        kept = [name for name in stayed[claim.job_id] if name in names]
        assert list(names[: len(kept)]) == kept


@given(situations())
def test_what_was_given_stays_as_it_is(situation: tuple[list[Claim], list[str]]) -> None:
    claims, workers = situation
    found = allocate(claims, workers)
    assert allocate(after(claims, found), workers) == found


@given(mixed_situations())
def test_a_job_never_gets_a_worker_that_it_refuses_nor_begins_with_two_kinds(
    situation: tuple[list[Claim], list[str]],
) -> None:
    claims, workers = situation
    found = allocate(claims, workers)
    given_away = [name for names in found.values() for name in names]
    assert len(given_away) == len(set(given_away))
    for claim in claims:
        names = {*found.get(claim.job_id, ())}
        assert names <= {*workers}
        assert len(names) <= claim.max_workers
        assert claim.kinds is None or not names or any(names <= kind for kind in claim.kinds)
        if claim.job_id in found and not claim.is_running:
            assert len(names) >= claim.min_workers


@settings(max_examples=50)
@given(mixed_situations())
def test_the_minimums_of_running_jobs_are_met_as_far_as_any_allocation_could_and_in_line(
    situation: tuple[list[Claim], list[str]],
) -> None:
    claims, workers = situation
    # Of two kinds either may do, and which one it is has a say in what is left for others.
    claims = [dataclasses.replace(claim, kinds=claim.kinds and claim.kinds[:1]) for claim in claims]
    running = sorted((claim for claim in claims if claim.is_running), key=lambda claim: -claim.priority)
    found = allocate(claims, workers)
    has = [min(len(found[claim.job_id]), claim.min_workers) for claim in running]
    for count in range(len(running) + 1):
        assert sum(has[:count]) == most_that_can_be_met(running[:count], workers)


@given(mixed_situations())
def test_no_worker_is_idle_that_a_job_could_use_which_takes_its_kind(situation: tuple[list[Claim], list[str]]) -> None:
    claims, workers = situation
    found = allocate(claims, workers)
    idle = {*workers} - {name for names in found.values() for name in names}
    for claim in after(claims, found):
        if claim.job_id in found:
            assert len(claim.held) == claim.max_workers or not idle & taken_by(claim, workers)


@given(mixed_situations())
def test_of_two_kinds_too_what_was_given_stays_as_it_is(situation: tuple[list[Claim], list[str]]) -> None:
    claims, workers = situation
    found = allocate(claims, workers)
    assert allocate(after(claims, found), workers) == found


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=12), st.integers(4, 6))
def test_jobs_of_one_priority_begin_in_the_order_in_which_they_came(
    jobs: list[tuple[int, int]], worker_count: int
) -> None:
    """Each job (its minimum, its length) comes at a time of its own; all begin, and nobody overtakes."""
    workers = WORKERS[:worker_count]
    claims: list[Claim] = []
    left: dict[str, int] = {}
    begun: list[str] = []
    for time in range(200):
        if time < len(jobs):
            least, length = jobs[time]
            claims.append(Claim(f"job-{time}", least, 8))
            left[f"job-{time}"] = length
        found = allocate(claims, workers)
        begun += [claim.job_id for claim in claims if claim.job_id in found and not claim.is_running]
        claims = after(claims, found)
        for job_id in found:
            left[job_id] -= 1
        claims = [claim for claim in claims if left[claim.job_id] > 0]
    assert begun == [f"job-{number}" for number in range(len(jobs))]


def test_a_job_alone_has_all_workers_up_to_its_maximum() -> None:
    assert allocate([Claim("a", 1, 2)], ["x", "y", "z"]) == {"a": ("x", "y")}


def test_extras_go_back_when_another_needs_its_minimum_and_the_last_that_came_goes_first() -> None:
    found = allocate([Claim("a", 1, 8, held=("x", "y", "z"), is_running=True), Claim("b", 1, 8)], ["x", "y", "z"])
    assert found == {"a": ("x", "y"), "b": ("z",)}


def test_the_lowest_priority_gives_first_and_the_highest_gets_first() -> None:
    low = Claim("low", 1, 8, -1, held=("v", "w"), is_running=True)
    high = Claim("high", 1, 8, 1, held=("x", "y"), is_running=True)
    assert allocate([low, high, Claim("new", 1, 8)], ["v", "w", "x", "y"]) == {
        "low": ("v",),
        "high": ("x", "y"),
        "new": ("w",),
    }
    assert allocate([low, high], ["v", "w", "x", "y", "z"])["high"] == ("x", "y", "z")


def test_a_large_job_is_not_starved_by_small_ones_behind_it() -> None:
    running = Claim("a", 2, 2, held=("x", "y"), is_running=True)
    found = allocate([running, Claim("large", 3, 8), Claim("small", 1, 1)], ["x", "y", "z"])
    assert found == {"a": ("x", "y")}


def test_a_job_that_asks_for_more_workers_than_there_are_holds_up_nobody() -> None:
    found = allocate([Claim("huge", 5, 8), Claim("small", 1, 1)], ["x", "y", "z"])
    assert found == {"small": ("x",)}


def test_a_higher_priority_begins_before_those_that_came_earlier() -> None:
    found = allocate([Claim("first", 1, 8), Claim("urgent", 2, 2, 5)], ["x", "y"])
    assert found == {"urgent": ("x", "y")}


def test_where_workers_are_lost_the_minimums_of_the_first_in_line_are_met() -> None:
    first = Claim("first", 2, 8, held=("w", "x"), is_running=True)
    second = Claim("second", 2, 8, held=("y", "z"), is_running=True)
    assert allocate([first, second], ["x", "y", "z"]) == {"first": ("x", "z"), "second": ("y",)}
    assert allocate([first, second], ["y"]) == {"first": ("y",), "second": ()}


A, B = frozenset("abc"), frozenset("xy")
ALL = (*"abc", *"xy")


def test_a_worker_that_one_job_refuses_goes_to_another_that_takes_it() -> None:
    first = Claim("first", 1, 8, held=("a", "b", "c"), is_running=True, kinds=(A,))
    assert allocate([first, Claim("second", 1, 8)], ALL) == {"first": ("a", "b", "c"), "second": ("x", "y")}


def test_a_worker_that_its_job_turns_out_to_refuse_is_given_back() -> None:
    first = Claim("first", 2, 8, held=("x", "a"), is_running=True, kinds=(A,))
    assert allocate([first, Claim("second", 1, 8, kinds=(B,))], ["a", "x"]) == {"first": ("a",), "second": ("x",)}


def test_workers_that_a_job_refuses_do_not_make_up_its_minimum_nor_does_it_hold_up_others_for_them() -> None:
    mixed = Claim("mixed", 4, 8, kinds=(A, B))
    assert allocate([mixed, Claim("small", 1, 8)], ALL) == {"small": ALL}
    assert allocate([dataclasses.replace(mixed, min_workers=3), Claim("small", 1, 8)], ALL) == {
        "mixed": ("a", "b", "c"),
        "small": ("x", "y"),
    }


def test_a_job_begins_with_the_kind_of_which_the_most_are_free() -> None:
    first = Claim("first", 1, 8, held=("a", "b", "c"), is_running=True)
    assert allocate([first, Claim("second", 1, 8, kinds=(A, B))], ALL)["second"] == ("x", "y")


def test_a_job_gives_up_a_worker_for_one_of_another_kind_where_that_lets_a_second_begin() -> None:
    first = Claim("first", 2, 2, held=("a", "b"), is_running=True)
    second = Claim("second", 1, 1, kinds=(frozenset("ab"),))
    assert allocate([first, second], ["a", "b", "x"]) == {"first": ("a", "x"), "second": ("b",)}
