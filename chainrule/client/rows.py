"""Rows as people have them (arrays, lists, dicts of columns, data frames) to requests of predictions, and answers back
to arrays. pandas is used where it is there and never loaded."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.cells.values import UNUSABLE, Value, arrow_values, value_of
from chainrule.errors import RowsError
from chainrule.v1 import model_service_pb2 as api

# What a call takes: so many rows, and about so many values, which are 2 MiB then.
CALL_ROWS = 10_000
CALL_VALUES = 150_000
# How others give what they hold: Arrow's interfaces.
ARROW_PROTOCOLS = ("__arrow_c_stream__", "__arrow_c_array__")
Rows = list[list[Value]]


def rows_of(data: Any) -> tuple[Rows, list[str]]:
    """The rows' values, and the names of the columns, or no names. Raises RowsError.

    data: (n, d) or (d,) numbers, a list of rows, a dict from names to columns, a data frame of pandas or polars, or a
    table or record batch of Arrow; one row may stand by itself: a list of values, or a dict from names to values.
    Whatever has names is read by them. A named column may hold what is no value: the model may not need it."""
    if hasattr(data, "columns") and hasattr(data, "itertuples"):
        names = [str(name) for name in data.columns]
        return [list(map(value_of, row)) for row in data.itertuples(index=False, name=None)], names
    if hasattr(data, "index") and hasattr(data, "items") and not isinstance(data, Mapping):
        # A row of a data frame. A column's index holds no names, and its values are as those of an array.
        names = list(data.index)
        if names and all(isinstance(name, str) for name in names):
            return [list(map(value_of, data.tolist()))], names
    if isinstance(data, Mapping):
        return _rows_of_columns(data)
    if _is_named(data):
        return _rows_of_arrow(data)
    array = data if hasattr(data, "__array__") or hasattr(data, "ndim") else None
    if array is not None:
        return _rows_of_array(np.asarray(array))
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise RowsError(
            "rows are an array, a list of lists, a dict of columns, a data frame or a table of Arrow, got a "
            f"{type(data).__name__}"
        )
    if data and isinstance(data[0], Mapping):
        names = [str(name) for name in data[0]]
        if any(not isinstance(row, Mapping) or set(row) != set(data[0]) for row in data):
            raise RowsError("the rows' names differ; give every row the same keys")
        return [[value_of(row[name]) for name in data[0]] for row in data], names
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
    found = value_of(value)
    if isinstance(found, Mapping):
        raise RowsError(f"a value is a number, a text, true or false, or None, got {found[UNUSABLE]}")
    return found


def _is_named(data: Any) -> bool:
    """Whether data know the names of their columns, in the ways of Arrow and of data frames."""
    if any(hasattr(data, name) for name in ("columns", "column_names", "__dataframe__")):
        return True
    # One column by itself has no names, and is read as an array.
    return any(hasattr(data, name) for name in ARROW_PROTOCOLS) and not hasattr(data, "__array__")


def _rows_of_arrow(data: Any) -> tuple[Rows, list[str]]:
    """Rows of what gives itself to Arrow: a frame of polars, a table, a record batch. Raises RowsError."""
    kind = type(data).__name__
    try:
        import pyarrow as pa
        import pyarrow.interchange as interchange
    except ImportError:
        raise RowsError(
            f"a {kind} is read by pyarrow, which is not installed: pip install 'chainrule[data]', or give a dict of "
            "columns"
        ) from None
    try:
        if isinstance(data, pa.Table):
            table = data
        elif any(hasattr(data, name) for name in ARROW_PROTOCOLS):
            batch = not hasattr(data, "__arrow_c_stream__")
            table = pa.Table.from_batches([pa.record_batch(data)]) if batch else pa.table(data)
        elif hasattr(data, "__dataframe__"):
            table = interchange.from_dataframe(data)
        else:
            raise RowsError(
                f"a {kind} has names of columns, but no way to its values by them; collect it into a data frame of "
                "pandas or polars, or give a dict of columns"
            )
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise RowsError(f"a {kind} has no rows with named columns: {first_line}; give a data frame") from None
    columns = [arrow_values(column) for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in range(table.num_rows)]
    return rows, list(table.column_names)


def _rows_of_array(array: NDArray[Any]) -> tuple[Rows, list[str]]:
    """Rows of an array: by the names of its fields where it has them. Raises RowsError."""
    names = array.dtype.names
    if names is not None:
        return [list(map(value_of, row)) for row in np.atleast_1d(array).ravel().tolist()], list(names)
    if array.ndim not in (1, 2):
        raise RowsError(
            f"an array of shape {array.shape} has no rows; give (rows, features), or (features,) for one row"
        )
    return [[plain(value) for value in row] for row in np.atleast_2d(array).tolist()], []


def _rows_of_columns(table: Mapping[Any, Any]) -> tuple[Rows, list[str]]:
    names = [str(name) for name in table]
    columns = [_listed(column) for column in table.values()]
    if columns and all(not isinstance(column, Sequence) or isinstance(column, str | bytes) for column in columns):
        for name, column in zip(names, columns, strict=True):
            if not _is_scalar(column):
                raise _no_column(name, column)
        return [list(map(value_of, columns))], names
    for name, column in zip(names, columns, strict=True):
        if not isinstance(column, Sequence) or isinstance(column, str | bytes):
            raise _no_column(name, column)
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        raise RowsError(f"the columns have different lengths, {lengths}; give each a value for every row")
    return [list(map(value_of, row)) for row in zip(*columns, strict=True)], names


def _listed(column: Any) -> Any:
    """A column as a list: of NumPy and pandas, of Arrow, of polars."""
    for method in ("tolist", "to_pylist", "to_list"):
        if hasattr(column, method):
            return getattr(column, method)()
    return column


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | str | numbers.Real) or not isinstance(value_of(value), Mapping)


def _no_column(name: str, column: Any) -> RowsError:
    return RowsError(f"column {name!r} is a {type(column).__name__}; give a list of its values, one for each row")
