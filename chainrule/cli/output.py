"""What commands print: JSON on standard output, lines and tables for people, errors on standard error.

Everything is plain text that is printed as it is: neither a server's message nor a name can bring markup, control
characters or a second line along.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from chainrule.text import harmless, json_line, one_line, table_lines


def print_line(text: str = "") -> None:
    """A line on standard output, or several: what a name brings along that isn't printable is written as an escape."""
    sys.stdout.write(harmless(text) + "\n")
    sys.stdout.flush()


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows as columns on standard output, cut to the terminal's width where it is one; a file or a pipe gets all."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table_lines(rows, width=width):
        print_line(line)


def print_json(value: Mapping[str, Any]) -> None:
    """One line of JSON on standard output; NaN and infinity, which JSON lacks, become null."""
    print_line(json_line(_finite(value)))


def print_note(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(one_line(text) + "\n")
    sys.stderr.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
