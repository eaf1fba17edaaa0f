"""What `chainrule init` writes, training takes: over generated tables of every kind of column that files have."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chainrule.spec.job_file import parse_job
from chainrule.spec.job_proposal import ColumnFacts, NoTarget, chosen_target, proposal
from chainrule.v1 import job_pb2
from chainrule_server.data.columns import ColumnError
from chainrule_server.data.data_root import DataFileError
from chainrule_server.offline.column_facts import facts_of
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.timeout(300)

CELLS: dict[str, st.SearchStrategy[object]] = {
    "whole": st.integers(-1000, 1000),
    "few": st.integers(0, 3),
    "fraction": st.floats(-1e6, 1e6).map(lambda number: round(number, 3)),
    "tiny": st.floats(-1e-30, 1e-30),
    "large": st.sampled_from([1e38, 1e39, -1e39, 1e300, 2**53 + 1, 10**20]),
    "infinite": st.sampled_from(["inf", "-inf", 1.5]),
    "text": st.sampled_from(["red", "blue", "green", "a, b", 'say "so"', " blank", "é"]),
    "any text": st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=8),
    "truth": st.sampled_from(["true", "false"]),
    "money": st.integers(-5000, 900_000).map(lambda number: f"${number / 7:,.2f}"),
    "percent": st.integers(0, 100).map(lambda number: f"{number}%"),
    "thousands": st.integers(0, 10**7).map(lambda number: f"{number:,}"),
    "zeros": st.integers(0, 99).map(lambda number: f"{number:03}"),
    "date": st.dates().map(str),
    "mixed": st.sampled_from([1, 2, "three", "4", "5.5"]),
    "same": st.just(7),
    "nothing": st.just(""),
}
NAMES = st.one_of(
    st.sampled_from(
        ["a", "id", "class", "y", "target", "Unnamed: 0", "", "2019", "908.1", "PassengerId", 'q"', "a b", "é"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=6),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[object]]]:
    """The names of the columns, and the columns, some of them with gaps."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    row_count = draw(st.integers(1, 40))
    columns = []
    for _ in names:
        kind = draw(st.sampled_from([*CELLS, "counter"]))
        if kind == "counter":
            cells: list[object] = list(range(row_count))
        else:
            cells = draw(st.lists(CELLS[kind], min_size=row_count, max_size=row_count))
        if draw(st.booleans()):
            gaps = draw(st.lists(st.integers(0, row_count - 1), max_size=5))
            cells = ["" if row in gaps else cell for row, cell in enumerate(cells)]
        columns.append(cells)
    return names, columns


def trained_as_proposed(folder: Path, name: str) -> PreparedJob | None:
    """The job that init proposes, as a server prepares it; None where init says what is wrong with the table."""
    uri = f"file:{name}"
    try:
        seen = facts_of(job_pb2.DataSpec(uri=uri), data_root=folder)
        columns = [ColumnFacts.of(each) for each in seen["columns"]]
        text = proposal(
            columns,
            uri=uri,
            name="job",
            target=chosen_target(columns, None, row_count=seen["row_count"]),
            row_count=seen["row_count"],
            file_name="job.toml",
            csv_format=seen["csv"],
        )
    except (NoTarget, ColumnError, DataFileError) as error:
        # In words, and not as what it is in Python.
        said = str(error)
        return None if said else pytest.fail("an error without words")
    return prepare(parse_job(text), data_root=folder)


def csv_text(names: Sequence[str], columns: Sequence[Sequence[object]], delimiter: str) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


@settings(max_examples=60, deadline=None)
@given(table=tables(), delimiter=st.sampled_from([",", ";", "\t"]))
@example(table=(["a", "y"], [[1, 2] * 10, [1, ""] * 10]), delimiter=",")
@example(table=(["\b", "\x7f", "y"], [[1, "three"] * 5, [7] * 10, list(range(10))]), delimiter=",")
@example(table=(["", "y"], [list(range(30)), [0.5, 1.5, 2.5] * 10]), delimiter=",")
@example(table=(["a", "y"], [["$1,000", "$2"] * 10, [1e39, 1] * 10]), delimiter=",")
@example(table=(["a", "y"], [[0.5] * 19 + ["inf"], list("abcde" * 4)]), delimiter=";")
def test_what_init_proposes_of_a_csv_file_a_server_takes(
    table: tuple[list[str], list[list[object]]], delimiter: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows.csv").write_text(csv_text(*table, delimiter), encoding="utf-8")
        job = trained_as_proposed(Path(folder), "rows.csv")
        assert job is None or job.row_count > 0


def typed(column: Sequence[Any]) -> Any:
    cells = [None if cell == "" else cell for cell in column]
    is_text = any(isinstance(cell, str) for cell in cells)
    return pa.array([cell if cell is None else str(cell) if is_text else float(cell) for cell in cells])


@settings(max_examples=30, deadline=None)
@given(table=tables())
def test_what_init_proposes_of_a_parquet_file_a_server_takes(table: tuple[list[str], list[list[object]]]) -> None:
    names, columns = table
    with tempfile.TemporaryDirectory() as folder:
        arrays = [typed(column) for column in columns]
        pq.write_table(pa.Table.from_arrays(arrays, names=names), Path(folder) / "rows.parquet")
        job = trained_as_proposed(Path(folder), "rows.parquet")
        assert job is None or job.row_count > 0
