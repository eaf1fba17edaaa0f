"""What a server knows of its jobs, on the disk: an SQLite database in WAL mode, synced at every commit.

When a method returns, what it wrote survives kill -9 and a power cut; when it raises, nothing of it was written.
Everything here blocks: the event loop goes through `chainrule_server.storage.journal`. It knows nothing of training.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from chainrule.v1 import job_pb2
from chainrule_server.storage.store_schema import NewerSchema, check, migrate

# Somebody with a database browser may hold the lock for a moment.
BUSY_TIMEOUT_S = 10.0
IN_MEMORY = ":memory:"


class StoreError(Exception):
    """The database can't be read or written; the message says why and what to do."""


class StoreFull(StoreError):
    """There is no room for what was to be written."""


@dataclass(frozen=True)
class JobRecord:
    """A job as it is stored. spec: complete. request_sha256: of the spec as it was sent. Times are Unix seconds.

    number: in the order of creation, given by the store. end_number: in the order in which jobs ended; 0 before."""

    job_id: str
    spec: job_pb2.JobSpec
    state: job_pb2.JobState
    created_at_s: float
    request_id: str = ""
    request_sha256: str = ""
    data_sha256: str = ""
    started_at_s: float | None = None
    ended_at_s: float | None = None
    progress: job_pb2.Progress = field(default_factory=job_pb2.Progress)
    error: status_pb2.Status | None = None
    result: job_pb2.Result | None = None
    number: int = field(default=0, compare=False)
    end_number: int = 0


@dataclass(frozen=True)
class MetricRow:
    """What was measured at a step. loss: the mean over the step's rows. time_s: when, in Unix seconds; None for what
    was stored before times were. The rest: of an epoch that ended there."""

    step: int
    loss: float
    epoch: int | None = None
    validation_loss: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    time_s: float | None = None


@dataclass(frozen=True)
class NamedEvent:
    """An event, and its name where it may happen once only: one of a name that is there already isn't stored again."""

    event: job_pb2.JobEvent
    name: str | None = None


class Store:
    """The database at `path`, made and migrated where needed; or IN_MEMORY. It may be used from any thread.

    Raises StoreError where it can't be opened or a newer chainrule wrote it."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._translated(error) from error
        try:
            check(self._connection)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            migrate(self._connection)
        except NewerSchema as error:
            self._connection.close()
            raise StoreError(f"{path}: {error}") from None
        except sqlite3.Error as error:
            self._connection.close()
            raise self._translated(error) from error

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def add(self, record: JobRecord, events: Sequence[NamedEvent] = ()) -> int:
        """Store a new job at the queue's end; its number. Raises StoreError, StoreFull."""
        with self._transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO jobs (job_id, request_id, request_sha256, spec, data_sha256, state, created_at_s, "
                "started_at_s, ended_at_s, progress, error, result, end_number) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.job_id,
                    record.request_id or None,
                    record.request_sha256,
                    record.spec.SerializeToString(deterministic=True),
                    record.data_sha256,
                    int(record.state),
                    record.created_at_s,
                    *_changing(record),
                ),
            )
            self._insert_events(connection, {record.job_id: events})
        return int(cursor.lastrowid or 0)

    def delete(self, job_id: str) -> bool:
        """Delete a job with its events and metrics; whether there was one. Raises StoreError."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,)).rowcount > 0

    def write(
        self,
        records: Sequence[JobRecord] = (),
        events: Mapping[str, Sequence[NamedEvent]] | None = None,
        metrics: Mapping[str, Sequence[MetricRow]] | None = None,
    ) -> dict[str, int]:
        """Store changes of jobs, events and metrics by job, all together; each job's last event number comes back.

        The numbers of the events are given here. Metrics of a step that has some already are left out.
        Raises StoreError, StoreFull."""
        with self._transaction() as connection:
            for record in records:
                connection.execute(
                    "UPDATE jobs SET state = ?, started_at_s = ?, ended_at_s = ?, progress = ?, error = ?, result = ?, "
                    "end_number = ? WHERE job_id = ?",
                    (int(record.state), *_changing(record), record.job_id),
                )
            last = self._insert_events(connection, events or {})
            for job_id, rows in (metrics or {}).items():
                connection.executemany(
                    'INSERT OR IGNORE INTO metrics (job_id, step, epoch, loss, validation_loss, "values", time_s) '
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(job_id, *_columns(row)) for row in rows],
                )
        return last

    def jobs(self) -> list[JobRecord]:
        """All jobs in the order of their creation. Raises StoreError, also where one can't be read."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT job_id, request_id, request_sha256, spec, data_sha256, state, created_at_s, started_at_s, "
                "ended_at_s, progress, error, result, number, end_number FROM jobs ORDER BY number"
            ).fetchall()
        try:
            return [_record(row) for row in rows]
        except DecodeError as error:
            raise StoreError(f"{self._path} is damaged: a job in it is no message of ours ({error})") from error

    def events(self, job_id: str, *, after: int = 0, most: int = -1) -> list[job_pb2.JobEvent]:
        """A job's events with a number above `after`, in order; at most so many, where `most` isn't negative."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT event FROM events WHERE job_id = ? AND number > ? ORDER BY number LIMIT ?",
                (job_id, after, most),
            ).fetchall()
        return [job_pb2.JobEvent.FromString(event) for (event,) in rows]

    def last_events(self) -> dict[str, int]:
        """The number of each job's last event."""
        with self._reading() as connection:
            return dict(connection.execute("SELECT job_id, max(number) FROM events GROUP BY job_id").fetchall())

    def metrics(self, job_id: str, *, after: int = 0) -> list[MetricRow]:
        """What was measured of a job after a step, step by step."""
        with self._reading() as connection:
            rows = connection.execute(
                'SELECT step, loss, epoch, validation_loss, "values", time_s FROM metrics '
                "WHERE job_id = ? AND step > ? ORDER BY step",
                (job_id, after),
            ).fetchall()
        return [
            MetricRow(step, loss, epoch, validation_loss, json.loads(values), time_s)
            for step, loss, epoch, validation_loss, values, time_s in rows
        ]

    def _insert_events(
        self, connection: sqlite3.Connection, events: Mapping[str, Sequence[NamedEvent]]
    ) -> dict[str, int]:
        last = {}
        for job_id, new in events.items():
            query = "SELECT coalesce(max(number), 0) FROM events WHERE job_id = ?"
            (number,) = connection.execute(query, (job_id,)).fetchone()
            for named in new:
                message = job_pb2.JobEvent()
                message.CopyFrom(named.event)
                message.number = number + 1
                # Not INSERT OR IGNORE: only a repeated name may be left out.
                cursor = connection.execute(
                    "INSERT INTO events (job_id, number, kind, name, event) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (job_id, name) DO NOTHING",
                    (job_id, number + 1, message.WhichOneof("event"), named.name, message.SerializeToString()),
                )
                number += cursor.rowcount
            last[job_id] = number
        return last

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back after some errors, such as a full disk.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._connection
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> StoreError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return StoreFull(
                f"there is no room for {self._path}: the disk is full; make room, or choose another --home"
            )
        return StoreError(f"{self._path} can't be used: {error}; look after the disk, or choose another --home")


def _changing(record: JobRecord) -> tuple[float | None, float | None, bytes, bytes | None, bytes | None, int]:
    return (
        record.started_at_s,
        record.ended_at_s,
        record.progress.SerializeToString(),
        None if record.error is None else record.error.SerializeToString(),
        None if record.result is None else record.result.SerializeToString(),
        record.end_number,
    )


def _columns(row: MetricRow) -> tuple[int, int | None, float, float | None, str, float | None]:
    return row.step, row.epoch, row.loss, row.validation_loss, json.dumps(dict(row.values)), row.time_s


def _record(row: tuple[Any, ...]) -> JobRecord:
    job_id, request_id, request_sha256, spec, data_sha256, state, created, started, ended = row[:9]
    progress, error, result, number, end_number = row[9:]
    return JobRecord(
        job_id=str(job_id),
        request_id=str(request_id or ""),
        request_sha256=str(request_sha256),
        spec=job_pb2.JobSpec.FromString(spec),
        data_sha256=str(data_sha256),
        state=state,
        created_at_s=created,
        started_at_s=started,
        ended_at_s=ended,
        progress=job_pb2.Progress.FromString(progress),
        error=None if error is None else status_pb2.Status.FromString(error),
        result=None if result is None else job_pb2.Result.FromString(result),
        number=int(number),
        end_number=int(end_number),
    )
