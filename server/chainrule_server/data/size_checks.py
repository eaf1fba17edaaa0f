"""Whether what a file claims to hold can be held, before any memory is spent on it."""

from __future__ import annotations

from chainrule.process.available_memory import available_memory_bytes
from chainrule_server.data.data_root import DataFileError

# A column as Arrow gives it, the same as numbers, and the mask of what is missing, are in memory together.
BYTES_A_ROW = 24


def check_unpacked(size_bytes: int, what: str) -> None:
    """Refuse what unpacks to more bytes than this process can still take. Raises DataFileError."""
    free_bytes = available_memory_bytes()
    if free_bytes is not None and size_bytes > free_bytes:
        raise DataFileError(
            f"{what} unpacks to {size_bytes} bytes, but the server has {free_bytes} bytes of memory; take fewer rows"
        )


def check_row_count(row_count: int) -> None:
    """Refuse more rows than one column of which can be held. Raises DataFileError."""
    free_bytes = available_memory_bytes()
    if free_bytes is not None and BYTES_A_ROW * row_count > free_bytes:
        raise DataFileError(
            f"has {row_count} rows, too many for the {free_bytes} bytes of memory that the server has left; take fewer"
        )
