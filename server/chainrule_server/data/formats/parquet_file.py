"""Rows from a Parquet file: a column is read when it is asked for, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from chainrule_server.data.column_choice import check_names
from chainrule_server.data.columns import BLOCK_ROWS, CELL_ROWS, Column
from chainrule_server.data.formats.arrow_columns import arrow_errors, column_of, columns_of


class ParquetFile:
    """A Parquet file whose schema was read. Raises DataFileError, ColumnError."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._name = name
        with arrow_errors(name):
            self._file = pq.ParquetFile(pa.PythonFile(file, mode="r"))
            self.names = tuple(self._file.schema_arrow.names)
        check_names(self.names)

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> ParquetTable:
        """These columns of the file; see `TableFile`."""
        return ParquetTable(self._file, self._name, tuple(categories))

    def cells(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """See `TableFile`."""
        with arrow_errors(self._name):
            for group in range(self._file.num_row_groups):
                for batch in self._file.iter_batches(CELL_ROWS, row_groups=[group], columns=list(names)):
                    yield [batch.column(name) for name in names]


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
            # By name: asked for "a", Parquet gives "a.b" too.
            values = self._file.read(columns=[name])[name]
            return column_of(values, name=name, is_category=name in self._categories)

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """See `Table`."""
        with arrow_errors(self._name):
            # A row group at a time: over all of them the reader would keep what it has read.
            for group in range(self._file.num_row_groups):
                for batch in self._file.iter_batches(BLOCK_ROWS, row_groups=[group], columns=list(names)):
                    yield columns_of(batch, names, self._categories)
