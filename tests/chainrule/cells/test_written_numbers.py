"""Numbers that are written for people, and columns of them: the same for training and for predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.cells.texts import written_number_of
from chainrule.v1 import job_pb2
from chainrule_server.data.column_choice import cell_rules, violations
from chainrule_server.data.data_set import DataError, load
from chainrule_server.preparation.encodings import NumberEncoding

pytest.importorskip("pyarrow")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234", 1234),
        ("$1,065.75", 1065.75),
        ("45%", 45),
        ("-4.5 %", -4.5),
        ("€ 12", 12),
        ("12 €", 12),
        ("-$5", -5),
        ("$-5", -5),
        ("(1,234.5)", -1234.5),
        ("\u22127", -7),
        ("1 234 567", 1234567),
        ("1\u00a0234", 1234),
        ("1'234.5", 1234.5),
        ("12,34,567", 1234567),
        ("+3", 3),
        ("1e3", 1000),
        (".5", 0.5),
        ("7", 7),
    ],
)
def test_a_number_for_people_is_the_number(text: str, number: float) -> None:
    assert written_number_of(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "%",
        "1,23",
        "1,2345",
        "1,,234",
        ",123",
        "12,3,456",
        "1.2.3",
        "abc",
        "1-2",
        "(5",
        "5 USD",
        "1234,567",
        "--5",
    ],
)
def test_what_only_looks_like_one_is_none(text: str) -> None:
    assert written_number_of(text) is None


def test_where_the_decimal_point_is_a_comma_a_point_parts_thousands() -> None:
    assert written_number_of("1.234,5 €", ",") == 1234.5
    assert written_number_of("1,234.5", ",") is None


@given(st.floats(-1e12, 1e12).map(lambda number: round(number, 2)))
def test_whatever_is_written_with_separators_is_read_again(number: float) -> None:
    assert written_number_of(f"${number:,.2f}") == float(f"{number:.2f}")
    assert written_number_of(f"{number:,.2f} %") == float(f"{number:.2f}")


def spec(**csv: object) -> job_pb2.DataSpec:
    return job_pb2.DataSpec(uri="file:t.csv", target="y", csv=job_pb2.CsvFormat(**csv))  # type: ignore[arg-type]


def test_training_reads_what_a_prediction_reads(tmp_path: Path) -> None:
    texts = ["$1,234.50", "7", "(3)", "45%"]
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f'"{text}",1\n' for text in texts))
    data = spec(numbers=["a"])
    with load(data, data_root=tmp_path) as rows:
        values = rows.feature(0).values.tolist()  # type: ignore[union-attr]
    reader = NumberEncoding("a").reader(cell_rules(data))
    assert values == [reader(text) for text in texts] == [1234.5, 7.0, -3.0, 45.0]


def test_a_cell_that_is_no_number_is_named_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n$5,1\n,2\nmuch,3\n")
    with pytest.raises(DataError, match=r"'a' is 'much' in row 2 .counted from 0., which is no number") as caught:
        load(spec(numbers=["a"]), data_root=tmp_path)
    assert caught.value.field == "data.csv.numbers"


def test_a_column_that_is_not_there_or_is_categories_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n$5,1\n")
    with pytest.raises(DataError, match="there is no column 'b'"):
        load(spec(numbers=["b"]), data_root=tmp_path)
    both = spec(numbers=["a"])
    both.categories.append("a")
    assert violations(both) == [
        ("data.csv.numbers", "names 'a', which is among data.categories; it is one or the other")
    ]
