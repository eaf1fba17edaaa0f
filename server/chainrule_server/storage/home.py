"""The one folder that holds everything that a server keeps, and the lock that makes it one server's alone.

HOME/lock                        held for as long as the server lives
HOME/chainrule.db                jobs, events, metrics (chainrule_server.storage.store)
HOME/checkpoints/JOB/STEP.safetensors
HOME/models/JOB.safetensors
HOME/datasets/SHA256/            a data set: its content and its manifest (chainrule_server.data.data_set_store)
HOME/uploads/SHA256/             one that is not complete (chainrule_server.data.uploads)
HOME/rows/SHA256.rows            prepared rows, while a job has them (chainrule_server.preparation.row_file)

It belongs to the user who runs the server, alone: data sets and models are nobody else's to read. What an older server
left open to others is closed to them when it is used again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from chainrule.process.logs import log_event
from chainrule_server.storage.durable_file import remove_abandoned

log = logging.getLogger(__name__)
DATABASE = "chainrule.db"
OTHERS = 0o077


class HomeError(Exception):
    """The folder can't be used; the message says why and what to do."""


class Home:
    """The folder, made where it is missing, and its lock, held until `close` or the process's end, however it ends.

    Raises HomeError where the folder can't be made or another server has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / DATABASE
        self.checkpoints = folder / "checkpoints"
        self.models = folder / "models"
        self.data_sets = folder / "datasets"
        self.uploads = folder / "uploads"
        self.rows = folder / "rows"
        try:
            folders = (self.checkpoints, self.models, self.data_sets, self.uploads, self.rows)
            for each in (folder, *folders):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(folder / "lock", folder)
            remove_abandoned(folder)
            _close_to_others(folder, folders)
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


def _close_to_others(folder: Path, folders: Iterable[Path]) -> None:
    """Take from everybody but the owner what they may do in a home: with what is the server's, not with other files
    that lie in the same folder. What isn't this user's own stays as it is, and is told in the log."""
    left = [path for path in _own_paths(folder, folders) if not _closed(path)]
    if left:
        extra, others = log_event("home_open"), f" and {len(left) - 1} more" if len(left) > 1 else ""
        message = "others on this machine may read %s%s, which another user owns; 'chmod -R go-rwx %s' closes it"
        log.warning(message, left[0], others, folder, extra=extra)


def _own_paths(folder: Path, folders: Iterable[Path]) -> Iterator[Path]:
    # A folder that everybody may write to, such as /tmp, is no server's own.
    if not folder.stat().st_mode & stat.S_ISVTX:
        yield folder
    yield from (path for path in folder.glob(f"{DATABASE}*") if path.is_file())
    yield folder / "lock"
    for each in folders:
        yield each
        yield from each.rglob("*")


def _closed(path: Path) -> bool:
    """Whether a path is its owner's alone, now at the latest."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode) or not mode & OTHERS:
        return True
    try:
        path.chmod(stat.S_IMODE(mode) & ~OTHERS)
    except PermissionError:
        return False
    return True
