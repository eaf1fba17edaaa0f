"""What happens to a job, for one who watches it: its stored events from a number on, and when its state is to be told.

Whoever watches holds nothing here: each update is read from the journal when the watcher is ready for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from chainrule.v1 import job_pb2
from chainrule_server.errors import NotFound, OutOfRange
from chainrule_server.jobs.job import Job
from chainrule_server.storage.journal import Journal

# A job that trains is told so often, besides its changes.
WATCH_INTERVAL_S = 0.2
# Of one update: a message of gRPC has 4 MiB at most, for whoever hasn't said otherwise.
PIECE_EVENTS = 1000
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class JobUpdate:
    """events: those since the last update. last_event: the number of the last one that was told."""

    events: list[job_pb2.JobEvent]
    last_event: int


async def updates(job: Job, journal: Journal, *, after_event: int | None) -> AsyncGenerator[JobUpdate, None]:
    """Updates of a job until it has ended and all its events were told, the first at once; with each tell its state.

    after_event: the last event that is known already; None: only those to come.
    Raises OutOfRange where the job has no event of that number, NotFound once it is deleted."""
    last = job.last_event if after_event is None else after_event
    if last > job.last_event:
        # What is on the disk already may not be told to the job yet; after this it is.
        await journal.run(lambda: None)
    if last > job.last_event:
        raise OutOfRange(
            f"the last event of job {job.job_id} is number {job.last_event}, so none follows {last}; was the "
            "server restored from a backup? Watch the job from event 0"
        )
    while True:
        # Before the state is told: it may change while that is on its way.
        changed, is_final = job.changed, job.is_final
        events: list[job_pb2.JobEvent] = []
        if job.last_event > last:
            events = _piece(await journal.events(job.job_id, after=last, most=PIECE_EVENTS))
            if not events:
                raise NotFound(f"job {job.job_id} was deleted")
            last = events[-1].number
        yield JobUpdate(events, last)
        if is_final and job.last_event <= last:
            return
        if job.last_event > last:
            continue
        try:
            await asyncio.wait_for(changed.wait(), WATCH_INTERVAL_S)
        except TimeoutError:
            continue


def _piece(events: list[job_pb2.JobEvent]) -> list[job_pb2.JobEvent]:
    """The first of the events that one message has room for, at least one where there is one."""
    room = PIECE_BYTES
    for index, event in enumerate(events):
        room -= event.ByteSize()
        if room < 0 and index:
            return events[:index]
    return events
