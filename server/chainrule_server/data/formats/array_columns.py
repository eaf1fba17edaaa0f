"""Columns from NumPy's files: an .npz with an array for each column, or an .npy with a table or named fields.

Pickles are never read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from chainrule.cells.values import unusable
from chainrule_server.data.column_choice import check_names
from chainrule_server.data.columns import (
    CELL_ROWS,
    Column,
    ColumnError,
    Numbers,
    block_slices,
    texts_as_categories,
    whole_numbers_as_categories,
)
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.formats.npz_file import (
    array_names,
    array_size_bytes,
    arrays_size_bytes,
    numpy_errors,
    read_arrays,
    read_features,
)
from chainrule_server.data.size_checks import check_unpacked


class NpzFile:
    """An .npz file whose arrays are columns, (n,) each. Raises DataFileError, ColumnError."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.names = array_names(file)
        check_names(self.names)

    def size_bytes(self, wanted: Sequence[str]) -> int:
        """See `TableFile`."""
        return arrays_size_bytes(self._file, wanted)

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> ArrayTable:
        """These columns of the file; see `TableFile`."""
        arrays = read_arrays(self._file, wanted)
        for name, array in arrays.items():
            if array.ndim != 1:
                raise ColumnError(
                    f"{name!r} in {self._name} has shape {array.shape}; give a column a value a row, (n,)"
                )
            first, row_count = next((each, len(column)) for each, column in arrays.items())
            if len(array) != row_count:
                raise ColumnError(
                    f"{name!r} in {self._name} has {len(array)} rows, but {first!r} {row_count}; give each row all"
                )
        return ArrayTable(arrays, tuple(categories))

    def cells(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """See `TableFile`. What is no column among the others stands in each row by its name only."""
        found = {name: _column_or_reason(self._file, name) for name in names}
        lengths = Counter(len(array) for array in found.values() if not isinstance(array, str))
        if not lengths:
            reasons = "; ".join(f"{name!r} is {reason}" for name, reason in found.items())
            raise DataFileError(f"has no column of values: {reasons:.300}")
        row_count = lengths.most_common(1)[0][0]
        yield from _blocks([_filled(found[name], row_count) for name in names])


class NpzMatrix:
    """An .npz file with a matrix `features` (n, d), as the rows of a prediction. Raises DataFileError, ColumnError."""

    def __init__(self, file: BinaryIO) -> None:
        self._features, self.names = read_features(file)
        check_names(self.names)

    def cells(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """See `TableFile`."""
        yield from _blocks([self._features[:, self.names.index(name)] for name in names])


class NpyFile:
    """An .npy file: numbers of shape (n, columns), named x[0], x[1], …; or rows with named fields, shape (n,).

    Raises DataFileError, ColumnError."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        with numpy_errors(name):
            self._size_bytes = array_size_bytes(file)
            check_unpacked(self._size_bytes, name)
            file.seek(0)
            array = np.lib.format.read_array(file, allow_pickle=False)
        fields = array.dtype.names
        if fields is not None and array.ndim == 1:
            self._columns = {field: array[field] for field in fields}
        elif fields is None and array.ndim == 2:
            self._columns = {f"x[{index}]": array[:, index] for index in range(array.shape[1])}
        else:
            raise DataFileError(
                f"{name} holds {array.dtype} of shape {array.shape}; save shape (n, columns), or rows with named fields"
            )
        self.names = tuple(self._columns)
        check_names(self.names)

    def size_bytes(self, wanted: Sequence[str]) -> int:  # noqa: ARG002
        """See `TableFile`: an .npy file is read whole, when it is opened."""
        return self._size_bytes

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> ArrayTable:
        """These columns of the file; see `TableFile`."""
        return ArrayTable({name: self._columns[name] for name in wanted}, tuple(categories))

    def cells(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """See `TableFile`."""
        yield from _blocks([self._columns[name] for name in names])


@dataclass(frozen=True)
class ArrayTable:
    """Columns in memory. See `Table`."""

    _columns: Mapping[str, NDArray[Any]]
    _categories: tuple[str, ...]

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return len(next(iter(self._columns.values())))

    def read(self, name: str) -> Column:
        """The column of that name. Raises ColumnError."""
        return column_of(self._columns[name], name=name, is_category=name in self._categories)

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """See `Table`."""
        for rows in block_slices(self.row_count, len(names)):
            yield [
                column_of(self._columns[name][rows], name=name, is_category=name in self._categories) for name in names
            ]


def _column_or_reason(file: BinaryIO, name: str) -> NDArray[Any] | str:
    """The array of that name, or why it is no column."""
    try:
        array = read_arrays(file, [name])[name]
    except DataFileError as error:
        return str(error)
    return array if array.ndim == 1 else f"an array of shape {array.shape}"


def _filled(array: NDArray[Any] | str, row_count: int) -> NDArray[Any]:
    if not isinstance(array, str) and len(array) == row_count:
        return array
    reason = array if isinstance(array, str) else f"an array of {len(array)} rows where others have {row_count}"
    return np.array([unusable(reason)] * row_count, dtype=object)


def _blocks(columns: Sequence[NDArray[Any]]) -> Iterator[list[Any]]:
    for start in range(0, len(columns[0]) if columns else 0, CELL_ROWS):
        yield [column[start : start + CELL_ROWS] for column in columns]


def column_of(array: NDArray[Any], *, name: str, is_category: bool) -> Column:
    """An array (n,) as a column. is_category: its whole numbers are names. Raises ColumnError."""
    kind = array.dtype.kind
    if array.ndim == 1 and kind == "U":
        return texts_as_categories(array.tolist(), name=name)
    if array.ndim == 1 and kind == "b":
        return texts_as_categories(np.where(array, "true", "false").tolist(), name=name)
    if array.ndim == 1 and kind in "iu" and is_category:
        return texts_as_categories([str(value) for value in array.tolist()], name=name)
    if array.ndim != 1 or kind not in "fiu":
        raise ColumnError(
            f"{name!r} is an array of {array.dtype}; a column is float32, float64, whole numbers, texts or bool"
        )
    if is_category:
        return whole_numbers_as_categories(array, name=name)
    return Numbers(array.astype(np.float32 if kind == "f" and array.dtype.itemsize <= 4 else np.float64, copy=False))
