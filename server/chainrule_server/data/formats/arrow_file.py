"""Rows from Arrow IPC (.arrow, .feather), a file or a stream: a column is read when it is asked for, and no other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa

from chainrule_server.data.column_choice import check_names
from chainrule_server.data.columns import CELL_ROWS, Column, block_slices
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.formats.arrow_columns import arrow_errors, column_of, columns_of
from chainrule_server.data.size_checks import table_bytes

MAGIC = b"ARROW1"
# How a stream begins: a message follows, and not the length that streams before Arrow 0.15 had; and how it ends.
CONTINUATION = b"\xff\xff\xff\xff"
STREAM_END = CONTINUATION + bytes(4)
# Columns are read together while they are so small: each reading goes through the whole schema again.
TOGETHER_BYTES = 64 << 20
VALUE_BYTES = 16


class ArrowFile:
    """An Arrow file whose schema was read. Raises DataFileError, ColumnError."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        begin = file.read(len(MAGIC))
        if begin != MAGIC and not begin.startswith(CONTINUATION):
            raise DataFileError(
                f"{name} is no Arrow IPC; write it with pyarrow.ipc.new_file or new_stream, or with "
                "pyarrow.feather.write_feather (version 2)"
            )
        with arrow_errors(name):
            if begin != MAGIC:
                file.seek(max(0, file.seek(0, os.SEEK_END) - len(STREAM_END)))
                if file.read() != STREAM_END:
                    # Arrow would take what is there for all of it.
                    raise DataFileError(f"{name} is an Arrow stream that was cut off; write it again, to its end")
            self.names = tuple(_open(file).schema.names)
        check_names(self.names)

    def size_bytes(self, wanted: Sequence[str]) -> int:
        """See `TableFile`. What is compressed tells its size only when it is read, a batch at a time."""
        with arrow_errors(self._name):
            row_count = sum(batch.num_rows for batch in _batches(_open(self._file, 0)))
        return table_bytes(row_count, len(wanted), raw_bytes=self._file.seek(0, os.SEEK_END))

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> ArrowTable:
        """These columns of the file; see `TableFile`."""
        with arrow_errors(self._name):
            row_count = sum(batch.num_rows for batch in _batches(_open(self._file, 0)))
        return ArrowTable(self._file, self._name, self.names, row_count, tuple(categories))

    def cells(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """See `TableFile`."""
        with arrow_errors(self._name):
            for batch in _batches(_open(self._file, *sorted(self.names.index(name) for name in names))):
                for start in range(0, batch.num_rows, CELL_ROWS):
                    rows = batch.slice(start, CELL_ROWS)
                    yield [rows.column(name) for name in names]


@dataclass(frozen=True)
class ArrowTable:
    """See `Table`."""

    _file: BinaryIO
    _name: str
    _names: tuple[str, ...]
    row_count: int
    _categories: tuple[str, ...]
    # Columns that were read together, by their names.
    _read: dict[str, pa.ChunkedArray] = field(default_factory=dict, repr=False)

    def read(self, name: str) -> Column:
        """The column of that name. Raises ColumnError, DataFileError."""
        with arrow_errors(self._name):
            if name not in self._read:
                self._read_from(name)
            return column_of(self._read[name], name=name, is_category=name in self._categories)

    def _read_from(self, name: str) -> None:
        """Read the column, and those after it that fit into memory together, which are likely to be asked for next."""
        first = self._names.index(name)
        size_bytes = self._file.seek(0, os.SEEK_END) // len(self._names) + VALUE_BYTES * self.row_count
        count = max(1, TOGETHER_BYTES // max(1, size_bytes))
        places = range(first, min(first + count, len(self._names)))
        self._read.clear()
        columns = _open(self._file, *places).read_all().columns
        self._read.update(zip((self._names[place] for place in places), columns, strict=True))

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """See `Table`."""
        with arrow_errors(self._name):
            place_of = {name: place for place, name in enumerate(self._names)}
            for batch in _batches(_open(self._file, *sorted(place_of[name] for name in names))):
                for rows in block_slices(batch.num_rows, len(names)):
                    yield columns_of(batch.slice(rows.start, rows.stop - rows.start), names, self._categories)


def _open(file: BinaryIO, *columns: int) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """The file's reader, of all columns or of these."""
    file.seek(0)
    is_stream = file.read(len(MAGIC)) != MAGIC
    file.seek(0)
    options = pa.ipc.IpcReadOptions(included_fields=list(columns) or None)
    return (pa.ipc.open_stream if is_stream else pa.ipc.open_file)(pa.PythonFile(file, mode="r"), options=options)


def _batches(reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchStreamReader):
        yield from reader
    else:
        yield from map(reader.get_batch, range(reader.num_record_batches))
