"""A job's phases: the table of what may follow what is held to, and whoever waits for a phase's end is woken by it."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from chainrule_server.jobs import job_life
from chainrule_server.jobs.job_life import FOLLOWING, JobLife, NoSuchTransition, Phase

TRANSITIONS = list(itertools.product(Phase, Phase))


@pytest.mark.parametrize(
    ("before", "after"), [each for each in TRANSITIONS if each[1] in FOLLOWING[each[0]]], ids=lambda each: each.name
)
def test_a_transition_of_the_table_is_made(before: Phase, after: Phase) -> None:
    life = JobLife("7f3a", before)
    life.become(after)
    assert life.phase is after


@pytest.mark.parametrize(
    ("before", "after"), [each for each in TRANSITIONS if each[1] not in FOLLOWING[each[0]]], ids=lambda each: each.name
)
def test_every_other_transition_is_refused_and_changes_nothing(before: Phase, after: Phase) -> None:
    async def refused() -> None:
        begun = []

        async def work() -> None:
            begun.append(after)

        life = JobLife("7f3a", before)
        waiter = asyncio.create_task(life.left(before))
        await asyncio.sleep(0)
        with pytest.raises(NoSuchTransition, match=f"job 7f3a is {before.name}, after which .* not {after.name}"):
            life.become(after, work())
        await asyncio.sleep(0)
        assert (life.phase, begun, waiter.done()) == (before, [], False)
        waiter.cancel()

    asyncio.run(refused())


def test_the_table_says_of_every_phase_what_follows_and_each_of_them_comes_to_an_end() -> None:
    assert FOLLOWING.keys() == {*Phase}
    for phase in Phase:
        seen, found = set(), {phase}
        while found:
            seen |= found
            found = {after for before in found for after in FOLLOWING[before]} - seen
        assert Phase.ENDED in seen
    assert not FOLLOWING[Phase.ENDED]


def test_the_picture_names_every_phase() -> None:
    assert job_life.__doc__ is not None
    picture = job_life.__doc__.split("A phase is")[0]
    assert all(phase.name in picture for phase in Phase)


def test_who_waits_for_a_phase_s_end_is_woken_by_it_even_when_the_job_comes_back_to_it() -> None:
    async def woken() -> None:
        life = JobLife("7f3a")
        await asyncio.wait_for(life.left(Phase.PAUSED), 60)  # it isn't in that
        waiter = asyncio.create_task(life.left(Phase.QUEUED))
        await asyncio.sleep(0)
        for phase in (Phase.PAUSING, Phase.PAUSED, Phase.QUEUED):
            life.become(phase)
        await asyncio.wait_for(waiter, 60)

    asyncio.run(woken())


def test_the_work_of_a_phase_is_done_in_it() -> None:
    async def done() -> list[Phase]:
        life, found = JobLife("7f3a"), []

        async def read() -> None:
            found.append(life.phase)
            life.become(Phase.TRAINING)

        life.become(Phase.READING, read())
        await asyncio.wait_for(life.left(Phase.READING), 60)
        return [*found, life.phase]

    assert asyncio.run(done()) == [Phase.READING, Phase.TRAINING]
