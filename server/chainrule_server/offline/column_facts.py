"""`python -P -m chainrule_server.offline.column_facts`: what the columns of data files are, for whoever proposes a job
for them.

The question is a JobSpec, of which only `data` counts; see `answering`. The answer is
{"row_count": n, "columns": [{"name", "kind", "missing", …}], "csv": {…}, "has_own_target": …}.
All rows are looked at. kind: "number" (then also "is_whole", "distinct", "is_counter": it numbers the rows, "is_code":
some are written with zeros in front, as 007), "category" ("distinct", "names": the first of them, sorted), or
"unusable" ("why"). csv: the `data.csv` that reads the file, where the question has none and it takes one.
has_own_target: the last column, "target", is the data set's own, which a job doesn't name.
"""

# ruff: noqa: E402  (one BLAS thread must be set before numpy is loaded)

from __future__ import annotations

from chainrule.process.lifecycle import limit_blas_threads

limit_blas_threads()

import argparse
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.cells.endings import ENDINGS, ending_of
from chainrule.cells.texts import number_of, written_number_of
from chainrule.v1 import job_pb2
from chainrule_server.data.columns import Categories, Column, ColumnError, Numbers, Table
from chainrule_server.data.data_root import default_data_root, names_below, open_below
from chainrule_server.data.data_set import DataError, load
from chainrule_server.data.formats.csv_guess import guessed_format
from chainrule_server.data.formats.npz_file import array_names
from chainrule_server.data.table_files import OpenFiles, open_files
from chainrule_server.offline.answering import answer

# So many names of categories are told.
MOST_NAMES = 20
# Within float32, with room for a standardization.
LARGEST = 1e30


def main() -> int:
    """Write what is seen; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m chainrule_server.offline.column_facts")
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    arguments = parser.parse_args()
    return answer(job_pb2.JobSpec, lambda spec: facts_of(spec.data, data_root=arguments.data_root))


def facts_of(data: job_pb2.DataSpec, *, data_root: Path | None) -> dict[str, Any]:
    """The columns of a `file:` URI, in the file's order. Raises ColumnError, DataFileError."""
    with ExitStack() as stack:
        names = names_below(data_root, data.uri.removeprefix("file:"), ENDINGS)
        if len(names) == 1 and ending_of(names[0]) == ".npz":
            with open_below(data_root, names[0]) as file:
                if "features" in array_names(file):
                    return _of_matrix(data, data_root)
        data = _described_format(data, names[0], data_root)
        files = open_files(names, partial(open_below, data_root), data, stack)
        # A column without a name is what nobody can learn from.
        wanted = [name for name in files.columns if name.strip()]
        table = files.table(wanted, ())
        seen = {name: _described(table, name) for name in wanted}
        if ending_of(names[0]) in (".csv", ".tsv"):
            whole = [name for name in wanted if seen[name].get("is_whole")]
            for name in _with_zeros_in_front(files, whole):
                seen[name]["is_code"] = True
            for name in wanted:
                if seen[name]["kind"] != "number" and _looks_written(files, name):
                    # Cells far below may be others: then it stays what it is.
                    with suppress(ColumnError):
                        data, seen[name] = _as_written(data, names, name, data_root)
        unnamed = {"kind": "unusable", "why": "has no name: row numbers, as pandas and R write them"}
        columns = [seen.get(name, {"name": name, **unnamed}) for name in files.columns]
        csv_format = {field.name: list(value) if field.is_repeated else value for field, value in data.csv.ListFields()}
        return {"row_count": table.row_count, "columns": columns, "csv": csv_format, "has_own_target": False}


def _with_zeros_in_front(files: OpenFiles, names: list[str]) -> set[str]:
    """The columns of whole numbers some of which are written like 007: as names are, and quantities are not."""
    import pyarrow.compute as pc  # where a CSV file was read, it is there

    found: set[str] = set()
    for block in (block for form in files.forms for block in form.cells(names) if names):
        found |= {
            name
            for name, cells in zip(names, block, strict=True)
            if pc.any(pc.match_substring_regex(cells, r"^\s*0\d")).as_py()
        }
    return found


def _looks_written(files: OpenFiles, name: str) -> bool:
    """Whether the first cells of a column are numbers for people, such as "$1,065.75", and not all of them plain."""
    block = next(files.forms[0].cells([name]), None)
    cells = [] if block is None else [cell for cell in block[0].to_pylist() if cell is not None]
    try:
        texts = [cell.decode() for cell in cells]
    except UnicodeDecodeError:
        return False
    point = files.rules.decimal_point
    is_plain = [number_of(text, point) is not None for text in texts]
    return not all(is_plain) and all(written_number_of(text, point) is not None for text in texts)


def _as_written(
    data: job_pb2.DataSpec, names: list[str], name: str, data_root: Path | None
) -> tuple[job_pb2.DataSpec, dict[str, Any]]:
    """The data with one more column of numbers for people, and its facts. Raises ColumnError, DataFileError."""
    found = job_pb2.DataSpec()
    found.CopyFrom(data)
    found.csv.numbers.append(name)
    with ExitStack() as stack:
        table = open_files(names, partial(open_below, data_root), found, stack).table([name], ())
        return found, {"name": name, **_facts(table.read(name))}


def _of_matrix(data: job_pb2.DataSpec, data_root: Path | None) -> dict[str, Any]:
    """The columns of an .npz file with a matrix `features` and its own `target`. Raises ColumnError, DataFileError."""
    try:
        with load(data, data_root=data_root) as rows:
            columns = [{"name": name, **_facts(rows.feature(place))} for place, name in enumerate(rows.feature_names)]
            target = rows.target
            if rows.classes is None:
                facts = _facts(Numbers(target))
            else:
                facts = _facts(Categories(target.astype(np.int32), rows.classes))
    except DataError as error:
        raise ColumnError(str(error).removeprefix(f"{data.uri}: "), field=error.field) from None
    columns.append({"name": "target", **facts})
    return {"row_count": len(target), "columns": columns, "csv": {}, "has_own_target": True}


def _described_format(data: job_pb2.DataSpec, name: str, data_root: Path | None) -> job_pb2.DataSpec:
    """The data with a guess of their CSV format, where none is given and the file needs one."""
    if data.HasField("csv") or ending_of(name) not in (".csv", ".tsv"):
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
    if np.isinf(values).any():
        return {"kind": "unusable", "why": f"holds {values[np.isinf(values)][0]:g}, which is no finite number"}
    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGEST:
        return {"kind": "unusable", "why": f"holds values as large as {largest:g}; give them in a larger unit"}
    first = values[0] if len(values) else 0.0
    return {
        "kind": "number",
        "missing": len(column.values) - len(values),
        "is_whole": bool(np.all(values == np.floor(values))),
        "distinct": len(np.unique(values)),
        "is_counter": len(values) == len(column.values)
        and bool(np.array_equal(values, first + np.arange(len(values), dtype=np.float64))),
    }


if __name__ == "__main__":
    sys.exit(main())
