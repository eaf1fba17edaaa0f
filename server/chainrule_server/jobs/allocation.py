"""Which workers each job gets: a function of what the jobs ask for and hold, and of the workers that are connected.

The line is by priority, the higher first, then by the order of creation. Three rules, in this order:

1. Every job that runs has its minimum; where too few workers are left for that, the first in line have it.
2. A queued job begins with its minimum, in line: behind one that can't begin yet nobody else begins, so no job starves
   behind smaller ones. One that asks for more workers than are connected at all is passed by.
3. Workers that nobody needs for a minimum are extras, up to each job's maximum. A job keeps those that it holds until a
   minimum needs them; free ones go to the highest priority, and within it to whoever holds the fewest.

A job may take workers of one kind only: others are never given to it, and for it they aren't there. Where only another
job's worker will do for a minimum, that job gets one in its place that it takes too.

Nobody moves a worker that no minimum needs. It knows no time: when a job gives a worker back is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

# The workers of each job, by its id.
Has = dict[str, list[str]]


@dataclass(frozen=True)
class Claim:
    """What a job asks for, and the workers that it holds, the longest held first.

    kinds: the connected workers that it takes, in sets that may compute together: it begins with workers of one set;
    once it has begun there is one, mostly. None: it takes all."""

    job_id: str
    min_workers: int
    max_workers: int
    priority: int = 0
    held: tuple[str, ...] = ()
    is_running: bool = False
    kinds: tuple[frozenset[str], ...] | None = None

    def most(self, workers: Sequence[str]) -> int:
        """How many of the connected workers it could have together, were it alone."""
        return len(workers) if self.kinds is None else max(map(len, self.kinds), default=0)


def allocate(claims: Sequence[Claim], workers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The workers that each job is to have, those that it keeps first; a queued job that isn't in it doesn't begin.

    claims: in the order of creation; no worker is held by two. workers: those connected, the first that came first."""
    line = sorted(claims, key=lambda claim: -claim.priority)  # stable: the order of creation stays
    takes, minimums = _minimums(line, workers)
    taking_part = [claim for claim in line if claim.job_id in minimums]
    has = {
        claim.job_id: [name for name in claim.held if name in takes[claim.job_id]][
            : max(claim.max_workers, claim.min_workers)
        ]
        for claim in taking_part
    }
    held = {name for names in has.values() for name in names}
    free = [name for name in workers if name not in held]
    for claim in taking_part:
        for _ in range(minimums[claim.job_id] - len(has[claim.job_id])):
            _gain(claim.job_id, has, takes, free, _givers(taking_part, has, minimums))
    for name in free:
        if (taker := _taker(taking_part, has, takes, name)) is not None:
            has[taker].append(name)
    return {job_id: tuple(names) for job_id, names in has.items()}


def in_line(claims: Sequence[Claim]) -> list[Claim]:
    """The queued jobs in the order in which they begin."""
    return sorted((claim for claim in claims if not claim.is_running), key=lambda claim: -claim.priority)


def _minimums(line: Sequence[Claim], workers: Sequence[str]) -> tuple[dict[str, AbstractSet[str]], dict[str, int]]:
    """Whom each job that runs or begins takes, and how many it has at least.

    That is below its minimum only where too few are left."""
    held = {name for claim in line for name in claim.held}
    takes: dict[str, AbstractSet[str]] = {}
    # Some workers that meet the minimums, if not those that the jobs will have.
    has: Has = {}
    free = [*workers]
    for claim in [*(claim for claim in line if claim.is_running), *in_line(line)]:
        kinds = (frozenset(workers),) if claim.kinds is None else claim.kinds or (frozenset(),)
        # Its own kind, else the one of which the most are free: nobody has to give those.
        found = max(
            (_with_minimum(claim, kind, has, takes, free) for kind in kinds),
            key=lambda found: (
                len(found.has[claim.job_id]),
                len(found.kind.intersection(claim.held)),
                len(found.kind - held),
            ),
        )
        if claim.is_running or len(found.has[claim.job_id]) == claim.min_workers:
            has, free, takes[claim.job_id] = found.has, found.free, found.kind
        elif claim.min_workers <= claim.most(workers):
            break  # it holds its place
    return takes, {job_id: len(names) for job_id, names in has.items()}


class _Found(NamedTuple):
    kind: frozenset[str]
    has: Has
    free: list[str]


def _with_minimum(
    claim: Claim, kind: frozenset[str], has: Has, takes: Mapping[str, Container[str]], free: Sequence[str]
) -> _Found:
    """What all have once this job has its minimum too, or as much of it as there is, of this kind."""
    found = _Found(kind, {**{job_id: [*names] for job_id, names in has.items()}, claim.job_id: []}, [*free])
    for _ in range(claim.min_workers):
        if not _gain(claim.job_id, found.has, {**takes, claim.job_id: kind}, found.free):
            break
    return found


def _gain(
    job_id: str, has: Has, takes: Mapping[str, Container[str]], free: list[str], givers: Sequence[str] = ()
) -> bool:
    """Let a job have one more worker; whether there is a way.

    A free one, or one of a giver, the first of them first. Where it takes none of these it gets that of a job that can
    have another in its place, by as few jobs as there can be."""
    # Of each job that is asked for one: which, and who would have it.
    asked: dict[str, tuple[str, str]] = {}
    takers = [job_id]
    while takers:
        for source in (free, *(has[giver] for giver in givers)):
            for taker in takers:
                # The last that came to a job leaves it first.
                order = source if source is free else reversed(source)
                name = next((name for name in order if name in takes[taker]), None)
                if name is not None:
                    source.remove(name)
                    _hand_on(name, taker, has, asked)
                    return True
        found = []
        for taker in takers:
            for other in (each for each in has if each != job_id and each not in asked):
                name = next((name for name in reversed(has[other]) if name in takes[taker]), None)
                if name is not None:
                    asked[other] = (name, taker)
                    found.append(other)
        takers = found
    return False


def _hand_on(name: str, taker: str, has: Has, asked: Mapping[str, tuple[str, str]]) -> None:
    """Give a worker to a job, which gives one to the job that asked for it, and so on."""
    while taker in asked:
        given, asker = asked[taker]
        has[taker].remove(given)
        has[taker].append(name)
        name, taker = given, asker
    has[taker].append(name)


def _givers(line: Sequence[Claim], has: Has, minimums: Mapping[str, int]) -> list[str]:
    """Who can give up a worker, those with more than their minimum: the lowest priority first, then the most extras."""
    extras = [
        (-claim.priority, len(has[claim.job_id]) - minimums[claim.job_id], number) for number, claim in enumerate(line)
    ]
    return [line[number].job_id for _, count, number in sorted(extras, reverse=True) if count > 0]


def _taker(line: Sequence[Claim], has: Has, takes: Mapping[str, Container[str]], worker: str) -> str | None:
    """Who gets a free worker: of those that take it, below their maximum, the highest priority, then the fewest."""
    below = [
        (-claim.priority, len(has[claim.job_id]), number)
        for number, claim in enumerate(line)
        if len(has[claim.job_id]) < claim.max_workers and worker in takes[claim.job_id]
    ]
    return line[min(below)[2]].job_id if below else None
