"""The rows that `chainrule predict` reads, of any form that trains, from a file or a pipe.

A process of the server's code reads them, as it reads data for training; here they are requests already.
"""

from __future__ import annotations

import contextlib
import csv
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chainrule.cells.endings import BINARY_ENDINGS, ending_of
from chainrule.cli.failures import CommandFailed, wrong_input
from chainrule.client import rows as calls
from chainrule.local.offline import ask_for_parts
from chainrule.v1 import job_pb2
from chainrule.v1 import model_service_pb2 as api

READ_TIMEOUT_S = 300.0
# Longer cells than Python's reader takes unless it is told to.
MAX_CELL_BYTES = 1 << 27


@dataclass(frozen=True)
class RowsFile:
    """requests: of predictions, without the job's id. path: as the user names it. read_path: where the bytes are."""

    path: Path
    read_path: Path
    data: job_pb2.DataSpec
    header: bool
    requests: Iterator[api.PredictRequest]

    def where(self, row: int) -> str:
        """A row, counted from 0 over all requests, for a message: of a CSV file its line."""
        line = None if ending_of(self.path.name) in BINARY_ENDINGS else self._line_of(row)
        return f"row {row}" if line is None else f"line {line}"

    def _line_of(self, row: int) -> int | None:
        """The line of a CSV file on which a row ends; None where that can't be told."""
        delimiter = self.data.csv.delimiter or ("\t" if self.path.suffix == ".tsv" else ",")
        csv.field_size_limit(MAX_CELL_BYTES)
        # Only line ends, quotes and delimiters are looked at, and these are the same in every encoding.
        with contextlib.suppress(OSError, csv.Error), self.read_path.open(newline="", encoding="latin-1") as file:
            reader = csv.reader(file, delimiter=delimiter)
            left = row + self.header
            for cells in reader:
                if cells and not left:
                    return reader.line_num
                left -= bool(cells)
        return None


@contextmanager
def open_rows(path: Path, *, header: bool, data: job_pb2.DataSpec) -> Iterator[RowsFile]:
    """The rows of a file; '-' is standard input. data: of the model's job: how its own files were written.

    Raises CommandFailed, and while the rows are read InvalidJob and OfflineError."""
    with _on_disk(path) as read_path:
        options = [
            str(read_path),
            f"--name={path}",
            f"--most-rows={calls.CALL_ROWS}",
            f"--most-values={calls.CALL_VALUES}",
            *([] if header else ["--no-header"]),
        ]
        parts = ask_for_parts(
            "chainrule_server.offline.rows",
            data,
            options,
            timeout_s=READ_TIMEOUT_S,
            timeout_message=f"the rows of {path} were not read",
        )
        with contextlib.closing(parts):
            yield RowsFile(path, read_path, data, header, map(api.PredictRequest.FromString, parts))


@contextmanager
def _on_disk(path: Path) -> Iterator[Path]:
    """A file that can be read more than once: what comes through a pipe is copied first. Raises CommandFailed."""
    if str(path) != "-" and _is_regular(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="chainrule-rows-") as copy:
        try:
            if str(path) == "-":
                shutil.copyfileobj(sys.stdin.buffer, copy)
            else:
                with path.open("rb") as pipe:
                    shutil.copyfileobj(pipe, copy)
        except OSError as error:
            raise _unreadable(path, error) from None
        copy.flush()
        yield Path(copy.name)


def _is_regular(path: Path) -> bool:
    """Raises CommandFailed where there is no such file, or it is a folder."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        raise wrong_input(str(path), "is a folder; name one of its files")
    return stat.S_ISREG(mode)


def _unreadable(path: Path, error: OSError) -> CommandFailed:
    return wrong_input(str(path), f"can't be read: {error.strerror}")
