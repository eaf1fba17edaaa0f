"""Files that are read again when somebody has written them: tokens, and certificates."""

from __future__ import annotations

from pathlib import Path


class FileChanges:
    """Whether any of some files has changed since this was asked last; a file may be missing for a while."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._marks()

    def any_new(self) -> bool:
        """Whether there is a change; it is told once."""
        before, self._seen = self._seen, self._marks()
        return before != self._seen

    def _marks(self) -> list[object]:
        return [_mark(path) for path in self._paths]


def _mark(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
