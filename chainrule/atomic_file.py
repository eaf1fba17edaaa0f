"""A file that is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path


def replace_with(path: Path, parts: Iterable[bytes], *, mode: int) -> None:
    """Write the parts to a file, in place of one that is there. mode: its permissions, less what the umask takes.

    Raises OSError."""
    temporary = path.parent / f".{secrets.token_hex(6)}.partial"
    # os.open and not tempfile, which knows no umask.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with named_at_last(temporary, path), open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
        file.writelines(parts)


@contextlib.contextmanager
def named_at_last(temporary: Path, path: Path) -> Iterator[None]:
    """Put on the disk what the block writes under a temporary name, and give it its own; nothing stays where it fails.

    Both are in one folder. Raises OSError."""
    try:
        yield
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
