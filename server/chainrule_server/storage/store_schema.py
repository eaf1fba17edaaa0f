"""The tables of a server's database, version by version. A version that was released is never changed."""

from __future__ import annotations

import sqlite3

# MIGRATIONS[n] brings a database of version n to version n + 1, inside one transaction; 0 is an empty one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # number: the order of creation, which is the order in the queue.
        """CREATE TABLE jobs (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            job_id TEXT NOT NULL UNIQUE,
            request_id TEXT UNIQUE,
            request_sha256 TEXT NOT NULL,
            spec BLOB NOT NULL,
            data_sha256 TEXT NOT NULL,
            state INTEGER NOT NULL,
            created_at_s REAL NOT NULL,
            started_at_s REAL,
            ended_at_s REAL,
            progress BLOB NOT NULL,
            error BLOB,
            result BLOB
        ) STRICT""",
        # name: what may happen once only, such as "checkpoint of step 40"; NULL for what may happen again.
        """CREATE TABLE events (
            job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            kind TEXT NOT NULL,
            name TEXT,
            event BLOB NOT NULL,
            PRIMARY KEY (job_id, number),
            UNIQUE (job_id, name)
        ) STRICT, WITHOUT ROWID""",
        # A row for an epoch has a validation loss and values where the job has validation rows.
        """CREATE TABLE metrics (
            job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
            step INTEGER NOT NULL,
            epoch INTEGER,
            loss REAL NOT NULL,
            validation_loss REAL,
            "values" TEXT NOT NULL,
            PRIMARY KEY (job_id, step)
        ) STRICT, WITHOUT ROWID""",
    ),
    # time_s: when the step was applied, in Unix seconds.
    ("ALTER TABLE metrics ADD COLUMN time_s REAL",),
    # end_number: which job it was of all that ended, from 1; 0 before, and for those that ended under version 2.
    ("ALTER TABLE jobs ADD COLUMN end_number INTEGER NOT NULL DEFAULT 0",),
)
VERSION = len(MIGRATIONS)


class NewerSchema(Exception):
    """The database was written by a newer chainrule."""


def check(connection: sqlite3.Connection) -> int:
    """The version of a database, which is only read. Raises NewerSchema."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise NewerSchema(
            f"the database has schema {version}, and this chainrule knows {VERSION} at most: a newer one wrote it; "
            "install that version again, or choose another --home"
        )
    return int(version)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to VERSION, whole or not at all. Raises NewerSchema, with nothing changed."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = check(connection)
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < VERSION:
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
