"""The one folder that holds everything that a server keeps, and the lock that makes it one server's alone.

HOME/lock                        held for as long as the server lives
HOME/chainrule.db                jobs, events, metrics (chainrule_server.storage.store)
HOME/checkpoints/JOB/STEP.safetensors
HOME/models/JOB.safetensors
HOME/datasets/SHA256/            a data set: its content and its manifest (chainrule_server.data.data_set_store)
HOME/uploads/SHA256/             one that is not complete (chainrule_server.data.uploads)
HOME/rows/SHA256.rows            prepared rows, while a job has them (chainrule_server.preparation.row_file)
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

from chainrule_server.storage.durable_file import remove_abandoned


class HomeError(Exception):
    """The folder can't be used; the message says why and what to do."""


class Home:
    """The folder, made where it is missing, and its lock, held until `close` or the process's end, however it ends.

    Raises HomeError where the folder can't be made or another server has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "chainrule.db"
        self.checkpoints = folder / "checkpoints"
        self.models = folder / "models"
        self.data_sets = folder / "datasets"
        self.uploads = folder / "uploads"
        self.rows = folder / "rows"
        try:
            for each in (folder, self.checkpoints, self.models, self.data_sets, self.uploads, self.rows):
                each.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder / "lock", folder)
            remove_abandoned(folder)
        except OSError as error:
            raise HomeError(f"the folder {folder} can't be used: {error.strerror}; choose another --home") from None

    def close(self) -> None:
        """Let another server have the folder."""
        self._lock.close()

    def model(self, job_id: str) -> Path:
        """Where a job's model is, once there is one."""
        return self.models / f"{job_id}.safetensors"


def _locked(path: Path, folder: Path) -> TextIO:
    # Not "w": the number in it is the other server's as long as that holds the lock.
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        process = lock.read(20).strip() or "unknown"
        lock.close()
        raise HomeError(
            f"another server (process {process}) uses the folder {folder}; end that one, or choose another --home"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
