"""One table from the files that a `file:` URI names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from chainrule.cells.endings import ENDINGS, ending_of
from chainrule.cells.texts import CellRules
from chainrule.v1 import job_pb2
from chainrule_server.data.column_choice import cell_rules, listed
from chainrule_server.data.columns import CellFile, Column, ColumnError, Table, TableFile, joined, with_missing
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.formats.array_columns import NpyFile, NpzFile, NpzMatrix
from chainrule_server.data.formats.npz_file import array_names

# How the forms that are no text begin.
BEGINNINGS = {
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"\xff\xff\xff\xff": ".arrow",
    b"PK\x03\x04": ".npz",
    b"\x93NUMPY": ".npy",
}


@dataclass(frozen=True)
class OpenFiles:
    """Files of one form and with the same columns. names: their names. forms: one for each file."""

    names: tuple[str, ...]
    forms: tuple[TableFile, ...]
    rules: CellRules

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the first file."""
        return self.forms[0].names

    def size_bytes(self, wanted: Sequence[str]) -> int:
        """What reading these columns of all files takes of memory at most. Raises DataFileError."""
        return sum(form.size_bytes(wanted) for form in self.forms)

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> Table:
        """These columns of all files, one file after the other. Raises ColumnError, DataFileError."""
        tables = tuple(form.table(wanted, categories) for form in self.forms)
        table = tables[0] if len(tables) == 1 else JoinedTable(tables, self.names)
        if not table.row_count:
            raise DataFileError("has no row below the names of its columns")
        return MarkedTable(table, self.rules) if self.rules.markers else table


@dataclass(frozen=True)
class MarkedTable:
    """A table in which the values that a job names are missing. See `Table`."""

    _table: Table
    _rules: CellRules

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return self._table.row_count

    def read(self, name: str) -> Column:
        """The column of that name. Raises ColumnError, DataFileError."""
        return with_missing(self._table.read(name), self._rules, name=name)

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """See `Table`."""
        for block in self._table.blocks(names):
            yield [with_missing(column, self._rules, name=name) for name, column in zip(names, block, strict=True)]


@dataclass(frozen=True)
class JoinedTable:
    """Tables of the same columns, one after the other. See `Table`."""

    _tables: tuple[Table, ...]
    _files: tuple[str, ...]

    @property
    def row_count(self) -> int:
        """The number of rows of all."""
        return sum(table.row_count for table in self._tables)

    def read(self, name: str) -> Column:
        """The column of that name. Raises ColumnError, DataFileError."""
        return joined([table.read(name) for table in self._tables], name=name, files=self._files)

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """See `Table`."""
        for table in self._tables:
            yield from table.blocks(names)


def open_files(
    names: Sequence[str], open_file: Callable[[str], BinaryIO], spec: job_pb2.DataSpec, stack: ExitStack
) -> OpenFiles:
    """The files of those names, opened. open_file: opens one by its name. stack: closes them.

    Raises DataFileError, ColumnError."""
    endings = sorted({ending_of(each) for each in names} - {""})
    if not endings:
        raise DataFileError(f"names no file that can be read; its name must end in {', '.join(ENDINGS)}")
    if len(endings) > 1:
        raise DataFileError(
            f"means files of different forms, {', '.join(endings)}; name those of one, as in '*{endings[0]}'"
        )
    if spec.HasField("csv") and endings[0] not in (".csv", ".tsv"):
        raise DataFileError(f"is no CSV file but {endings[0]}; leave data.csv out", field="data.csv")
    forms = []
    for each in names:
        file = stack.enter_context(open_file(each))
        forms.append(_form(file, each, endings[0], spec))
    for each, form in zip(names, forms, strict=True):
        _check_same(names[0], forms[0].names, each, form.names)
    return OpenFiles(tuple(names), tuple(forms), cell_rules(spec))


@dataclass(frozen=True)
class OpenRows:
    """A file whose rows are to be predicted. has_names: whether its columns have names. is_csv: whether it gives bytes
    of text."""

    form: CellFile
    has_names: bool
    is_csv: bool


def open_rows(file: BinaryIO, name: str, spec: job_pb2.DataSpec, *, has_header: bool) -> OpenRows:
    """A file of rows to predict, read as the data of the model's job were. Without a known ending of its name, as from
    a pipe, its first bytes tell its form.

    has_header: whether the first line of a CSV file names the columns. Raises DataFileError, ColumnError."""
    ending = ending_of(name)
    form = spec.csv
    if not ending:
        ending = _ending_of_content(file)
        if not form.delimiter and ending_of(spec.uri) == ".tsv":
            form = job_pb2.CsvFormat(delimiter="\t", decimal_point=form.decimal_point)
    if ending == ".npz" and "features" in array_names(file):
        return OpenRows(NpzMatrix(file), has_names=True, is_csv=False)
    file.seek(0)
    if ending not in (".csv", ".tsv"):
        return OpenRows(_form(file, name, ending, spec), has_names=True, is_csv=False)
    table = _csv(file, name, form, cell_rules(spec), has_header=has_header)
    return OpenRows(table, has_names=has_header, is_csv=True)


def _ending_of_content(file: BinaryIO) -> str:
    """The ending that a file's first bytes call for; ".csv" where they are nothing else."""
    start = file.read(max(len(each) for each in BEGINNINGS))
    file.seek(0)
    return next((ending for each, ending in BEGINNINGS.items() if start.startswith(each)), ".csv")


def _csv(file: BinaryIO, name: str, form: job_pb2.CsvFormat, rules: CellRules, *, has_header: bool = True) -> TableFile:
    with _needs_pyarrow(".csv"):
        from chainrule_server.data.formats.csv_file import CsvFile
    return CsvFile(file, name, form, rules, has_header=has_header)


@contextmanager
def _needs_pyarrow(ending: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise DataFileError(
            f"{ending} files are read by pyarrow, which is not installed here; pip install 'chainrule[data]'"
        ) from None


def _form(file: BinaryIO, name: str, ending: str, spec: job_pb2.DataSpec) -> TableFile:
    if ending == ".npz":
        return NpzFile(file, name)
    if ending == ".npy":
        return NpyFile(file, name)
    if ending in (".csv", ".tsv"):
        return _csv(file, name, spec.csv, cell_rules(spec))
    with _needs_pyarrow(ending):
        from chainrule_server.data.formats.arrow_file import ArrowFile
        from chainrule_server.data.formats.parquet_file import ParquetFile
    if ending == ".parquet":
        return ParquetFile(file, name)
    return ArrowFile(file, name)


def _check_same(first: str, columns: Sequence[str], other: str, others: Sequence[str]) -> None:
    known, given = set(columns), set(others)
    missing = [name for name in columns if name not in given]
    more = [name for name in others if name not in known]
    if missing or more:
        what = [f"{first} has {listed(missing)}, {other} has not"] if missing else []
        what += [f"{other} has {listed(more)}, {first} has not"] if more else []
        raise ColumnError(f"the files differ in their columns: {'; '.join(what)}; write them with the same")
