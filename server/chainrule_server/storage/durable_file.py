"""Files that are there whole and on the disk, or not at all: a temporary name, synced, renamed, the folder synced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def write(path: Path, content: bytes) -> None:
    """Write a file, replacing the one that is there. Its folder is made. Raises OSError, with nothing changed."""

    def write_content(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_by(path, write_content)


def write_by(path: Path, writer: Callable[[Path], None]) -> None:
    """The same where `writer` writes the file under the temporary name that it is given."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        sync_folder(path.parent.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        writer(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_abandoned(folder: Path) -> None:
    """Remove what a process that was killed had not finished writing. Nobody may be writing there."""
    for temporary in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
        temporary.unlink(missing_ok=True)
