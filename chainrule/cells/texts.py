"""What a cell of text means in a column of numbers or of categories: the one place that knows.

A CSV file for training is read by Arrow, a column at a time; `number_of` is the same for one text, and tests hold the
two equal. So whatever file trains, predicts, with the values that training saw.
"""

from __future__ import annotations

import re
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


@dataclass(frozen=True)
class CellRules:
    """How the cells of a job's data are read. markers: `data.missing_markers`, () where the job says nothing."""

    markers: tuple[str, ...] = ()
    decimal_point: str = "."

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

    def number_of(self, text: str) -> float | None:
        """The number that a text is in a column of numbers; None where it is none."""
        return number_of(text, self.decimal_point)

    def _numbers(self, texts: Iterable[str]) -> Iterable[float]:
        for text in texts:
            number = self.number_of(text)
            if number is not None and number == number:
                yield number
