"""Rows from an Arrow IPC file (.arrow, .feather): a column is read when it is asked for, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from server.arrow_columns import arrow_errors, column_of, columns_of
from server.column_choice import check_names
from server.columns import Column, block_slices
from server.data_root import DataFileError

MAGIC = b"ARROW1"


class ArrowFile:
    """An Arrow file whose schema was read. Raises DataFileError, ColumnError."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        if file.read(len(MAGIC)) != MAGIC:
            raise DataFileError(
                f"{name} is not an Arrow IPC file; write it with pyarrow.ipc.new_file or pyarrow.feather.write_feather "
                "(version 2); a stream must become a file"
            )
        with arrow_errors(name):
            self.names = tuple(_open(file).schema.names)
        check_names(self.names)

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> ArrowTable:
        """These columns of the file; see `TableFile`."""
        with arrow_errors(self._name):
            reader = _open(self._file, 0)
            row_count = sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches))
        return ArrowTable(self._file, self._name, self.names, row_count, tuple(categories))


@dataclass(frozen=True)
class ArrowTable:
    """See `Table`."""

    _file: BinaryIO
    _name: str
    _names: tuple[str, ...]
    row_count: int
    _categories: tuple[str, ...]

    def read(self, name: str) -> Column:
        """The column of that name. Raises ColumnError, DataFileError."""
        with arrow_errors(self._name):
            values = _open(self._file, self._names.index(name)).read_all().column(0)
            return column_of(values, name=name, is_category=name in self._categories)

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """See `Table`."""
        with arrow_errors(self._name):
            reader = _open(self._file, *sorted(self._names.index(name) for name in names))
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                for rows in block_slices(batch.num_rows):
                    yield columns_of(batch.slice(rows.start, rows.stop - rows.start), names, self._categories)


def _open(file: BinaryIO, *columns: int) -> pa.RecordBatchFileReader:
    """The file's reader, of all columns or of these."""
    file.seek(0)
    options = pa.ipc.IpcReadOptions(included_fields=list(columns) or None)
    return pa.ipc.open_file(pa.PythonFile(file, mode="r"), options=options)
