"""Rows from a Parquet file: a column is read when it is asked for, and no other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from chainrule_server.data.column_choice import check_names
from chainrule_server.data.columns import CELL_ROWS, Column, block_rows
from chainrule_server.data.formats.arrow_columns import arrow_errors, column_of, columns_of
from chainrule_server.data.size_checks import table_bytes

# Numbers, whose values have a place each in memory; of all else the file says how much there is.
NUMBERS = ("BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE")


class ParquetFile:
    """A Parquet file whose schema was read. Raises DataFileError, ColumnError."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._name = name
        with arrow_errors(name):
            self._file = pq.ParquetFile(pa.PythonFile(file, mode="r"))
            schema = self._file.schema_arrow
            self.names = tuple(schema.names)
            # Texts stay as a file has them, each once: written out, a file of a kilobyte may be gigabytes.
            texts = [field.name for field in schema if pa.types.is_string(field.type)]
            self._encoded = pq.ParquetFile(
                pa.PythonFile(file, mode="r"), metadata=self._file.metadata, read_dictionary=texts
            )
        check_names(self.names)

    def size_bytes(self, wanted: Sequence[str]) -> int:
        """See `TableFile`."""
        metadata, names, raw_bytes = self._file.metadata, set(wanted), 0
        with arrow_errors(self._name):
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                for column in map(group.column, range(group.num_columns)):
                    if column.physical_type not in NUMBERS and _is_of(column, names):
                        raw_bytes += column.total_uncompressed_size
        return table_bytes(metadata.num_rows, len(names), raw_bytes=raw_bytes)

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> ParquetTable:
        """These columns of the file; see `TableFile`."""
        return ParquetTable(self._encoded, self._name, tuple(categories))

    def cells(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """See `TableFile`."""
        with arrow_errors(self._name):
            for group in range(self._file.num_row_groups):
                for batch in self._file.iter_batches(CELL_ROWS, row_groups=[group], columns=list(names)):
                    yield [batch.column(name) for name in names]


def _is_of(column: pq.ColumnChunkMetaData, names: Collection[str]) -> bool:
    """Whether a column of a file is one of these, or part of one that is a list or a struct."""
    path = column.path_in_schema
    return path in names or path.partition(".")[0] in names


@dataclass(frozen=True)
class ParquetTable:
    """See `Table`."""

    _file: pq.ParquetFile
    _name: str
    _categories: tuple[str, ...]

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return int(self._file.metadata.num_rows)

    def read(self, name: str) -> Column:
        """The column of that name. Raises ColumnError, DataFileError."""
        with arrow_errors(self._name):
            kind = self._file.schema_arrow.field(name).type
            if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                # Refused for its type, before anything of it is read.
                return column_of(pa.chunked_array([], type=kind), name=name, is_category=False)
            # By name: asked for "a", Parquet gives "a.b" too.
            values = self._file.read(columns=[name])[name]
            return column_of(values, name=name, is_category=name in self._categories)

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """See `Table`."""
        with arrow_errors(self._name):
            # A row group at a time: over all of them the reader would keep what it has read.
            for group in range(self._file.num_row_groups):
                for batch in self._file.iter_batches(block_rows(len(names)), row_groups=[group], columns=list(names)):
                    yield columns_of(batch, names, self._categories)
