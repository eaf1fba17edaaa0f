"""What every store promises, in memory and in a file; and what files add to that."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.rpc import status_pb2

from chainrule.v1 import job_pb2
from chainrule_server.storage import store_schema
from chainrule_server.storage.home import Home, HomeError
from chainrule_server.storage.store import IN_MEMORY, JobRecord, MetricRow, NamedEvent, Store, StoreError, StoreFull

QUEUED, RUNNING = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING
SUCCEEDED, FAILED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED


def record(job_id: str, state: job_pb2.JobState = QUEUED, **more: object) -> JobRecord:
    spec = job_pb2.JobSpec(name=f"name-of-{job_id}")
    return JobRecord(job_id, spec, state, created_at_s=1.5, **more)  # type: ignore[arg-type]


def became(state: job_pb2.JobState) -> NamedEvent:
    return NamedEvent(job_pb2.JobEvent(state_changed=job_pb2.StateChanged(state=state)))


def checkpoint(step: int) -> NamedEvent:
    event = job_pb2.JobEvent(checkpoint_written=job_pb2.CheckpointWritten(step=step))
    return NamedEvent(event, f"checkpoint of step {step}")


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = Store(IN_MEMORY if request.param == "memory" else tmp_path / "chainrule.db")
    yield opened
    opened.close()


def test_a_job_comes_back_as_it_was_stored(store: Store) -> None:
    stored = record("a", request_id="one", request_sha256="2f", data_sha256="3c")
    store.add(stored)
    assert store.jobs() == [stored]
    ended = record(
        "a",
        FAILED,
        request_id="one",
        request_sha256="2f",
        data_sha256="3c",
        started_at_s=2.25,
        ended_at_s=3.125,
        progress=job_pb2.Progress(step=7, total_steps=9, loss=0.1),
        error=status_pb2.Status(code=9, message="why"),
        result=job_pb2.Result(loss=0.25),
    )
    store.write([ended])
    assert store.jobs() == [ended]


def test_jobs_come_back_in_the_order_of_their_creation(store: Store) -> None:
    for job_id in ("c", "a", "b"):
        store.add(record(job_id))
    store.write([record("c", SUCCEEDED)])
    assert [job.job_id for job in store.jobs()] == ["c", "a", "b"]


def test_events_are_numbered_job_by_job_from_1_without_gaps(store: Store) -> None:
    store.add(record("a"), [became(QUEUED)])
    store.add(record("b"), [became(QUEUED)])
    last = store.write(events={"a": [became(RUNNING), checkpoint(4)], "b": [became(RUNNING)]})
    assert last == {"a": 3, "b": 2}
    assert [event.number for event in store.events("a")] == [1, 2, 3]
    assert [event.state_changed.state for event in store.events("b")] == [QUEUED, RUNNING]
    assert [event.checkpoint_written.step for event in store.events("a", after=2)] == [4]
    assert store.last_events() == {"a": 3, "b": 2}


def test_an_event_of_a_name_is_stored_once_and_leaves_no_gap(store: Store) -> None:
    store.add(record("a"), [became(QUEUED)])
    store.write(events={"a": [checkpoint(4)]})
    assert store.write(events={"a": [checkpoint(4), checkpoint(8), checkpoint(4)]}) == {"a": 3}
    assert [event.number for event in store.events("a")] == [1, 2, 3]
    assert [event.checkpoint_written.step for event in store.events("a", after=1)] == [4, 8]


def test_metrics_of_steps_computed_again_stay_as_they_were(store: Store) -> None:
    store.add(record("a"))
    first = [MetricRow(3, 0.5), MetricRow(6, 0.25, 1, 0.3, {"validation_r2": 0.1})]
    store.write(metrics={"a": first})
    store.write(metrics={"a": [MetricRow(6, 9.0), MetricRow(9, 0.2, 3, float("inf"))]})
    assert store.metrics("a") == [*first, MetricRow(9, 0.2, 3, float("inf"))]
    assert store.metrics("a", after=3) == [first[1], MetricRow(9, 0.2, 3, float("inf"))]
    assert store.metrics("b") == []


def test_a_write_that_fails_leaves_nothing_of_it(store: Store) -> None:
    store.add(record("a"), [became(QUEUED)])
    with pytest.raises(StoreError):
        # The events of a job that isn't there can't be stored.
        store.write([record("a", RUNNING)], {"a": [became(RUNNING)], "nobody": [became(RUNNING)]})
    assert [job.state for job in store.jobs()] == [QUEUED]
    assert len(store.events("a")) == 1
    store.write([record("a", RUNNING)], {"a": [became(RUNNING)]})
    assert len(store.events("a")) == 2


def test_a_request_id_makes_one_job_only(store: Store) -> None:
    store.add(record("a", request_id="one"))
    store.add(record("b"))
    store.add(record("c"))
    with pytest.raises(StoreError):
        store.add(record("d", request_id="one"))
    assert [job.job_id for job in store.jobs()] == ["a", "b", "c"]


def test_a_full_disk_is_told_and_what_was_there_stays(store: Store) -> None:
    store.add(record("a"), [became(QUEUED)])
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = job_pb2.JobSpec(name="b")
    large.model.loss = "x" * 100_000
    with pytest.raises(StoreFull, match="there is no room"):
        store.add(JobRecord("b", large, QUEUED, 0.0), [became(QUEUED)])
    assert [job.job_id for job in store.jobs()] == ["a"]
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.add(JobRecord("b", large, QUEUED, 0.0), [became(QUEUED)])
    assert [job.job_id for job in store.jobs()] == ["a", "b"]


def test_what_was_stored_is_there_after_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "chainrule.db"
    first = Store(path)
    first.add(record("a"), [became(QUEUED)])
    # Not closed: a server that is killed doesn't either.
    second = Store(path)
    assert (second.jobs(), second.last_events()) == ([record("a")], {"a": 1})
    first.close()
    second.close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "chainrule.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {store_schema.VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    message = f"has schema {store_schema.VERSION + 1}, and this chainrule knows {store_schema.VERSION} at most"
    with pytest.raises(StoreError, match=message):
        Store(path)
    assert path.read_bytes() == before


def test_an_older_schema_is_migrated_forward_with_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chainrule.db"
    old = Store(path)
    old.add(record("a"), [became(QUEUED)])
    old.close()
    steps = (*store_schema.MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN label TEXT NOT NULL DEFAULT 'none'",))
    monkeypatch.setattr(store_schema, "MIGRATIONS", steps)
    monkeypatch.setattr(store_schema, "VERSION", len(steps))
    new = Store(path)
    assert new._connection.execute("PRAGMA user_version").fetchone() == (len(steps),)
    assert new._connection.execute("SELECT job_id, label FROM jobs").fetchall() == [("a", "none")]
    assert new.jobs() == [record("a")]
    new.close()


@pytest.mark.parametrize("version", range(1, store_schema.VERSION))
def test_a_database_of_every_earlier_version_is_read_with_all_that_is_in_it(tmp_path: Path, version: int) -> None:
    path = tmp_path / "chainrule.db"
    stored = record("a", SUCCEEDED, request_id="one", ended_at_s=3.0, result=job_pb2.Result(loss=0.25))
    event = became(QUEUED).event
    event.number = 1
    with sqlite3.connect(path) as connection:
        for statements in store_schema.MIGRATIONS[:version]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        # As version 1 wrote it; what later versions add is empty.
        connection.execute(
            "INSERT INTO jobs (job_id, request_id, request_sha256, spec, data_sha256, state, created_at_s, ended_at_s, "
            "progress, result) VALUES ('a', 'one', '', ?, '', ?, 1.5, 3.0, x'', ?)",
            (stored.spec.SerializeToString(), SUCCEEDED, job_pb2.Result(loss=0.25).SerializeToString()),
        )
        connection.execute(
            "INSERT INTO events (job_id, number, kind, name, event) VALUES ('a', 1, 'state_changed', NULL, ?)",
            (event.SerializeToString(),),
        )
        connection.execute(
            'INSERT INTO metrics (job_id, step, epoch, loss, validation_loss, "values") '
            "VALUES ('a', 6, 1, 0.25, 0.5, '{\"r2\": 0.125}')"
        )
    connection.close()
    store = Store(path)
    assert store.jobs() == [stored]
    assert store.events("a") == [event]
    assert store.metrics("a") == [MetricRow(6, 0.25, 1, 0.5, {"r2": 0.125})]
    store.write(metrics={"a": [MetricRow(7, 0.125, time_s=2.5)]})
    assert store.metrics("a", after=6) == [MetricRow(7, 0.125, time_s=2.5)]
    store.close()
    assert Store(path).jobs() == [stored]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chainrule.db"
    Store(path).close()
    steps = (*store_schema.MIGRATIONS, ("CREATE TABLE labels (label TEXT) STRICT", "CREATE TABLE jobs (again TEXT)"))
    monkeypatch.setattr(store_schema, "MIGRATIONS", steps)
    monkeypatch.setattr(store_schema, "VERSION", len(steps))
    with pytest.raises(StoreError):
        Store(path)
    monkeypatch.undo()
    store = Store(path)
    names = store._connection.execute("SELECT name FROM sqlite_master WHERE name = 'labels'").fetchall()
    assert names == []
    store.close()


@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.write_bytes(b"no database" * 1000), lambda path: path.mkdir()],
    ids=["another file", "a folder"],
)
def test_a_file_that_is_no_database_is_said(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    path = tmp_path / "chainrule.db"
    spoil(path)
    with pytest.raises(StoreError, match=r"chainrule\.db can't be used: .*; look after the disk"):
        Store(path)


def test_a_home_belongs_to_one_server_at_a_time(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with pytest.raises(HomeError, match=r"another server \(process \d+\) uses the folder"):
        Home(tmp_path / "home")
    home.close()
    Home(tmp_path / "home").close()


def test_a_home_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="can't be used: Not a directory; choose another --home"):
        Home(tmp_path / "file" / "home")


def test_what_a_killed_server_had_not_finished_writing_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    Home(tmp_path).close()
    half = tmp_path / "models" / ".a.safetensors.17.tmp"
    half.write_bytes(b"half")
    whole = tmp_path / "models" / "a.safetensors"
    whole.write_bytes(b"whole")
    Home(tmp_path).close()
    assert (half.exists(), whole.exists()) == (False, True)
