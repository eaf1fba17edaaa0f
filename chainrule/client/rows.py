"""Rows as people have them (arrays, lists, dicts of columns, data frames) to requests of predictions, and answers back
to arrays. pandas is used where it is there and never loaded."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.model_requests import Value
from chainrule.errors import RowsError
from chainrule.v1 import model_service_pb2 as api

# What a call takes: so many rows, and about so many values, which are 2 MiB then.
CALL_ROWS = 10_000
CALL_VALUES = 150_000
Rows = list[list[Value]]


def rows_of(data: Any) -> tuple[Rows, list[str]]:
    """The rows' values, and the names of the columns, or no names. Raises RowsError.

    data: (n, d) or (d,) numbers, a list of rows, a dict from names to columns, or a data frame; one row may stand by
    itself: a list of values, or a dict from names to values."""
    if hasattr(data, "columns") and hasattr(data, "itertuples"):
        names = [str(name) for name in data.columns]
        return [_named_row(names, row) for row in data.itertuples(index=False, name=None)], names
    if hasattr(data, "index") and hasattr(data, "items") and not isinstance(data, Mapping):
        # A row of a data frame. A column's index holds no names, and its values are as those of an array.
        names = list(data.index)
        if names and all(isinstance(name, str) for name in names):
            return [_named_row(names, data.tolist())], names
    if isinstance(data, Mapping):
        return _rows_of_columns(data)
    array = data if hasattr(data, "__array__") or hasattr(data, "ndim") else None
    if array is not None:
        array = np.asarray(array)
        if array.ndim not in (1, 2):
            raise RowsError(
                f"an array of shape {array.shape} has no rows; give (rows, features), or (features,) for one row"
            )
        return [[plain(value) for value in row] for row in np.atleast_2d(array).tolist()], []
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise RowsError(
            f"rows are an array, a list of lists, a dict of columns or a data frame, got a {type(data).__name__}"
        )
    if data and isinstance(data[0], Mapping):
        names = [str(name) for name in data[0]]
        if any(not isinstance(row, Mapping) or set(row) != set(data[0]) for row in data):
            raise RowsError("the rows' names differ; give every row the same keys")
        return [[plain(row[name]) for name in data[0]] for row in data], names
    if data and not (isinstance(data[0], Sequence | np.ndarray) and not isinstance(data[0], str)):
        return [[plain(value) for value in data]], []
    return [[plain(value) for value in row] for row in data], []


def batches(rows: Rows) -> Iterator[Rows]:
    """Rows for one call each."""
    count = rows_in_a_call(len(rows[0]) if rows else 1)
    for start in range(0, max(len(rows), 1), count):
        yield rows[start : start + count]


def rows_in_a_call(width: int) -> int:
    """How many rows of so many values go into one call."""
    return max(1, min(CALL_ROWS, CALL_VALUES // max(width, 1)))


def predictions_of(responses: Sequence[api.PredictResponse]) -> NDArray[Any]:
    """What is predicted for each row: numbers in the target's own unit, names of classes, or the outputs themselves."""
    found = [each for response in responses for each in response.predictions]
    if found and found[0].HasField("value"):
        return np.array([each.value for each in found])
    if found and found[0].HasField("class_name"):
        return np.array([each.class_name for each in found])
    return outputs_of(responses)


def outputs_of(responses: Sequence[api.PredictResponse]) -> NDArray[np.float64]:
    """What the formula gives for each row: (rows,) for numbers, else (rows, elements)."""
    found = np.array([list(each.outputs) for response in responses for each in response.predictions])
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found


def plain(value: Any) -> Value:
    """The value as a request takes it; what pandas and numpy have for 'missing' is None. Raises RowsError."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, numbers.Real):
        number = float(value)
        return None if math.isnan(number) else number
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    raise RowsError(f"a value is a number, a text, true or false, or None, got a {type(value).__name__}")


def _named_row(names: Sequence[str], row: Sequence[Any]) -> list[Value]:
    """Raises RowsError that names the column."""
    values = []
    for name, value in zip(names, row, strict=True):
        try:
            values.append(plain(value))
        except RowsError as error:
            raise RowsError(f"column {name!r}: {error}") from None
    return values


def _rows_of_columns(table: Mapping[Any, Any]) -> tuple[Rows, list[str]]:
    names = [str(name) for name in table]
    columns = [column.tolist() if hasattr(column, "tolist") else column for column in table.values()]
    if columns and all(column is None or isinstance(column, bool | str | numbers.Real) for column in columns):
        return [[plain(value) for value in columns]], names
    for name, column in zip(names, columns, strict=True):
        if not isinstance(column, Sequence) or isinstance(column, str):
            raise RowsError(
                f"column {name!r} is a {type(column).__name__}; give a list of its values, one for each row"
            )
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        raise RowsError(f"the columns have different lengths, {lengths}; give each a value for every row")
    return [[plain(value) for value in row] for row in zip(*columns, strict=True)], names
