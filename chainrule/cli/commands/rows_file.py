"""The rows that `chainrule predict` reads: of a CSV file, or standard input, as the model's own was written; or of a
Parquet or Arrow file. They are read as they are asked for."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from chainrule.cli.failures import CommandFailed, wrong_input
from chainrule.client.model_requests import Value
from chainrule.client.rows import plain
from chainrule.errors import RowsError
from chainrule.v1 import job_pb2

MISSING = ("", "na", "nan", "null")
TABLES = (".parquet", ".arrow", ".feather")
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
# The number of a line or row of the file, and its cells as they stand there.
Line = tuple[int, list[Any]]


@dataclass(frozen=True)
class RowsFile:
    """columns: the names of the cells; none where the file has no line of names. unit: what is numbered, "line" or
    "row" (counted from 0). value: a cell as a request has it; raises RowsError."""

    path: Path
    columns: list[str]
    lines: Iterator[Line]
    value: Callable[[Any], Value]
    unit: str = "line"
    # Why the columns may not be those that the model takes.
    hint: str = ""

    def values(self, line: Line) -> list[Value]:
        """The cells of a line as a request has them. Raises CommandFailed."""
        number, cells = line
        found = []
        for place, cell in enumerate(cells):
            try:
                found.append(self.value(cell))
            except RowsError as error:
                raise wrong_input(f"{self.path} {self.where(number, place, cell)}", str(error)) from None
        return found

    def where(self, number: int, place: int | None = None, cell: Any = None) -> str:
        """A line, or one of its cells, for a message."""
        where = f"{self.unit} {number}"
        if place is None:
            return where
        return f"{where}, column {self.columns[place] if self.columns else place + 1}: {cell!r:.40}"


@contextmanager
def open_rows(path: Path, *, header: bool, form: job_pb2.CsvFormat) -> Iterator[RowsFile]:
    """The rows of a file; '-' is standard input. form: how the model's own CSV file was written.

    Raises CommandFailed."""
    if path.suffix in TABLES:
        yield _table(path)
        return
    delimiter = form.delimiter or ("\t" if path.suffix == ".tsv" else ",")
    with _opened(path) as stream:
        lines = _lines(stream, path, delimiter)
        columns = [str(cell).removeprefix("\ufeff") for cell in next(lines, (0, []))[1]] if header else []
        hint = ""
        if len(columns) == 1 and (other := next((each for each in OTHER_DELIMITERS if each in columns[0]), None)):
            hint = f"; {OTHER_DELIMITERS[other]} divide its columns, but the model's data have {delimiter!r}"
        point = form.decimal_point or "."
        yield RowsFile(path, columns, lines, lambda cell: _value(cell, point), hint=hint)


def csv_format_of(model_file: Path) -> job_pb2.CsvFormat:
    """How the data of a model file were written; the usual way where it doesn't say, or can't be read."""
    from google.protobuf import json_format
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(model_file, framework="numpy") as file:
            spec = json.loads((file.metadata() or {})["spec"])
        return json_format.ParseDict(spec["data"]["csv"], job_pb2.CsvFormat(), ignore_unknown_fields=True)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, json_format.ParseError):
        # Whoever predicts with it says what is wrong with the file.
        return job_pb2.CsvFormat()


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if str(path) == "-":
        yield sys.stdin
        return
    try:
        stream = path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        raise wrong_input(str(path), f"can't be read: {error.strerror}") from None
    with stream:
        yield stream


def _lines(stream: TextIO, path: Path, delimiter: str) -> Iterator[Line]:
    """Every line that isn't empty, with its number. Raises CommandFailed."""
    reader = csv.reader(stream, strict=True, delimiter=delimiter)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, list(cells)
    except UnicodeDecodeError:
        line = reader.line_num + 1
        message = f"line {line} or one after it is not UTF-8; a table is CSV in UTF-8, {', '.join(TABLES)}"
        raise wrong_input(str(path), message) from None
    except (csv.Error, OSError) as error:
        raise wrong_input(str(path), f"line {reader.line_num}: {error}") from None


def _value(cell: str, decimal_point: str) -> Value:
    text = cell.strip()
    if text.lower() in MISSING:
        return None
    # 0123 is a name; as a number it would lose its zero.
    if re.match(r"[+-]?0[0-9]", text):
        return text
    if decimal_point != ".":
        if "." in text:
            return text
        number = text.replace(decimal_point, ".")
    else:
        number = text
    try:
        return float(number)
    except ValueError:
        return text


def _table(path: Path) -> RowsFile:
    try:
        import pyarrow as pa
        import pyarrow.dataset as ds
    except ImportError:
        raise wrong_input(
            str(path), "is read by pyarrow, which is not installed: pip install 'chainrule[data]'"
        ) from None
    try:
        if path.suffix != ".parquet" and _is_stream(path):
            stream = pa.ipc.open_stream(str(path))
            names, batches = stream.schema.names, iter(stream)
        else:
            table = ds.dataset(path, format="parquet" if path.suffix == ".parquet" else "ipc")
            names, batches = table.schema.names, table.to_batches()
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise _unreadable(path, error) from None

    def lines() -> Iterator[Line]:
        number = 0
        try:
            for batch in batches:
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield number, list(row)
                    number += 1
        except (OSError, pa.ArrowInvalid) as error:
            raise _unreadable(path, error) from None

    return RowsFile(path, list(names), lines(), plain, unit="row")


def _is_stream(path: Path) -> bool:
    """Whether Arrow IPC is a stream, and no file of it: then a message comes first. Raises OSError."""
    with path.open("rb") as file:
        return file.read(4) == b"\xff\xff\xff\xff"


def _unreadable(path: Path, error: Exception) -> CommandFailed:
    if isinstance(error, FileNotFoundError):
        return wrong_input(str(path), "can't be read: No such file or directory")
    return wrong_input(str(path), f"can't be read: {str(error).splitlines()[0]}")
