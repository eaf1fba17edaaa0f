"""Files below the one folder that the operator allowed, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

# The option's default: a process that is started for one question inherits it.
VARIABLE = "CHAINRULE_DATA_ROOT"


class DataFileError(ValueError):
    """A file that can't be had or used; the message says what and what to do, and names no file."""


def default_data_root() -> Path | None:
    """The folder of CHAINRULE_DATA_ROOT; None where it isn't set."""
    value = os.environ.get(VARIABLE)
    return Path(value) if value else None


def open_below(data_root: Path | None, name: str) -> BinaryIO:
    """The file of that name below the folder, opened for reading. name: relative, its parts divided by '/'.

    What is outside the folder is refused before it is looked at, whether '..', an absolute name or a symbolic link
    leads there. Raises DataFileError."""
    if data_root is None:
        raise DataFileError("this server reads no files; start it with --data-root DIR, the folder that holds them")
    try:
        root = data_root.resolve(strict=True)
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links is a RuntimeError before Python 3.13
        raise DataFileError("there is no such file in the data folder; check the name") from None
    if not path.is_relative_to(root):
        raise DataFileError("leads out of the data folder; put the file into it, or choose another --data-root")
    try:
        # O_NONBLOCK: a named pipe must not hold the server up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise DataFileError(f"there is no such file in the data folder; {_there(root)}") from None
    except OSError as error:
        raise DataFileError(f"can't be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataFileError("is not a file; give the name of an .npz file")
    return os.fdopen(descriptor, "rb")


def _there(root: Path) -> str:
    try:
        names = sorted(path.name for path in root.glob("*.npz"))
    except OSError:
        names = []
    more = ", …" if len(names) > 5 else ""
    return f"it holds {', '.join(names[:5])}{more}" if names else "it holds no .npz file"
