"""A table without some of its rows: those whose target nobody knows, where a job leaves them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chainrule_server.data.columns import Categories, Column, ColumnError, Numbers, Table, categories_from

REFUSE, LEAVE_OUT = "refuse", "leave_out"


@dataclass(frozen=True)
class KeptRows:
    """The rows of a table that are kept. kept: (n,) bool, a place for each row of the table. See `Table`."""

    table: Table
    kept: NDArray[np.bool_]

    @property
    def row_count(self) -> int:
        """The number of rows that are kept."""
        return int(np.count_nonzero(self.kept))

    def read(self, name: str) -> Column:
        """The column of that name. Raises ColumnError, DataFileError."""
        return kept_of(self.table.read(name), self.kept, name=name)

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """See `Table`."""
        start = 0
        for block in self.table.blocks(names):
            stop = start + _length(block[0])
            kept, start = self.kept[start:stop], stop
            if kept.any():
                yield [kept_of(column, kept, name=name) for name, column in zip(names, block, strict=True)]


def kept_of(column: Column, kept: NDArray[np.bool_], *, name: str) -> Column:
    """The rows of a column that are kept; its categories are those of these rows. Raises ColumnError."""
    if _length(column) != len(kept):
        raise ColumnError(
            f"{name!r} has {_length(column)} rows, but the target {len(kept)}; is the file being written?"
        )
    if isinstance(column, Numbers):
        return Numbers(column.values[kept])
    return categories_from(column.codes[kept], column.names, name=name)


def is_missing(column: Column) -> NDArray[np.bool_]:
    """(n,): where a column has no value."""
    return column.codes < 0 if isinstance(column, Categories) else np.isnan(column.values)


def _length(column: Column) -> int:
    return len(column.codes if isinstance(column, Categories) else column.values)
