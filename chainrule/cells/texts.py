"""What a cell of text means in a column of numbers or of categories: the one place that knows.

A CSV file for training is read by Arrow, a column at a time; `number_of` is the same for one text, and tests hold the
two equal. So whatever file trains, predicts, with the values that training saw.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

# What Arrow, pandas and R write where a value is missing. An empty cell of a CSV file is missing besides.
DEFAULT_MARKERS = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)
BLANKS = " \t"
# Arrow's, of a whole column; here of one text.
NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|(nan)(?:\([a-z0-9_]*\))?)", re.ASCII | re.I
)
HEXADECIMAL = re.compile(r"0x([0-9a-f]{1,16})", re.I)
PLAIN = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
# What parts thousands: apostrophes, blanks of several widths, and a comma or a point.
_PARTERS = "'\u2019 \u00a0\u2009\u202f"
POINT_PARTERS, COMMA_PARTERS = _PARTERS + ",", _PARTERS + "."
MINUS = "\u2212"
TRUE, FALSE = "true", "false"
# How a column of true and false is written in CSV files and elsewhere.
BOOLEANS = {"true": TRUE, "1": TRUE, "false": FALSE, "0": FALSE}


def number_of(text: str, decimal_point: str = ".") -> float | None:
    """The number that a text is in a column of numbers, NaN and infinity among them; None where it is none."""
    text = text.strip(BLANKS)
    if decimal_point != ".":
        if "." in text:
            return None
        text = text.replace(decimal_point, ".")
    found = NUMBER.fullmatch(text)
    if found is not None:
        return float("nan" if found[1] else text)
    whole = HEXADECIMAL.fullmatch(text)
    if whole is None:
        return None
    # Sixteen digits are the bits of a number with a sign.
    number = int(whole[1], 16)
    return float(number - (1 << 64) if number >= 1 << 63 else number)


def written_number_of(text: str, decimal_point: str = ".") -> float | None:
    """The number that a text for people is, such as "$1,234.50", "45%" or "(12)", which is -12; None where it is none.

    A currency or percent sign doesn't count, so "45%" is 45; nor does what parts thousands."""
    text = text.strip()
    is_negative = text.startswith("(") and text.endswith(")")
    text = "".join(each for each in text.strip("()" if is_negative else "") if not _is_sign(each)).strip()
    if text.startswith(("+", "-", MINUS)):
        is_negative = is_negative != (text[0] != "+")
        text = text[1:].lstrip()
    parters = COMMA_PARTERS if decimal_point == "," else POINT_PARTERS
    whole, point, fraction = text.partition(decimal_point)
    groups = re.split(f"[{parters}]", whole)
    if len(groups) > 1:
        # Of three digits, or of two where lakhs are counted; the last always of three.
        first, *middle, last = groups
        if not 1 <= len(first) <= 3 or len(last) != 3 or any(len(each) not in (2, 3) for each in middle):
            return None
        whole = "".join(groups)
    if not PLAIN.fullmatch(f"{whole}{'.' if point else ''}{fraction}"):
        return None
    number = float(f"{whole}.{fraction}" if point else whole)
    return -number if is_negative else number


def _is_sign(character: str) -> bool:
    return character in "%\u2030" or unicodedata.category(character) == "Sc"


@dataclass(frozen=True)
class CellRules:
    """How the cells of a job's data are read. markers: `data.missing_markers`, () where the job says nothing.

    written: the columns whose numbers are written for people, `data.csv.numbers`."""

    markers: tuple[str, ...] = ()
    decimal_point: str = "."
    written: tuple[str, ...] = ()

    @cached_property
    def in_csv(self) -> frozenset[str]:
        """The cells of a CSV file that are missing values."""
        return frozenset((*(self.markers or DEFAULT_MARKERS), ""))

    @cached_property
    def given(self) -> frozenset[str]:
        """The texts that are missing values in every form."""
        return frozenset(self.markers)

    @cached_property
    def numbers(self) -> frozenset[float]:
        """The numbers that are missing values, such as -999, however they are written."""
        return frozenset(self._numbers(self.markers))

    def number_of(self, text: str, column: str = "") -> float | None:
        """The number that a text is in a column of numbers; None where it is none. column: which, by its name."""
        if column in self.written:
            return written_number_of(text, self.decimal_point)
        return number_of(text, self.decimal_point)

    def _numbers(self, texts: Iterable[str]) -> Iterable[float]:
        for text in texts:
            number = self.number_of(text)
            if number is not None and number == number:
                yield number
