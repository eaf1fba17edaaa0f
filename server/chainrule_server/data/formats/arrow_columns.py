"""Columns of Arrow as numbers or categories, and Arrow's errors as ours.

Arrow reads CSV, Parquet and its own files. What it gives is checked whole before it is looked at: a broken file must
not make it read beyond an array's end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chainrule.cells.values import decimals_as_numbers, is_arrow_text
from chainrule_server.data.columns import (
    Categories,
    Column,
    ColumnError,
    Numbers,
    categories_from,
    too_many,
    whole_numbers_as_categories,
)
from chainrule_server.data.data_root import DataFileError

# Texts are encoded in parts, and one with more different values than this is given up before all of it is read.
MOST_CODES = 1 << 20


@contextmanager
def arrow_errors(name: str) -> Iterator[None]:
    """Turn what Arrow raises on a file into DataFileError. name: of the file."""
    try:
        yield
    except MemoryError:
        raise DataFileError(f"{name} does not fit into the memory of the server; take fewer rows or columns") from None
    except (ColumnError, DataFileError):
        raise
    # Its exceptions are ValueErrors, KeyErrors and so on too; a text that is no UTF-8 is a ValueError.
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataFileError(f"{name} can't be read: {first_line[:300]}") from None


def column_of(values: pa.ChunkedArray, *, name: str, is_category: bool) -> Column:
    """A column of a file. is_category: its whole numbers are names. Raises ColumnError.

    Numbers are float32 where the file has them so, else float64: nothing is lost but of whole numbers beyond 2⁵³."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], type=kind)
    values.validate(full=True)
    if pa.types.is_dictionary(kind) and not is_arrow_text(kind.value_type):
        values, kind = values.cast(kind.value_type), kind.value_type
        is_category = is_category or pa.types.is_integer(kind)
    if pa.types.is_boolean(kind) or (is_category and pa.types.is_integer(kind)):
        return _categories(values.cast(pa.string()), name)
    if is_arrow_text(kind) or (pa.types.is_dictionary(kind) and is_arrow_text(kind.value_type)):
        return _categories(values, name)
    if pa.types.is_null(kind):
        return Numbers(np.full(len(values), np.nan))
    if pa.types.is_temporal(kind):
        raise ColumnError(
            f"{name!r} holds {kind}, and dates and times are not learnt from as they are; write what matters of them "
            f'as numbers (days since a day, the hour, the weekday), or leave it out: data.exclude = ["{name}"]'
        )
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise ColumnError(
            f"{name!r} holds {kind}; a column is numbers, texts or true and false; "
            f'leave it out: data.exclude = ["{name}"]'
        )
    numbers = _numbers(values, kind)
    return whole_numbers_as_categories(numbers, name=name) if is_category else Numbers(numbers)


def columns_of(rows: pa.RecordBatch | pa.Table, names: Sequence[str], categories: Collection[str]) -> list[Column]:
    """These columns of some rows, as `column_of`. Raises ColumnError."""
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    return [column_of(table[name], name=name, is_category=name in categories) for name in names]


def _numbers(values: pa.ChunkedArray, kind: pa.DataType) -> NDArray[Any]:
    if pa.types.is_decimal(kind):
        values = decimals_as_numbers(values)
    is_small = pa.types.is_float16(kind) or pa.types.is_float32(kind)
    numbers = np.empty(len(values), dtype=np.float32 if is_small else np.float64)
    start = 0
    for chunk in values.chunks:
        # Missing values become NaN.
        numbers[start : start + len(chunk)] = chunk.to_numpy(zero_copy_only=False)
        start += len(chunk)
    return numbers


def _categories(values: pa.ChunkedArray, name: str) -> Categories:
    code_of: dict[str, int] = {}
    codes = np.empty(len(values), dtype=np.int32)
    start = 0
    for chunk in values.chunks:
        if not pa.types.is_dictionary(chunk.type):
            if pa.types.is_string_view(chunk.type):
                chunk = chunk.cast(pa.large_string())
            chunk = pc.dictionary_encode(chunk)
        places = chunk.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        # A dictionary may hold entries that no row has.
        used = np.unique(places[places >= 0])
        if len(code_of) + len(used) > MOST_CODES:
            raise too_many(name, len(code_of) + len(used))
        names = chunk.dictionary.take(pa.array(used)).to_pylist()
        code_at = np.full(len(chunk.dictionary) + 1, -1, dtype=np.int32)
        code_at[used] = [-1 if each is None else code_of.setdefault(each, len(code_of)) for each in names]
        codes[start : start + len(chunk)] = code_at[places]
        start += len(chunk)
    return categories_from(codes, list(code_of), name=name)
