"""Columns as they come out of a data set, before anything is learnt from them, and what gives them.

A column is numbers or categories. Whoever reads a format gives its columns one at a time, by name, so that never more
than one or two of them are in memory beside the prepared rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chainrule.cells.texts import CellRules

# Each category is a column of what the model sees. A text with more values is a name or a remark.
MAX_CATEGORIES = 1000
# Of 30 columns they fit into a processor's cache.
BLOCK_ROWS = 1 << 16
# Of a table of many columns a block has fewer rows, for so many values at most; but not too few, as each takes time.
BLOCK_VALUES = 1 << 24
LEAST_BLOCK_ROWS = 256
# Cells become objects of Python's.
CELL_ROWS = 1 << 13


class ColumnError(ValueError):
    """A column, or a choice of columns, that can't be used; the message names it.

    field: the path in the job's spec that is wrong."""

    def __init__(self, message: str, *, field: str = "data.uri") -> None:
        self.field = field
        super().__init__(message)


@dataclass(frozen=True)
class Numbers:
    """values: (n,) float32 or float64; NaN where there is none."""

    values: NDArray[Any]


@dataclass(frozen=True)
class Categories:
    """codes: (n,) int32 places in `names`, -1 where there is none. names: sorted, each of them in some row."""

    codes: NDArray[np.int32]
    names: tuple[str, ...]


Column = Numbers | Categories


class Table(Protocol):
    """Columns of one or several files, read when they are asked for."""

    @property
    def row_count(self) -> int:
        """The number of rows."""

    def read(self, name: str) -> Column:
        """The column of that name. Raises ColumnError, DataFileError."""

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """These columns, at most BLOCK_ROWS rows at a time, in order. Raises ColumnError, DataFileError.

        A block's categories are those of its own rows; where it has no value the kind of a column isn't known."""


class CellFile(Protocol):
    """A file that was opened as far as the names of its columns."""

    names: tuple[str, ...]

    def cells(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """These columns as they stand in the file, some rows at a time, in order: arrays of Arrow, or of NumPy (n,).

        Whatever they hold is given: nobody has said yet that it is needed. A CSV file's are bytes, null where there is
        none. Raises DataFileError."""


class TableFile(CellFile, Protocol):
    """A file of columns that a job can learn from."""

    def size_bytes(self, wanted: Sequence[str]) -> int:
        """What reading these columns takes of memory at most, our own copies too; found out without reading them.

        Raises DataFileError."""

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> Table:
        """These columns of the file. categories: those whose whole numbers are names.

        Raises ColumnError, DataFileError."""


class Rows(Protocol):
    """A data set: features by their place, and the target.

    target: (n,) float64, or int64 numbers of `classes`, which are sorted."""

    @property
    def uri(self) -> str: ...

    @property
    def feature_names(self) -> tuple[str, ...]: ...

    @property
    def target_name(self) -> str: ...

    @property
    def target(self) -> NDArray[Any]: ...

    @property
    def classes(self) -> tuple[str, ...] | None: ...

    def feature(self, index: int) -> Column:
        """The feature with that place in `feature_names`. Raises ColumnError, DataFileError."""

    def blocks(self) -> Iterator[list[Column]]:
        """All features, at most BLOCK_ROWS rows at a time, in order. See `Table`."""


def block_rows(column_count: int) -> int:
    """The rows of a block of so many columns."""
    return min(BLOCK_ROWS, max(LEAST_BLOCK_ROWS, BLOCK_VALUES // max(1, column_count)))


def block_slices(row_count: int, column_count: int) -> list[slice]:
    """Where the blocks of so many rows and columns are."""
    step = block_rows(column_count)
    return [slice(start, min(start + step, row_count)) for start in range(0, row_count, step)]


def categories_from(codes: NDArray[np.int32], names: Sequence[str], *, name: str) -> Categories:
    """Codes of names in any order, as codes of the sorted names that occur. Raises ColumnError for too many.

    codes: -1 where there is none. names: each of them once. name: the column's."""
    used = np.zeros(len(names), dtype=bool)
    used[codes[codes >= 0]] = True
    if used.sum() > MAX_CATEGORIES:
        raise too_many(name, int(used.sum()))
    # Sorted: what the model sees must not depend on which row comes first. An entry more: -1 stays -1.
    order = sorted(np.flatnonzero(used).tolist(), key=names.__getitem__)
    place_of = np.full(len(names) + 1, -1, dtype=np.int32)
    place_of[order] = np.arange(len(order))
    return Categories(place_of[codes], tuple(names[index] for index in order))


def too_many(name: str, count: int) -> ColumnError:
    """The error for a column with so many categories."""
    return ColumnError(
        f"{name!r} has {count} different values, but each is a column for the model and {MAX_CATEGORIES} are the "
        f'most; leave it out with data.exclude = ["{name}"], or group its values'
    )


def whole_numbers_as_categories(values: NDArray[Any], *, name: str) -> Categories:
    """Whole numbers as the names that they are. values: (n,); NaN where there is none. Raises ColumnError."""
    present = ~np.isnan(values)
    if not np.equal(values[present], np.rint(values[present])).all() or np.isinf(values).any():
        row = np.flatnonzero(present & ~(np.isfinite(values) & (values == np.rint(values))))[0]
        raise ColumnError(
            f"{name!r} is {values[row]:g} in row {row} (counted from 0); a category is a text, a whole number or true "
            "or false",
            field="data.categories",
        )
    numbers, places = np.unique(values[present], return_inverse=True)
    codes = np.full(len(values), -1, dtype=np.int32)
    codes[present] = places
    return categories_from(codes, [str(int(number)) for number in numbers], name=name)


def texts_as_categories(values: Sequence[str | None] | NDArray[np.str_], *, name: str) -> Categories:
    """Texts as categories; None where there is none. Raises ColumnError for too many."""
    code_of: dict[str, int] = {}
    codes = [-1 if value is None else code_of.setdefault(str(value), len(code_of)) for value in values]
    return categories_from(np.array(codes, dtype=np.int32), list(code_of), name=name)


def with_missing(column: Column, rules: CellRules, *, name: str) -> Column:
    """The column without the values that a job calls missing. name: the column's."""
    if isinstance(column, Numbers):
        if not rules.numbers:
            return column
        marked = np.isin(column.values, np.array(sorted(rules.numbers)))
        return Numbers(np.where(marked, np.array(np.nan, column.values.dtype), column.values))
    if not rules.given & set(column.names):
        return column
    is_marker = np.array([each in rules.given for each in column.names] + [False])
    return categories_from(np.where(is_marker[column.codes], -1, column.codes), column.names, name=name)


def joined(parts: Sequence[Column], *, name: str, files: Sequence[str]) -> Column:
    """One column from its parts in several files, in their order. Raises ColumnError where they differ in kind."""
    if len(parts) == 1:
        return parts[0]
    numbers = [part for part in parts if isinstance(part, Numbers)]
    if len(numbers) == len(parts):
        return Numbers(np.concatenate([part.values for part in numbers]))
    names: dict[str, int] = {}
    codes = []
    for part, file in zip(parts, files, strict=True):
        if isinstance(part, Categories):
            place_of = np.array([names.setdefault(each, len(names)) for each in part.names] + [-1], dtype=np.int32)
            codes.append(place_of[part.codes])
        elif np.isnan(part.values).all():
            # A file in which every value is missing tells no kind.
            codes.append(np.full(len(part.values), -1, dtype=np.int32))
        else:
            other = next(each for each, kind in zip(files, parts, strict=True) if isinstance(kind, Categories))
            raise ColumnError(
                f"{name!r} holds text in {other}, but numbers in {file}; write the files with one type, or, where the "
                f'numbers are names, say data.categories = ["{name}"]'
            )
    return categories_from(np.concatenate(codes), list(names), name=name)


def is_number(text: str) -> bool:
    """Whether a text is a finite number, such as "-1.5e3"."""
    try:
        # Python's underscores are no part of a number in a file.
        return "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def in_rows(rows: NDArray[np.intp], *, first_row: int = 0) -> str:
    """'in row 17 (counted from 0) and in 3 more'. rows: at least one, ascending, counted from first_row."""
    more = f" and in {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"in row {first_row + rows[0]} (counted from 0){more}"
