"""One table from the files that a `file:` URI names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from chainrule.v1 import job_pb2
from chainrule_server.data.column_choice import listed
from chainrule_server.data.columns import Column, ColumnError, Table, TableFile, joined
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.formats.array_columns import NpyFile, NpzFile

ENDINGS = (".csv", ".tsv", ".parquet", ".arrow", ".feather", ".npz", ".npy")


@dataclass(frozen=True)
class OpenFiles:
    """Files of one form and with the same columns. names: their names. forms: one for each file."""

    names: tuple[str, ...]
    forms: tuple[TableFile, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the first file."""
        return self.forms[0].names

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> Table:
        """These columns of all files, one file after the other. Raises ColumnError, DataFileError."""
        tables = tuple(form.table(wanted, categories) for form in self.forms)
        table = tables[0] if len(tables) == 1 else JoinedTable(tables, self.names)
        if not table.row_count:
            raise DataFileError("has no row below the names of its columns")
        return table


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
    endings = sorted({ending for each in names for ending in ENDINGS if each.endswith(ending)})
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
    return OpenFiles(tuple(names), tuple(forms))


def _form(file: BinaryIO, name: str, ending: str, spec: job_pb2.DataSpec) -> TableFile:
    if ending == ".npz":
        return NpzFile(file, name)
    if ending == ".npy":
        return NpyFile(file, name)
    try:
        from chainrule_server.data.formats.arrow_file import ArrowFile
        from chainrule_server.data.formats.csv_file import CsvFile
        from chainrule_server.data.formats.parquet_file import ParquetFile
    except ImportError:
        raise DataFileError(
            f"{ending} files are read by pyarrow, which is not installed here; pip install 'chainrule[data]'"
        ) from None
    if ending == ".parquet":
        return ParquetFile(file, name)
    if ending in (".arrow", ".feather"):
        return ArrowFile(file, name)
    return CsvFile(file, name, spec.csv)


def _check_same(first: str, columns: Sequence[str], other: str, others: Sequence[str]) -> None:
    missing = [name for name in columns if name not in set(others)]
    more = [name for name in others if name not in set(columns)]
    if missing or more:
        what = [f"{first} has {listed(missing)}, {other} has not"] if missing else []
        what += [f"{other} has {listed(more)}, {first} has not"] if more else []
        raise ColumnError(f"the files differ in their columns: {'; '.join(what)}; write them with the same")
