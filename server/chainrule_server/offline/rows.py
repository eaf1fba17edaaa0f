"""`python -P -m chainrule_server.offline.rows FILE`: the rows of a file as requests of predictions.

A file is read here as it is in training, by the same code, so whatever file trains, predicts. Standard input is a
serialized DataSpec, of the model's job. Standard output is parts, each a letter, the number of its bytes (4,
big-endian) and these: R, a serialized PredictRequest of the next rows, without the job's id; E, a line of JSON,
{"violations": [[path, message], …]}, the last part then; Z, the last part where all is well.
"""

# ruff: noqa: E402  (one BLAS thread must be set before numpy is loaded)

from __future__ import annotations

from chainrule.process.lifecycle import limit_blas_threads

limit_blas_threads()

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from chainrule.cells.values import Value, array_values, arrow_values, unusable
from chainrule.v1 import job_pb2
from chainrule.v1 import model_service_pb2 as api
from chainrule_server.data.columns import ColumnError
from chainrule_server.data.data_root import DataFileError, OtherDelimiter
from chainrule_server.data.table_files import OpenRows, open_rows
from chainrule_server.offline.answering import WRONG_INPUT

# Half of what a server takes in a message unless it is told otherwise.
MAX_REQUEST_BYTES = 2 << 20
CALLED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def main() -> int:
    """Write the rows; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m chainrule_server.offline.rows")
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", help="what the file is called; its ending tells its form")
    parser.add_argument("--no-header", action="store_true", help="the first line of a CSV file is a row")
    parser.add_argument("--most-rows", type=int, default=10_000, help="in a request")
    parser.add_argument("--most-values", type=int, default=150_000, help="in a request")
    given = parser.parse_args()
    name = given.name or given.file.name
    try:
        spec = job_pb2.DataSpec.FromString(sys.stdin.buffer.read())
        with given.file.open("rb") as file:
            rows = open_rows(file, name, spec, has_header=not given.no_header)
            for request in requests(rows, spec, most_rows=given.most_rows, most_values=given.most_values):
                _write(b"R", request.SerializeToString())
    except DecodeError as error:
        return _refuse("", f"standard input is no DataSpec: {error}")
    except OtherDelimiter as error:
        message = f"{CALLED[error.found]} divide its columns, but the model's data have {error.expected!r}"
        return _refuse(name, f"{message}; write it in the same form")
    except (ColumnError, DataFileError) as error:
        return _refuse(name, str(error))
    except OSError as error:
        return _refuse(name, f"can't be read: {error.strerror}")
    _write(b"Z", b"")
    return 0


def requests(
    rows: OpenRows, spec: job_pb2.DataSpec, *, most_rows: int, most_values: int
) -> Iterator[api.PredictRequest]:
    """The rows of a file, as many in a request as a server takes. Raises DataFileError."""
    names = _needed(rows.form.names, spec) if rows.has_names else list(rows.form.names)
    columns = names if rows.has_names else []
    most_rows = max(1, min(most_rows, most_values // len(names)))
    request, size_bytes = api.PredictRequest(columns=columns), 0
    for block in rows.form.cells(names):
        for values in zip(*(_values(column, is_csv=rows.is_csv) for column in block), strict=True):
            row = request.rows.add()
            row.extend(values)
            size_bytes += row.ByteSize()
            if len(request.rows) == most_rows or size_bytes >= MAX_REQUEST_BYTES:
                yield request
                request, size_bytes = api.PredictRequest(columns=columns), 0
    if request.rows:
        yield request


def _values(column: Any, *, is_csv: bool) -> list[Value]:
    """The values of a column that a file gave, one for each row."""
    if isinstance(column, np.ndarray):
        return array_values(column)
    return list(map(_decoded, column.to_pylist())) if is_csv else arrow_values(column)


def _decoded(cell: bytes | None) -> Value:
    if cell is None:
        return None
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return unusable(f"{cell[:40]!r}, which is not UTF-8")


def _needed(names: tuple[str, ...], spec: job_pb2.DataSpec) -> list[str]:
    """The columns that the model may use; all of them where some are not there: a server can name the nearest."""
    if spec.features and set(spec.features) <= set(names):
        return list(spec.features)
    left_out = {spec.target, *spec.exclude}
    return [name for name in names if name not in left_out] or list(names)


def _refuse(path: str, message: str) -> int:
    # Most messages begin with the file's name.
    message = message.removeprefix(path).lstrip(": ")
    _write(b"E", json.dumps({"violations": [[path, message]]}).encode())
    return WRONG_INPUT


def _write(kind: bytes, content: bytes) -> None:
    sys.stdout.buffer.write(kind + len(content).to_bytes(4, "big") + content)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
