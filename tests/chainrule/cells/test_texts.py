"""A cell of text means in a prediction what it means in training, where Arrow reads it."""

from __future__ import annotations

import csv
import io
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chainrule.cells.texts import DEFAULT_MARKERS, CellRules, number_of

pa = pytest.importorskip("pyarrow")
pc = pytest.importorskip("pyarrow.csv")


def arrows_number(text: str, decimal_point: str) -> float | None:
    """What Arrow makes of a cell in a column of its own; None where that is no column of numbers."""
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL, delimiter=";").writerows([["a"], [text]])
    options = pc.ConvertOptions(null_values=[], decimal_point=decimal_point)
    table = pc.read_csv(
        io.BytesIO(file.getvalue().encode()),
        parse_options=pc.ParseOptions(newlines_in_values=True, delimiter=";"),
        convert_options=options,
    )
    column = table["a"]
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return float(column[0].as_py()) if is_number else None


def bits(number: float | None) -> bytes | None:
    return b"nan" if number is not None and number != number else None if number is None else struct.pack("<d", number)


pieces = st.sampled_from(
    [*"0123456789", *"+-.,_ \t\x0beExX", "inf", "nan", "NaN", "INFINITY", "nan(1)", "0x", "e5", "e-400"]
)
texts = st.one_of(
    st.lists(pieces, min_size=1, max_size=8).map("".join),
    st.floats().map(repr),
    st.integers().map(str),
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1, max_size=4
    ),
)


@settings(max_examples=500, deadline=None)
@given(texts, st.sampled_from(".,"))
@example("07", ".")
@example(".5", ".")
@example("+5", ".")
@example("1_000", ".")
@example("12345678901234567890", ".")
@example("9007199254740993", ".")
@example("1e400", ".")
@example("0xFFFFFFFFFFFFFFFF", ".")
@example("0x10", ".")
@example(" 5", ".")
@example("1,5", ",")
@example("1.5", ",")
@example("２", ".")
@example("+-5", ".")
@example("++5", ".")
def test_a_text_is_the_number_that_training_reads(text: str, decimal_point: str) -> None:
    found, expected = number_of(text, decimal_point), arrows_number(text, decimal_point)
    if expected == 0 and found == 0:
        # Whole numbers have no -0: where a column has one, it is read again (data/formats/csv_file.py).
        expected = abs(expected) if text.strip(" \t").startswith("-") is False else found
    assert bits(found) == bits(expected)


def test_the_missing_markers_are_those_of_the_documentation() -> None:
    rules = CellRules()
    assert len(DEFAULT_MARKERS) == 16
    assert rules.in_csv == {*DEFAULT_MARKERS, ""}
    assert not rules.given
    own = CellRules(("?", "-999"))
    assert own.in_csv == {"?", "-999", ""}
    assert own.numbers == {-999.0}


@pytest.mark.parametrize("marker", ["NaN", "nan", "inf"])
def test_a_marker_that_is_no_number_of_its_own_marks_texts_only(marker: str) -> None:
    found: Any = CellRules((marker,)).numbers
    assert all(number == number for number in found)
