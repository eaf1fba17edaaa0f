"""The three standard streams as commands want them, whatever the shell made of them.

What can't be written to standard output ends the command with words and an exit code; what can't be written to standard
error is lost, and changes no exit code. A stream that is closed must not become the first file that is opened. Files
and pipes are UTF-8 in every locale: what one command writes, another reads.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from chainrule.cli.failures import FAILED, OUTPUT_FAILED, CommandFailed


def prepare_streams() -> None:
    """Put streams of this kind in place of the process's own."""
    for descriptor in range(3):
        _open_if_closed(descriptor)
    sys.stdout = _output(1, sys.__stdout__, is_needed=True)
    sys.stderr = _output(2, sys.__stderr__, is_needed=False)
    old = sys.__stdin__
    if old is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8", newline="")
    elif isinstance(old, io.TextIOWrapper) and not old.isatty():
        # Strictly, and with its line ends as they are: whoever reads a table says what is wrong with it.
        old.reconfigure(encoding="utf-8", errors="strict", newline="")


def let_go_of_streams() -> None:
    """Have what is still to be written go nowhere: whoever read it has gone, and Python would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


class _Raw(io.RawIOBase):
    """The descriptor, unbuffered. is_needed: whether what can't be written is a failure."""

    def __init__(self, descriptor: int, *, is_needed: bool) -> None:
        self._descriptor = descriptor
        self._is_needed = is_needed
        self._has_failed = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            return os.write(self._descriptor, content)
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._is_needed and not self._has_failed:
                # Once is enough: what is still in buffers comes here again.
                self._has_failed = True
                message = f"standard output can't be written: {error.strerror}"
                raise CommandFailed(FAILED, [("", message)], reason=OUTPUT_FAILED) from None
            return len(content)


def _output(descriptor: int, old: TextIO | None, *, is_needed: bool) -> TextIO:
    raw: Any = _Raw(descriptor, is_needed=is_needed)
    is_terminal = raw.isatty()
    encoding = old.encoding if is_terminal and old is not None else "utf-8"
    # A terminal without UTF-8 gets escapes and not a traceback.
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=is_terminal or not is_needed,
        write_through=not is_needed,
    )


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        # Standard output for reading alone: then writing fails, in the system's words.
        found = os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
        if found != descriptor:
            os.dup2(found, descriptor)
            os.close(found)
