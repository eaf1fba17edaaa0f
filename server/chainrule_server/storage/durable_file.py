"""Files that are there whole and on the disk, or not at all: a temporary name, synced, renamed, the folder synced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from chainrule.atomic_file import named_at_last, sync_folder

TEMPORARY_SUFFIX = ".tmp"


def write(path: Path, content: bytes) -> None:
    """Write a file, replacing the one that is there. Its folder is made. Raises OSError, with nothing changed."""
    write_by(path, lambda temporary: temporary.write_bytes(content))


def write_by(path: Path, writer: Callable[[Path], object]) -> None:
    """The same where `writer` writes the file under the temporary name that it is given."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)  # another thread may be quicker
        sync_folder(path.parent.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with named_at_last(temporary, path):
        writer(temporary)


def remove_abandoned(folder: Path) -> None:
    """Remove what a process that was killed had not finished writing. Nobody may be writing there."""
    for temporary in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
        temporary.unlink(missing_ok=True)
