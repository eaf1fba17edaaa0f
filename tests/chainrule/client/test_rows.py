"""Rows in every form that people have them in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chainrule.client.explanation import explain_request
from chainrule.client.rows import batches, outputs_of, predictions_of, rows_of
from chainrule.errors import RowsError
from chainrule.v1 import model_service_pb2 as api


class Frame:
    """What is used of a pandas.DataFrame."""

    columns = ("age", "city")

    def itertuples(self, *, index: bool, name: None) -> Any:  # noqa: ARG002
        return iter([(np.int64(3), "Rome"), (np.nan, "Lima")])


@pytest.mark.parametrize(
    ("data", "rows", "columns"),
    [
        (np.array([[1, 2], [3, 4]]), [[1.0, 2.0], [3.0, 4.0]], []),
        (np.array([1.5, np.nan], dtype=np.float32), [[1.5, None]], []),
        ([[1, "a"], [2, None]], [[1.0, "a"], [2.0, None]], []),
        ([1, "a", True], [[1.0, "a", True]], []),
        ([np.array([1, 2])], [[1.0, 2.0]], []),
        ({"age": [1, 2], "city": ["a", "b"]}, [[1.0, "a"], [2.0, "b"]], ["age", "city"]),
        ({"age": np.array([1, 2])}, [[1.0], [2.0]], ["age"]),
        ({"age": 1, "city": "a"}, [[1.0, "a"]], ["age", "city"]),
        ([{"age": 1, "city": "a"}, {"city": "b", "age": 2}], [[1.0, "a"], [2.0, "b"]], ["age", "city"]),
        (Frame(), [[3.0, "Rome"], [None, "Lima"]], ["age", "city"]),
    ],
)
def test_rows_are_read_in_every_form(data: Any, rows: list[Any], columns: list[str]) -> None:
    assert rows_of(data) == (rows, columns)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "got a int"),
        ("abc", "got a str"),
        (np.ones((2, 2, 2)), "has no rows"),
        ({"a": [1], "b": [1, 2]}, "different lengths"),
        ({"a": [1], "b": 2}, "give a list of its values"),
        ([{"a": 1}, {"b": 1}], "the same keys"),
        ([[1j]], "got a complex"),
    ],
)
def test_what_has_no_rows_is_refused(data: Any, message: str) -> None:
    with pytest.raises(RowsError, match=message):
        rows_of(data)


def test_many_rows_go_in_several_calls() -> None:
    rows: list[list[Any]] = [[float(number)] * 100 for number in range(4000)]
    parts = list(batches(rows))
    assert [row for part in parts for row in part] == rows
    assert [len(part) for part in parts] == [1500, 1500, 1000]
    assert list(batches([])) == [[]]  # so that the server can say what is wrong


def test_predictions_become_one_array() -> None:
    numbers = [api.PredictResponse(predictions=[api.Prediction(value=v, outputs=[v / 2])]) for v in (2.0, 3.0)]
    np.testing.assert_array_equal(predictions_of(numbers), [2.0, 3.0])
    np.testing.assert_array_equal(outputs_of(numbers), [1.0, 1.5])
    classes = [api.PredictResponse(predictions=[api.Prediction(class_name=n, outputs=[1, 2, 3]) for n in "ab"])]
    np.testing.assert_array_equal(predictions_of(classes), ["a", "b"])
    assert outputs_of(classes).shape == (2, 3)


def test_an_example_is_a_row_or_features_with_a_target() -> None:
    assert explain_request("j", np.int64(3)).row == 3
    request = explain_request("j", {"age": 3, "city": "Rome"}, "yes")
    assert [value.WhichOneof("kind") for value in request.own.features.values] == ["number_value", "string_value"]
    assert request.own.target.string_value == "yes"
    assert explain_request("j", np.ones(2), 2).own.target.number_value == 2
    with pytest.raises(RowsError, match="the features x and the target y"):
        explain_request("j", np.ones(2))
    with pytest.raises(RowsError, match="counted from 0"):
        explain_request("j", -1)
    with pytest.raises(RowsError, match="the features x"):
        explain_request("j", "x")
    with pytest.raises(RowsError, match="got a str"):
        explain_request("j", "x", 3)
