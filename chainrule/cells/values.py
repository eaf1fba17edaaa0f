"""Values as people and files have them become those of a request: numbers, texts, true and false, or None.

A column that the model doesn't use may hold anything. So what can't be a value is no error here: it goes as an object
that says what it is, and whoever needs it as a feature refuses it by that.
"""

from __future__ import annotations

import decimal
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from google.protobuf import struct_pb2
    from numpy.typing import NDArray

# A value of a request: google.protobuf.Value.
Value = float | bool | str | None | Mapping[str, str]
# The one key of the object that stands for something that is no value.
UNUSABLE = "unusable"
# Whole numbers beyond have no double of their own.
EXACT_INT = 1 << 53
MISSING_TYPES = ("NAType", "NaTType")


def unusable(what: str) -> Value:
    """What stands for something that is no value. what: "a date", "a Timestamp"."""
    return {UNUSABLE: what[:200]}


def add_row(row: struct_pb2.ListValue, values: Iterable[Value]) -> None:
    """Put values into a row of a request."""
    row.extend(cast("Iterable[Any]", values))


def value_of(value: Any) -> Value:
    """The value as a request takes it; what pandas and numpy have for 'missing' is None."""
    if value is None or isinstance(value, bool | str):
        return _text(value) if isinstance(value, str) else value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, int):
        # As a text it keeps its digits: it may be a name.
        return float(value) if -EXACT_INT <= value <= EXACT_INT else str(value)
    if hasattr(value, "dtype") and getattr(value, "ndim", 0) == 0 and hasattr(value, "item"):
        item = value.item()
        return value_of(item) if not hasattr(item, "dtype") else value_of(float(item))
    if isinstance(value, numbers.Real | decimal.Decimal):
        number = float(value)
        return None if math.isnan(number) else number
    if type(value).__name__ in MISSING_TYPES:
        return None
    if isinstance(value, Mapping) and set(value) == {UNUSABLE}:
        return unusable(str(value[UNUSABLE]))
    return unusable(_article(type(value).__name__))


def array_values(column: NDArray[Any]) -> list[Value]:
    """The values of an array (n,) of NumPy, one for each row."""
    if column.dtype.kind in "fiubUO":
        return [value_of(value) for value in column.tolist()]
    return [unusable(f"a {column.dtype}")] * len(column)


def arrow_values(column: Any) -> list[Value]:
    """The values of a column of Arrow, a pyarrow.Array or ChunkedArray, one for each row."""
    import pyarrow as pa

    if not isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array([column])
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], type=kind)
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_decimal(kind):
        column = decimals_as_numbers(column)
    elif not (
        is_arrow_text(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_null(kind)
    ):
        there = column.is_valid().to_pylist()
        stands = unusable(f"a {kind}")
        return [stands if is_there else None for is_there in there]
    column.validate(full=True)
    return [value_of(value) for value in column.to_pylist()]


def is_arrow_text(kind: Any) -> bool:
    """Whether a type of Arrow is one of texts."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def decimals_as_numbers(column: Any) -> Any:
    """Decimals of Arrow as the nearest float64 each, as a CSV file's would be: a direct cast is off by a last digit."""
    import pyarrow as pa

    return column.cast(pa.string()).cast(pa.float64())


def _text(text: str) -> Value:
    # A lone half of a pair has no place in UTF-8.
    return text if text.isascii() or _is_utf8(text) else unusable("a text that is not UTF-8")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _article(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeio" else f"a {name}"
