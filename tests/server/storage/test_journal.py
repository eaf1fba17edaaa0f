"""How the event loop stores things: what is told is stored, and a full disk loses nothing and stops nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chainrule.v1 import job_pb2
from chainrule_server.storage import journal as journal_module
from chainrule_server.storage.journal import Journal
from chainrule_server.storage.store import IN_MEMORY, JobRecord, MetricRow, Store, StoreError, StoreFull

QUEUED, RUNNING = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING


def record(state: job_pb2.JobState = QUEUED) -> JobRecord:
    return JobRecord("a", job_pb2.JobSpec(name="a"), state, 0.0)


def became(state: job_pb2.JobState) -> job_pb2.JobEvent:
    return job_pb2.JobEvent(state_changed=job_pb2.StateChanged(state=state))


def checkpoint(step: int) -> job_pb2.JobEvent:
    return job_pb2.JobEvent(checkpoint_written=job_pb2.CheckpointWritten(step=step))


def with_journal(test: Callable[[Journal], Awaitable[None]]) -> Store:
    """Run a test with a journal that has one job; its store, still open."""
    store = Store(IN_MEMORY)

    async def run() -> None:
        journal = Journal(store)
        await journal.add(record(), became(QUEUED))
        try:
            await test(journal)
        finally:
            await journal.close()

    asyncio.run(run())
    return store


def test_what_is_acknowledged_after_written_is_in_the_store() -> None:
    async def test(journal: Journal) -> None:
        journal.append_event("a", checkpoint(1))
        journal.append_metrics("a", [MetricRow(1, 0.5)])
        await journal.written()
        assert [event.checkpoint_written.step for event in journal.store.events("a", after=1)] == [1]
        assert journal.store.metrics("a") == [MetricRow(1, 0.5)]

    with_journal(test).close()


def test_a_state_is_seen_once_it_is_stored_and_not_before() -> None:
    async def test(journal: Journal) -> None:
        seen: list[Any] = []
        journal.event_stored = lambda job_id, number: seen.append((job_id, number))
        journal.append(record(RUNNING), became(RUNNING), then=lambda: seen.append(journal.store.jobs()[0].state))
        assert seen == []
        await journal.written()
        assert seen == [("a", 2), RUNNING]

    with_journal(test).close()


def test_closing_stores_what_is_noted() -> None:
    async def test(journal: Journal) -> None:
        journal.append_metrics("a", [MetricRow(1, 0.5)])

    store = with_journal(test)
    assert store.metrics("a") == [MetricRow(1, 0.5)]
    store.close()


def test_a_disk_without_room_loses_nothing_and_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.01)

    async def test(journal: Journal) -> None:
        write, failures = journal.store.write, iter([True, True, True])

        def failing(*arguments: Any, **more: Any) -> dict[str, int]:
            if next(failures, False):
                raise StoreFull("there is no room")
            return write(*arguments, **more)

        monkeypatch.setattr(journal.store, "write", failing)
        journal.append_event("a", checkpoint(1))
        journal.append_metrics("a", [MetricRow(1, 0.5)])
        while not journal.trouble:
            await asyncio.sleep(0.001)
        journal.append_event("a", checkpoint(2))
        journal.append_metrics("a", [MetricRow(2, 0.25)])
        async with asyncio.timeout(10):
            await journal.written()
        assert journal.trouble == ""
        assert [event.checkpoint_written.step for event in journal.store.events("a", after=1)] == [1, 2]
        assert journal.store.metrics("a") == [MetricRow(1, 0.5), MetricRow(2, 0.25)]

    with_journal(test).close()


def test_a_job_that_cannot_be_stored_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(journal: Journal) -> None:
        with pytest.raises(StoreError):
            await journal.add(record(), became(QUEUED))
        assert len(journal.store.jobs()) == 1

    with_journal(test).close()
