"""What divides the columns of a CSV file that nobody has described yet: a guess for a proposal, never for a job.

A job reads what its file says; here the first lines are looked at, so that a person needs not know the words for it.
"""

from __future__ import annotations

import csv
import io
import re
from typing import BinaryIO

from chainrule.cells.endings import ending_of
from chainrule.v1 import job_pb2

SEEN_BYTES = 1 << 16
SEEN_LINES = 100
# A comma divides the columns of most files; the others only where it divides none.
OTHER_DELIMITERS = (";", "\t", "|")
WITH_COMMA = re.compile(r"[+-]?\d+,\d+")
WITH_POINT = re.compile(r"[+-]?\d+\.\d+")


def guessed_format(file: BinaryIO, name: str) -> job_pb2.CsvFormat | None:
    """How to read a CSV file whose columns no comma divides (of a .tsv: no tab); None where the usual way will do.

    The file is at its beginning before and after. What isn't text at all is left to whoever reads it."""
    text = file.read(SEEN_BYTES).decode("utf-8-sig", errors="replace")
    file.seek(0)
    usual = "\t" if ending_of(name) == ".tsv" else ","
    delimiter = usual
    if _width(text, usual) == 1:
        delimiter = max((usual, *OTHER_DELIMITERS), key=lambda each: _width(text, each))
    decimal_point = "," if delimiter != "," and _has_decimal_commas(text, delimiter) else "."
    if (delimiter, decimal_point) == (usual, "."):
        return None
    return job_pb2.CsvFormat(
        delimiter=None if delimiter == usual else delimiter,
        decimal_point=None if decimal_point == "." else decimal_point,
    )


def _width(text: str, delimiter: str) -> int:
    """How many columns the first line has."""
    return len(_rows(text, delimiter, 1)[0])


def _has_decimal_commas(text: str, delimiter: str) -> bool:
    """Whether there are numbers such as 1,5 and none such as 1.5."""
    cells = [cell.strip() for row in _rows(text, delimiter, SEEN_LINES)[1:] for cell in row]
    return any(map(WITH_COMMA.fullmatch, cells)) and not any(map(WITH_POINT.fullmatch, cells))


def _rows(text: str, delimiter: str, count: int) -> list[list[str]]:
    """The first rows that hold anything; one empty row where there is none."""
    found: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if len(found) == count:
                break
            if row:
                found.append(row)
    except csv.Error:
        # The reader of the rows will say what is wrong, and where.
        pass
    return found or [[]]
