"""Whether this worker has joined, as a file that a health check can look at without starting a Python.

A worker's file is DIR/PROCESS_ID. While the worker is joined, the file is touched about once a second; otherwise its
time is 1970. So a check needs only `find`: see deploy/image/worker-is-joined.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from chainrule.process.logs import log_event

VARIABLE = "CHAINRULE_WORKER_STATUS"
log = logging.getLogger(__name__)


class StatusFileError(Exception):
    """The folder can't be used; the message says why and what to do."""


class StatusFile:
    """The file of this process in `folder`, which is made where it is missing. Raises StatusFileError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / str(os.getpid())
        self._is_failing = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for each in folder.iterdir():
                if each.name.isdigit() and not _is_alive(int(each.name)):
                    # It was killed; a container that is started again may have the same folder.
                    each.unlink(missing_ok=True)
            self._path.touch()
            os.utime(self._path, (0, 0))
        except OSError as error:
            raise StatusFileError(
                f"{VARIABLE}: the folder {folder} can't be used: {error.strerror}; name one that can be written"
            ) from error

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> StatusFile | None:
        """That in the folder which CHAINRULE_WORKER_STATUS names; None without it. Raises StatusFileError."""
        folder = environment.get(VARIABLE)
        return cls(Path(folder)) if folder else None

    def joined(self) -> None:
        """The worker is joined now."""
        self._touch(None)

    def left(self) -> None:
        """The worker is joined no longer."""
        self._touch((0, 0))

    def _touch(self, times: tuple[int, int] | None) -> None:
        try:
            os.utime(self._path, times)
        except OSError as error:
            # Work goes on; a check that sees nothing fresh calls this worker ill.
            if not self._is_failing:
                extra = log_event("status_not_told")
                log.warning("%s can't be touched: %s", self._path, error.strerror, extra=extra)
            self._is_failing = True


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
