"""How the event loop stores things: one thread writes, and all that has gathered meanwhile goes into its next commit.

What is only appended (events, metrics) is written soon; who acknowledges something waits for `written`. An event is
told to nobody before it is on the disk, so its number can never come to mean another one. A disk without room keeps
what is appended in memory, and is tried again; no training waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from chainrule.process.logs import log_event
from chainrule.v1 import job_pb2
from chainrule_server.storage.store import JobRecord, MetricRow, NamedEvent, Store, StoreError

log = logging.getLogger(__name__)
# Metrics of short epochs come by the hundred a second; nobody waits for them.
METRICS_DELAY_S = 0.5
RETRY_S = 1.0
CLOSE_TIMEOUT_S = 5.0
# While the disk has no room, no more than so many rows of a job are kept for later.
MOST_ROWS = 100_000

Result = TypeVar("Result")


@dataclass
class _Batch:
    """What one commit writes."""

    records: dict[str, JobRecord] = field(default_factory=dict)
    events: dict[str, list[NamedEvent]] = field(default_factory=lambda: defaultdict(list))
    metrics: dict[str, list[MetricRow]] = field(default_factory=lambda: defaultdict(list))
    # Called once all of it is on the disk.
    then: list[Callable[[], None]] = field(default_factory=list)

    def is_empty(self) -> bool:
        return not (self.records or self.events or self.metrics or self.then)

    def before(self, later: _Batch) -> _Batch:
        """Both together, as if they had been noted one after the other."""
        events, metrics = dict(self.events), dict(self.metrics)
        for job_id, new in later.events.items():
            events[job_id] = [*events.get(job_id, ()), *new]
        for job_id, rows in later.metrics.items():
            metrics[job_id] = [*metrics.get(job_id, ()), *rows][-MOST_ROWS:]
        records = self.records | later.records
        return _Batch(records, defaultdict(list, events), defaultdict(list, metrics), self.then + later.then)


class Journal:
    """The store as the event loop uses it. told: called with a job's id and the number of its last stored event."""

    def __init__(self, store: Store) -> None:
        self.event_stored: Callable[[str, int], None] | None = None
        # Empty while the store can be written.
        self.trouble = ""
        self._is_troubled = asyncio.Event()
        self.store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._noted = _Batch()
        self._writing: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()

    async def run(self, call: Callable[[], Result]) -> Result:
        """What `call` returns or raises, in the store's thread, after all that was written before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def add(self, record: JobRecord, event: job_pb2.JobEvent) -> int:
        """Store a new job; its number among all. Raises StoreError, StoreFull, with nothing stored."""
        return await self.run(lambda: self.store.add(record, [NamedEvent(stamped(event))]))

    async def events(self, job_id: str, *, after: int, most: int = -1) -> list[job_pb2.JobEvent]:
        """A job's stored events with a number above `after`; at most so many, where `most` isn't negative."""
        return await self.run(lambda: self.store.events(job_id, after=after, most=most))

    async def metrics(self, job_id: str, *, after: int) -> list[MetricRow]:
        """What is stored of a job's steps after this one."""
        return await self.run(lambda: self.store.metrics(job_id, after=after))

    def append(self, record: JobRecord, event: job_pb2.JobEvent, *, then: Callable[[], None]) -> None:
        """Write a job as it is now, with the event that made it so; `then` is called once both are on the disk."""
        self._noted.records[record.job_id] = record
        self._noted.then.append(then)
        self.append_event(record.job_id, event)

    def append_event(self, job_id: str, event: job_pb2.JobEvent, *, name: str | None = None) -> None:
        """Write an event, soon; where it has a name and the job has one of that name already, it is left out."""
        self._noted.events[job_id].append(NamedEvent(stamped(event), name))
        self._write_soon(0.0)

    def append_metrics(self, job_id: str, rows: Sequence[MetricRow]) -> None:
        """Write what was measured, some time."""
        self._noted.metrics[job_id] += rows
        self._write_soon(METRICS_DELAY_S)

    async def written(self) -> None:
        """Wait until all that was noted before is on the disk, for as long as that takes."""
        done = asyncio.get_running_loop().create_future()
        self._noted.then.append(lambda: None if done.done() else done.set_result(None))
        self._write_soon(0.0)
        await done

    async def written_at_once(self) -> None:
        """The same for who can do without: raises StoreError where the store can't be written now."""
        written = asyncio.ensure_future(self.written())
        trouble = asyncio.ensure_future(self._is_troubled.wait())
        try:
            await asyncio.wait((written, trouble), return_when=asyncio.FIRST_COMPLETED)
            if not written.done():
                raise StoreError(self.trouble)
        finally:
            written.cancel()
            trouble.cancel()

    async def close(self) -> None:
        """Write what is noted, if that can be done, and end the thread. The store is still to be closed."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.written()
        except TimeoutError:
            extra = log_event("store_failing")
            log.error("some events and metrics could not be stored: %s", self.trouble, extra=extra)
        if self._writing is not None:
            self._writing.cancel()
        self._thread.shutdown(wait=True)

    def _write_soon(self, delay_s: float) -> None:
        if not delay_s:
            self._soon.set()
        if self._writing is None and not self._noted.is_empty():
            self._writing = asyncio.get_running_loop().create_task(self._write(delay_s))

    async def _write(self, delay_s: float) -> None:
        try:
            while not self._noted.is_empty():
                if delay_s and not self._soon.is_set():
                    try:
                        async with asyncio.timeout(delay_s):
                            await self._soon.wait()
                    except TimeoutError:
                        pass
                self._soon.clear()
                batch, self._noted = self._noted, _Batch()
                try:
                    last = await self._commit(batch)
                except Exception as error:
                    # Whatever it is, what was noted is kept, and who waits for it is not told that it is stored.
                    if not self.trouble:
                        what = None if isinstance(error, StoreError) else error
                        extra = log_event("store_failing")
                        message = "jobs can't be stored; it is tried again and again: %s"
                        log.error(message, error, exc_info=what, extra=extra)
                    self.trouble = str(error)
                    self._is_troubled.set()
                    self._noted = batch.before(self._noted)
                    await asyncio.sleep(RETRY_S)
                    continue
                self.trouble = ""
                self._is_troubled.clear()
                for job_id, number in last.items():
                    if self.event_stored is not None:
                        self.event_stored(job_id, number)
                for call in batch.then:
                    call()
                delay_s = METRICS_DELAY_S
        finally:
            self._writing = None

    async def _commit(self, batch: _Batch) -> dict[str, int]:
        return await self.run(
            lambda: self.store.write(tuple(batch.records.values()), events=batch.events, metrics=batch.metrics)
        )


def stamped(event: job_pb2.JobEvent) -> job_pb2.JobEvent:
    """The event itself, with the time now where it has none."""
    if not event.HasField("time"):
        event.time.FromNanoseconds(time.time_ns())
    return event
