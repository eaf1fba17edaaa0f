"""How much memory reading a table takes, from what its file says of itself, before any is spent on it.

Our own copies are counted: measured with one-byte numbers, the peak is 60 bytes for each row (the target, where each
row goes, the columns at hand) and 8 for each value, and of the block of rows that is prepared at the moment 24 for
each.
"""

from __future__ import annotations

from chainrule.process.available_memory import available_memory_bytes
from chainrule_server.data.columns import block_rows
from chainrule_server.data.data_root import DataFileError

ROW_BYTES = 64
VALUE_BYTES = 8
BLOCK_VALUE_BYTES = 24
# A text that was read is an object of Python's, besides its characters.
TEXT_BYTES = 100


def table_bytes(row_count: int, column_count: int, *, raw_bytes: int = 0) -> int:
    """What a table of so many rows and columns takes at most. raw_bytes: what is kept as it is in the file."""
    block_values = min(row_count, block_rows(column_count)) * column_count
    return raw_bytes + row_count * (ROW_BYTES + VALUE_BYTES * column_count) + BLOCK_VALUE_BYTES * block_values


def check_unpacked(size_bytes: int, what: str) -> None:
    """Refuse what unpacks to more bytes than this process can still take. Raises DataFileError."""
    free_bytes = available_memory_bytes()
    if free_bytes is not None and size_bytes > free_bytes:
        raise DataFileError(
            f"{what} unpacks to {size_bytes} bytes, but the server has {free_bytes} bytes of memory; take fewer rows"
        )


def check_row_count(row_count: int, column_count: int = 1) -> None:
    """Refuse a table that can't be held. Raises DataFileError."""
    free_bytes, size_bytes = available_memory_bytes(), table_bytes(row_count, column_count)
    if free_bytes is not None and size_bytes > free_bytes:
        raise DataFileError(
            f"has {row_count} rows, which take about {size_bytes} bytes while they are read, too many for the "
            f"{free_bytes} bytes of memory that the server has left; take fewer"
        )
