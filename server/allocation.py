"""Which workers each job gets: a function of what the jobs ask for and hold, and of the workers that are connected.

The line is by priority, the higher first, then by the order of creation. Three rules, in this order:

1. Every job that runs has its minimum; where too few workers are left for that, the first in line have it.
2. A queued job begins with its minimum, in line: behind one that can't begin yet nobody else begins, so no job starves
   behind smaller ones. One that asks for more workers than are connected at all is passed by.
3. Workers that nobody needs for a minimum are extras, up to each job's maximum. A job keeps those that it holds until a
   minimum needs them; free ones go to the highest priority, and within it to whoever holds the fewest.

Nobody moves a worker that no minimum needs. It knows no time: when a job gives a worker back is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What a job asks for, and the workers that it holds, the longest held first."""

    job_id: str
    min_workers: int
    max_workers: int
    priority: int = 0
    held: tuple[str, ...] = ()
    is_running: bool = False


def allocate(claims: Sequence[Claim], workers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The workers that each job is to have, those that it keeps first; a queued job that isn't in it doesn't begin.

    claims: in the order of creation; no worker is held by two. workers: those connected, the first that came first."""
    line = sorted(claims, key=lambda claim: -claim.priority)  # stable: the order of creation stays
    minimums = _minimums(line, len(workers))
    taking_part = [claim for claim in line if claim.job_id in minimums]
    connected = set(workers)
    has = {
        claim.job_id: [name for name in claim.held if name in connected][: max(claim.max_workers, claim.min_workers)]
        for claim in taking_part
    }
    held = {name for names in has.values() for name in names}
    free = [name for name in workers if name not in held]
    missing = sum(max(0, minimums[job_id] - len(names)) for job_id, names in has.items())
    for _ in range(missing - len(free)):
        giver = _giver(taking_part, has, minimums)
        free.append(has[giver].pop())
    for claim in taking_part:
        names = has[claim.job_id]
        while len(names) < minimums[claim.job_id]:
            names.append(free.pop(0))
    while free and (taker := _taker(taking_part, has)) is not None:
        has[taker].append(free.pop(0))
    return {job_id: tuple(names) for job_id, names in has.items()}


def in_line(claims: Sequence[Claim]) -> list[Claim]:
    """The queued jobs in the order in which they begin."""
    return sorted((claim for claim in claims if not claim.is_running), key=lambda claim: -claim.priority)


def _minimums(line: Sequence[Claim], worker_count: int) -> dict[str, int]:
    """How many workers each job that runs or begins has at least; below its minimum only where too few are left."""
    left = worker_count
    found = {}
    for claim in line:
        if claim.is_running:
            found[claim.job_id] = min(claim.min_workers, left)
            left -= found[claim.job_id]
    for claim in in_line(line):
        if claim.min_workers <= left:
            found[claim.job_id] = claim.min_workers
            left -= claim.min_workers
        elif claim.min_workers <= worker_count:
            break  # it holds its place
    return found


def _giver(line: Sequence[Claim], has: dict[str, list[str]], minimums: dict[str, int]) -> str:
    """Who gives up a worker: of those with more than their minimum the lowest priority, then the most extras."""
    extras = [(-claim.priority, len(has[claim.job_id]) - minimums[claim.job_id], number)
              for number, claim in enumerate(line)]  # fmt: skip
    *_, number = max(each for each in extras if each[1] > 0)
    return line[number].job_id


def _taker(line: Sequence[Claim], has: dict[str, list[str]]) -> str | None:
    """Who gets a free worker: of those below their maximum the highest priority, then the fewest workers."""
    below = [
        (-claim.priority, len(has[claim.job_id]), number)
        for number, claim in enumerate(line)
        if len(has[claim.job_id]) < claim.max_workers
    ]
    return line[min(below)[2]].job_id if below else None
