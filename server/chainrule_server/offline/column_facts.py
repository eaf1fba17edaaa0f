"""`python -P -m chainrule_server.offline.column_facts`: what the columns of data files are, for whoever proposes a job
for them.

Standard input is a serialized JobSpec, of which only `data` counts. Standard output is one line of JSON:
{"row_count": n, "columns": [{"name", "kind", "missing", …}], "csv": {…}}, or {"violations": [[path, message], …]} and
exit code 2. kind: "number" (then also "is_whole", "distinct"), "category" ("distinct", "names": the first of them,
sorted), or "unusable" ("why"). csv: the `data.csv` that reads the file, where the question has none and it takes one.
"""

# ruff: noqa: E402  (one BLAS thread must be set before numpy is loaded)

from __future__ import annotations

from chainrule.process.lifecycle import limit_blas_threads

limit_blas_threads()

import argparse
import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from chainrule.v1 import job_pb2
from chainrule_server.data.columns import Categories, Column, ColumnError, Table
from chainrule_server.data.data_root import DataFileError, default_data_root, names_below, open_below
from chainrule_server.data.formats.csv_guess import guessed_format
from chainrule_server.data.table_files import ENDINGS, open_files

WRONG_INPUT = 2
# So many names of categories are told.
MOST_NAMES = 20
# Distinct numbers are counted up to here.
MOST_DISTINCT = 1_000


def main() -> int:
    """Write what is seen; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m chainrule_server.offline.column_facts")
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    arguments = parser.parse_args()
    answer: dict[str, Any]
    try:
        spec = job_pb2.JobSpec.FromString(sys.stdin.buffer.read())
        answer, code = facts_of(spec.data, data_root=arguments.data_root), 0
    except DecodeError as error:
        answer, code = {"violations": [["", f"standard input is no JobSpec: {error}"]]}, WRONG_INPUT
    except (ColumnError, DataFileError) as error:
        answer, code = {"violations": [[error.field, str(error)]]}, WRONG_INPUT
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


def facts_of(data: job_pb2.DataSpec, *, data_root: Path | None) -> dict[str, Any]:
    """The columns of a `file:` URI, in the file's order. Raises ColumnError, DataFileError."""
    with ExitStack() as stack:
        names = names_below(data_root, data.uri.removeprefix("file:"), ENDINGS)
        data = _described_format(data, names[0], data_root)
        files = open_files(names, partial(open_below, data_root), data, stack)
        table = files.table(files.columns, ())
        columns = [_described(table, name) for name in files.columns]
        csv_format = {field.name: value for field, value in data.csv.ListFields()}
        return {"row_count": table.row_count, "columns": columns, "csv": csv_format}


def _described_format(data: job_pb2.DataSpec, name: str, data_root: Path | None) -> job_pb2.DataSpec:
    """The data with a guess of their CSV format, where none is given and the file needs one."""
    if data.HasField("csv") or not name.endswith((".csv", ".tsv")):
        return data
    with open_below(data_root, name) as file:
        guess = guessed_format(file, name)
    if guess is None:
        return data
    return job_pb2.DataSpec(uri=data.uri, csv=guess)


def _described(table: Table, name: str) -> dict[str, Any]:
    try:
        column = table.read(name)
    except ColumnError as error:
        # Such as dates: a job leaves the column out.
        return {"name": name, "kind": "unusable", "why": str(error)}
    return {"name": name, **_facts(column)}


def _facts(column: Column) -> dict[str, Any]:
    if isinstance(column, Categories):
        missing = int(np.count_nonzero(column.codes < 0))
        return {
            "kind": "category",
            "missing": missing,
            "distinct": len(column.names),
            "names": list(column.names[:MOST_NAMES]),
        }
    values = column.values[~np.isnan(column.values)]
    # Of the first rows only, where there are many: a proposal needs no more.
    distinct = len(np.unique(values[:100_000]))
    return {
        "kind": "number",
        "missing": len(column.values) - len(values),
        "is_whole": bool(np.all(values == np.floor(values))),
        "distinct": min(distinct, MOST_DISTINCT),
    }


if __name__ == "__main__":
    sys.exit(main())
