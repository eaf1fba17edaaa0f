"""Pieces of text for people: numbers, durations, tables, and whatever came from outside made harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

# A column of a table isn't cut to less.
LEAST_COLUMN = 8

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.timestamp_pb2 import Timestamp


def one_line(text: str) -> str:
    """The text with everything that isn't printable written as an escape, line breaks as spaces."""
    joined = " ".join(part for part in text.splitlines() if part.strip())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in joined)


def json_line(value: Any) -> str:
    """One line of JSON. Whatever isn't printable is an escape there too, as characters that a terminal obeys, or that
    turn the direction of what follows: the same text to whoever parses it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def harmless(text: str) -> str:
    """The text, which may have several lines, with every character but line ends and tabs that isn't printable as an
    escape."""
    return "".join(each if each in "\n\t\xa0" or each.isprintable() else ascii(each)[1:-1] for each in text)


def number(value: float, digits: int = 6) -> str:
    """So many significant digits."""
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """'4.2 s', '3:07' or '2:03:07'."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(size_bytes: int) -> str:
    """'512 B', '3.4 KiB', '1.2 GiB'."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.1f} {unit}" if unit != "B" else f"{size_bytes} B"
        value /= 1024
    return f"{value:.1f} GiB"


def workers(count: int, *, resting: int = 0) -> str:
    """'1 worker', '2 workers'; with those that rest: '1 worker, 1 too slow'."""
    return f"{count} worker{'' if count == 1 else 's'}" + (f", {resting} too slow" if resting else "")


def table_lines(rows: Sequence[Sequence[str]], *, width: int | None = None) -> list[str]:
    """Rows as columns, two spaces apart, each as wide as its widest entry.

    width: so wide are the lines at most: the widest columns are cut, as far as LEAST_COLUMN, with an ellipsis."""
    safe = [[one_line(entry) for entry in row] for row in rows]
    widths = [max(len(entry) for entry in column) for column in zip(*safe, strict=True)]
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > LEAST_COLUMN:
        widths[widths.index(max(widths))] -= 1
    return [
        "  ".join(_fitted(entry, room).ljust(room) for entry, room in zip(row, widths, strict=True)).rstrip()
        for row in safe
    ]


def _fitted(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def shortened_list(names: Sequence[str], most: int = 20) -> str:
    """The first names with commas between them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"{name:.80}" for name in names[:most]) + more


def time_text(time: Timestamp) -> str:
    """A time in UTC, to the second."""
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")


def enum_names(enum: EnumDescriptor) -> dict[int, str]:
    """'PARTIAL_SUMS' for WAITING_REASON_PARTIAL_SUMS: each value's name without the prefix that its enum gives all."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    return {value.number: str(value.name).removeprefix(prefix) for value in enum.values}
