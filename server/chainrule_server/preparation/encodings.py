"""How one column becomes what the model sees: learnt from its training rows, and applied to any.

Numbers are standardized; a category is 1 in its own place and 0 in the others (one-hot). Sums run over the rows one
after the other, in float64, and in parts: a column's bits depend neither on where it was read from nor on its
neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.cells.texts import BOOLEANS, FALSE, TRUE, CellRules
from chainrule_engine.standardization import settled
from chainrule_server.data.columns import Categories, Column, ColumnError, Numbers, in_rows

PART_ROWS = 1 << 18
FLOAT32_MAX = float(np.finfo(np.float32).max)

Rows = NDArray[np.int64]
WHOLE = int | np.integer
FLOATING = float | np.floating


@dataclass(frozen=True)
class Unusable:
    """Something that a user has in place of a value. what: in words, such as "a date"."""

    what: str


@dataclass(frozen=True)
class NumberEncoding:
    """A column of numbers, one place in x: (value - mean) / scale, or the value where these are None.

    fill: what a missing value becomes, before that; None: it is refused."""

    name: str
    mean: float | None = None
    scale: float | None = None
    fill: float | None = None

    width = 1

    def encode(self, column: Column, out: NDArray[np.float32], *, first_row: int = 0) -> None:
        """Write rows of a column into their place. out: (n, 1). first_row: the number of the first.

        Raises ColumnError."""
        if not isinstance(column, Numbers):
            raise ColumnError(f"{self.name!r} holds texts, but numbers were learnt")
        for start in range(0, len(column.values), PART_ROWS):
            raw = column.values[start : start + PART_ROWS]
            part = raw.astype(np.float64)
            missing = np.isnan(part)
            if missing.any():
                if self.fill is None:
                    raise missing_values(self.name, missing, first_row=first_row + start)
                part[missing] = self.fill
            if self.mean is not None and self.scale is not None:
                part -= self.mean
                part /= self.scale
            with np.errstate(over="ignore"):
                encoded = part.astype(np.float32)
            if not np.isfinite(encoded).all():
                check_finite(raw, name=self.name, first_row=first_row + start)
                row = int(np.flatnonzero(~np.isfinite(encoded))[0])
                raise out_of_float32(self.name, float(raw[row]), first_row + start + row)
            out[start : start + PART_ROWS, 0] = encoded

    def reader(self, rules: CellRules) -> Callable[[object], object]:
        """What turns a value that a user has into one of this column: a text becomes the number that it is."""

        def read(value: object) -> object:
            if isinstance(value, str):
                if value in rules.in_csv:
                    return None
                number = rules.number_of(value, self.name)
                value = value if number is None else number
            is_number = isinstance(value, WHOLE | FLOATING) and not isinstance(value, bool)
            if rules.numbers and is_number and value in rules.numbers:
                return None
            return value

        return read

    def problem_of(self, value: object) -> str:
        """What is wrong with a value that `reader` gave, or ''; None and NaN are missing."""
        if is_missing(value):
            if self.fill is not None:
                return ""
            return "must be a number, got null" if value is None else "must be a finite number, got nan"
        if not isinstance(value, WHOLE | FLOATING) or isinstance(value, bool):
            return f"must be a number, got {kind_of(value)}"
        try:
            number = float(value)
        except OverflowError:
            return "is out of the range of float32"
        if math.isinf(number):
            return f"must be a finite number, got {number:g}"
        if self.mean is not None and self.scale is not None:
            number = (number - self.mean) / self.scale
        return "" if abs(number) <= FLOAT32_MAX else "is out of the range of float32"

    def column(self, values: Sequence[Any]) -> Numbers:
        """Values without a problem, as the column that `encode` takes."""
        return Numbers(np.array([math.nan if value is None else float(value) for value in values]))


@dataclass(frozen=True)
class CategoryEncoding:
    """A column of categories, a place in x for each: 1 in rows of the category, else 0.

    categories: sorted. A row of any other is 0 in all places. fill: what a missing value counts as; None: it is
    refused."""

    name: str
    categories: tuple[str, ...]
    fill: str | None = None

    @property
    def width(self) -> int:
        """The number of places."""
        return len(self.categories)

    def encode(self, column: Column, out: NDArray[np.float32], *, first_row: int = 0) -> None:
        """Write rows of a column into their places. out: (n, width). first_row: the number of the first.

        Raises ColumnError."""
        if isinstance(column, Numbers):
            column = _all_missing(column, self.name)
        missing = column.codes < 0
        if self.fill is None and missing.any():
            raise missing_values(self.name, missing, first_row=first_row)
        place_of = {category: place for place, category in enumerate(self.categories)}
        # The last entry is that of -1, a missing value.
        places = [place_of.get(name, -1) for name in column.names] + [-1 if self.fill is None else place_of[self.fill]]
        place = np.array(places)[column.codes]
        known = np.flatnonzero(place >= 0)
        out[...] = 0
        out[known, place[known]] = 1

    def reader(self, rules: CellRules) -> Callable[[object], object]:
        """What turns a value that a user has into one of this column: a category, known or unknown, or None.

        A text is the category that is written so. A number is the one that is written as it, or else the only one
        that has its value: 7 is "07" where there is no "7"."""
        known = frozenset(self.categories)
        is_boolean = known <= {TRUE, FALSE}
        by_number: dict[float, list[str]] = {}
        for category in self.categories:
            number = rules.number_of(category)
            if number is not None:
                by_number.setdefault(number, []).append(category)

        def of_number(value: Any) -> object:
            number = _float_of(value)
            if number in rules.numbers:
                return None
            text = str(int(value)) if number == math.floor(number) else None
            if text is not None and text in known:
                return text
            if text is not None and is_boolean and text in BOOLEANS:
                return BOOLEANS[text]
            found = by_number.get(number, [])
            if len(found) > 1:
                both = " and ".join(repr(each) for each in found[:2])
                return Unusable(f"{value:g}, which is both {both}: give it as a text")
            return found[0] if found else value if text is None else text

        def read(value: object) -> object:
            if isinstance(value, str):
                if value in known:
                    return value
                if value in rules.given:
                    return None
                return BOOLEANS.get(value.lower(), value) if is_boolean else value
            if isinstance(value, bool | np.bool):
                return TRUE if value else FALSE
            if isinstance(value, WHOLE | FLOATING) and math.isfinite(_float_of(value)):
                return of_number(value)
            return str(value) if isinstance(value, WHOLE) else value

        return read

    def is_unknown(self, value: object) -> bool:
        """Whether a value that `reader` gave is a category that no training row had."""
        return isinstance(value, str) and value not in self._known

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.categories)

    def problem_of(self, value: object) -> str:
        """What is wrong with a value that `reader` gave, or ''; None and NaN are missing. It may be unknown."""
        if is_missing(value):
            return "" if self.fill is not None else "must be a category, got null"
        if isinstance(value, str):
            return ""
        found = f"{value:g}" if isinstance(value, FLOATING) else kind_of(value)
        return f"must be a text, a whole number, true or false, got {found}"

    def column(self, values: Sequence[Any]) -> Categories:
        """Values without a problem, as the column that `encode` takes."""
        code_of: dict[str, int] = {}
        codes = np.empty(len(values), dtype=np.int32)
        for row, value in enumerate(values):
            codes[row] = -1 if is_missing(value) else code_of.setdefault(value, len(code_of))
        return Categories(codes, tuple(code_of))


Encoding = NumberEncoding | CategoryEncoding


def is_missing(value: object) -> bool:
    """Whether a value that a user has is None or NaN."""
    return value is None or (isinstance(value, FLOATING) and math.isnan(value))


def _float_of(value: Any) -> float:
    """The number as float64; infinity for a whole number beyond it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def kind_of(value: object) -> str:
    """What a value is, in the words of JSON."""
    if isinstance(value, Unusable):
        return value.what
    for kind, name in ((str, "a text"), (bool | np.bool, "a boolean"), (Mapping, "an object"), (Sequence, "a list")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "nothing" if value is ... else type(value).__name__


def learn_encoding(column: Column, rows: Rows, *, name: str, standardize: bool, missing: str) -> Encoding:
    """The encoding of a feature, learnt from its training rows.

    rows: their numbers, sorted. standardize: whether numbers are. missing: see `DataSpec.missing`. Raises ColumnError
    for values that can't be used, in any row."""
    if isinstance(column, Categories):
        return _learn_categories(column, rows, name=name, missing=missing)
    check_finite(column.values, name=name)
    absent = np.isnan(column.values)
    if missing == "refuse" and absent.any():
        raise missing_values(name, absent)
    training = column.values[rows].astype(np.float64)
    fill = None
    if missing != "refuse":
        fill = _fill_of(training[~absent[rows]], missing, name=name)
        training[absent[rows]] = fill
    if not standardize:
        return NumberEncoding(name, fill=fill)
    mean, scale = mean_and_scale(training)
    check_statistics(mean, scale, name=name)
    return NumberEncoding(name, mean, scale, fill)


def mean_and_scale(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and population standard deviation; a value and 1 where they don't vary. values: (n,), at least one."""
    # Compared, not deviation > 0: a hundred times 7.7 have a deviation of 1e-14 by rounding.
    if values.min() == values.max():
        return float(values[0]), 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        mean = _sum(values) / len(values)
        scale = math.sqrt(_sum(values, mean) / len(values))
    return settled(values, mean, scale)


def _sum(values: NDArray[np.float64], mean: float | None = None) -> float:
    """The sum of the values, or of the squares of their distances from the mean, one after the other from the first."""
    total = None
    for start in range(0, len(values), PART_ROWS):
        part = values[start : start + PART_ROWS]
        if mean is not None:
            part = np.square(part - mean)
        if total is not None:
            part = np.concatenate([[total], part])
        # np.sum would add in an order that depends on the number of values; a running sum has one order.
        total = np.add.accumulate(part)[-1]
    return float(total) if total is not None else 0.0


def _fill_of(present: NDArray[np.float64], missing: str, *, name: str) -> float:
    if missing not in ("mean", "median", "most_frequent"):
        return float(missing)
    if not present.size:
        raise ColumnError(f'{name!r} has no value in any training row; leave it out: data.exclude = ["{name}"]')
    if missing == "mean":
        return mean_and_scale(present)[0]
    if missing == "median":
        return float(np.median(present))
    values, counts = np.unique(present, return_counts=True)
    return float(values[counts.argmax()])


def _learn_categories(column: Categories, rows: Rows, *, name: str, missing: str) -> CategoryEncoding:
    absent = column.codes < 0
    if missing == "refuse" and absent.any():
        raise missing_values(name, absent)
    training = column.codes[rows]
    counts = np.bincount(training[training >= 0], minlength=len(column.names))
    if not counts.any():
        raise ColumnError(f'{name!r} has no value in any training row; leave it out: data.exclude = ["{name}"]')
    fill = None if missing == "refuse" else column.names[int(counts.argmax())]
    return CategoryEncoding(name, tuple(each for each, count in zip(column.names, counts, strict=True) if count), fill)


def _all_missing(column: Numbers, name: str) -> Categories:
    """A column of categories none of which is given: an empty column tells no kind. Raises ColumnError."""
    if not np.isnan(column.values).all():
        raise ColumnError(f"{name!r} holds numbers, but categories were learnt")
    return Categories(np.full(len(column.values), -1, dtype=np.int32), ())


def check_finite(values: NDArray[Any], *, name: str, first_row: int = 0) -> None:
    """Refuse infinity; NaN is a missing value. Raises ColumnError."""
    bad = np.flatnonzero(np.isinf(values))
    if bad.size:
        raise ColumnError(
            f"{name} is {values[bad[0]]:g} {in_rows(bad, first_row=first_row)}; every value must be a finite number"
        )


def check_statistics(mean: float, scale: float, *, name: str) -> None:
    """Refuse values whose mean or standard deviation float64 can't hold. Raises ColumnError."""
    if not (math.isfinite(mean) and math.isfinite(scale)):
        raise ColumnError(f"the values of {name} are too large to be standardized; give them in a larger unit")


def missing_values(name: str, missing: NDArray[np.bool], *, first_row: int = 0) -> ColumnError:
    """The error for values that aren't there. missing: (n,), True where there is none."""
    rows = np.flatnonzero(missing)
    return ColumnError(
        f"{name} has no value (or nan) {in_rows(rows, first_row=first_row)}; "
        'fill it in, leave the column out, or say what a missing value becomes, for example data.missing = "median"'
    )


def out_of_float32(name: str, value: float, row: int) -> ColumnError:
    """The error for a value that is too large."""
    return ColumnError(
        f"{name} is {value:g} in row {row} (counted from 0), out of the range of float32; give it in a larger unit"
    )
