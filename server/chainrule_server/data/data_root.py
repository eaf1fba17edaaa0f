"""Files below the one folder that the operator allowed, and nothing else."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

# The option's default: a process that is started for one question inherits it.
VARIABLE = "CHAINRULE_DATA_ROOT"
# All of them are open while a data set is read.
MAX_FILES = 500
LEADS_OUT = "leads out of the data folder; put the file into it, or choose another --data-root"


class DataFileError(ValueError):
    """A file that can't be had or used; the message says what and what to do.

    field: the path in the job's spec that is wrong."""

    def __init__(self, message: str, *, field: str = "data.uri") -> None:
        self.field = field
        super().__init__(message)


class OtherDelimiter(DataFileError):
    """A CSV file whose columns seem to be divided by another character than was expected."""

    def __init__(self, message: str, *, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(message, field="data.csv.delimiter")


def default_data_root() -> Path | None:
    """The folder of CHAINRULE_DATA_ROOT; None where it isn't set."""
    value = os.environ.get(VARIABLE)
    return Path(value) if value else None


def open_below(data_root: Path | None, name: str) -> BinaryIO:
    """The file of that name below the folder, opened for reading. name: relative, its parts divided by '/'.

    What is outside the folder is refused before it is looked at, whether '..', an absolute name or a symbolic link
    leads there. Raises DataFileError."""
    path = _resolved(data_root, name)
    try:
        # O_NONBLOCK: a named pipe must not hold the server up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise DataFileError(f"there is no such file in the data folder; {_there(_resolved(data_root, '.'))}") from None
    except OSError as error:
        raise DataFileError(f"can't be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataFileError("is not a file; give the name of a data file")
        _check_where(descriptor, _resolved(data_root, "."))
    except DataFileError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def names_below(data_root: Path | None, name: str, endings: Collection[str]) -> list[str]:
    """The names, for `open_below`, of the files that a name means, in path order.

    name: of a file; of a folder, whose files with one of the endings are meant; or with '*', '?' and '[…]' in its last
    part. Names that begin with '.' or '_' are not meant. Raises DataFileError."""
    path = _resolved(data_root, name)
    folder, _, pattern = name.rpartition("/")
    if path.is_dir():
        folder, pattern = name.rstrip("/"), "*"
    elif path.exists() or not is_pattern(pattern):
        return [name]
    directory = _resolved(data_root, folder or ".")
    try:
        there = [path.name for path in directory.iterdir()]
    except OSError as error:
        raise DataFileError(f"{folder or 'the data folder'} can't be listed: {error.strerror}") from None
    return [f"{folder}/{each}" if folder else each for each in matching(there, pattern, endings)]


def is_pattern(name: str) -> bool:
    """Whether a name means all that look like it."""
    return any(sign in name for sign in "*?[")


def matching(names: Iterable[str], pattern: str, endings: Collection[str]) -> list[str]:
    """The names of data files that a pattern means, sorted. Raises DataFileError for none, and for too many."""
    found = sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))
    hidden = tuple(sign for sign in "._" if not pattern.startswith(sign))
    found = [each for each in found if each.lower().endswith(tuple(endings)) and not each.startswith(hidden)]
    if not found:
        raise DataFileError(f"means no file: nothing here has this form and ends in {', '.join(endings)}")
    if len(found) > MAX_FILES:
        raise DataFileError(f"means {len(found)} files, but {MAX_FILES} are the most; join them into fewer")
    return found


def _resolved(data_root: Path | None, name: str) -> Path:
    """The path that a name leads to, below the root for certain."""
    if data_root is None:
        raise DataFileError(
            "this server reads no files; upload it ('chainrule submit --upload' or client.upload), or start the server "
            "with --data-root DIR, the folder that holds it"
        )
    try:
        root = data_root.resolve(strict=True)
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links is a RuntimeError before Python 3.13
        raise DataFileError("there is no such file in the data folder; check the name") from None
    if not path.is_relative_to(root):
        raise DataFileError(LEADS_OUT)
    return path


def _check_where(descriptor: int, root: Path) -> None:
    """Refuse a file that is outside the folder after all: a link may have been put there meanwhile."""
    try:
        found = Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:  # a system without /proc
        return
    if not found.is_relative_to(root):
        raise DataFileError(LEADS_OUT)


def _there(folder: Path) -> str:
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        names = []
    more = ", …" if len(names) > 5 else ""
    return f"it holds {', '.join(names[:5])}{more}" if names else "it is empty"
