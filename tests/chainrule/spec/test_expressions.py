"""Expressions in Python: their text, the graph that the text is, and what they refuse."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import chainrule
from chainrule.errors import ExpressionError
from chainrule.spec import expressions, functions
from chainrule.spec.expressions import FUNCTION_NAMES, Expression, inputs, model_table, parameter
from chainrule_engine import formula
from chainrule_engine.definitions import Definition
from chainrule_engine.errors import EngineError
from chainrule_engine.graph import Graph
from chainrule_engine.model import Model
from chainrule_engine.operations import FUNCTIONS
from tests.engine.random_formulas import Case, cases

V, w, b = parameter("V", 16, "d"), parameter("w", 16), parameter("b")
x, y = inputs()


def shape_of(graph: Graph) -> list[tuple[Any, ...]]:
    """The graph as values that can be compared."""
    place = {node: number for number, node in enumerate(graph.nodes)}
    return [
        (n.operation, [place[o] for o in n.operands], n.shape, n.batched, n.options, n.name, repr(n.value))
        for n in graph.nodes
    ]


def without_constants(graph: Graph) -> list[tuple[Any, ...]]:
    """The graph likewise, but for where its constants stand, which changes no bits: they have no gradient."""
    return shape_of(
        Graph(graph.root, tuple(sorted(graph.nodes, key=lambda node: (node.operation != "constant", node.value))))
    )


def expression_of(case: Case) -> Expression:
    """The case's formula, run as Python."""
    names: dict[str, Any] = {name: getattr(functions, name, None) for name in FUNCTION_NAMES}
    names |= {each.name: parameter(each.name, *each.shape) for each in case.model.layout.parameters}
    names |= {each.name: Expression((each.name,)) for each in case.model.inputs}
    result = eval(case.formula, {"__builtins__": {}}, names)  # noqa: S307 - a formula of our own
    assert isinstance(result, Expression)
    return result


def built(case: Case, loss: str) -> Model:
    return Model.build(loss=loss, parameters=case.model.layout.parameters, inputs=list(case.model.inputs))


@settings(deadline=None)
@given(cases(normalization=True))
def test_an_expression_is_the_graph_of_the_same_text(case: Case) -> None:
    assert shape_of(built(case, str(expression_of(case))).loss) == shape_of(case.model.loss)


@settings(deadline=None, max_examples=50)
@given(cases(depth=4))
def test_no_brackets_can_be_left_out(case: Case) -> None:
    text = str(expression_of(case))
    for opening, closing in groups(text):
        less = text[:opening] + " " + text[opening + 1 : closing] + " " + text[closing + 1 :]
        try:
            graph = built(case, less).loss
        except EngineError:
            continue
        assert shape_of(graph) != shape_of(case.model.loss), (text, less)


def groups(text: str) -> list[tuple[int, int]]:
    """The places of the brackets that no function's name stands before."""
    open_at, found = [], []
    for place, sign in enumerate(text):
        if sign == "(":
            open_at.append(place)
        elif sign == ")":
            start = open_at.pop()
            if not re.search(r"\w$", text[:start]):
                found.append((start, place))
    return found


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (w @ functions.sigmoid(V @ x), "w @ sigmoid(V @ x)"),
        ((w @ x - y) ** 2, "(w @ x - y)**2"),
        (-(w @ x), "-(w @ x)"),
        (-w @ x, "-w @ x"),
        (w - (b - y), "w - (b - y)"),
        (w - b - y, "w - b - y"),
        (w * (b / y), "w * (b / y)"),
        (w**b**y, "w**b**y"),
        ((w**b) ** y, "(w**b)**y"),
        (w**-b, "w**-b"),
        ((-w) ** 2, "(-w)**2"),
        (-(w**2), "-w**2"),
        (-2 * w, "-2 * w"),
        ((-2) ** w, "(-2)**w"),
        (w - -b, "w - -b"),
        (2 / w, "2 / w"),
        (np.float32(0.5) * w, "0.5 * w"),
        (w * np.int64(3), "w * 3"),
        (1e-5 + w, "1e-05 + w"),
        (w[0] + (w + b)[1], "w[0] + (w + b)[1]"),
        (V[0, 1] * V[1][2], "V[0, 1] * V[1][2]"),
        (functions.max(w, b, 0) + abs(w), "max(w, b, 0) + abs(w)"),
        (functions.huber(w, b + 1, 0.5), "huber(w, b + 1, 0.5)"),
        (+w, "w"),
    ],
)
def test_an_expression_prints_as_its_formula(expression: Expression, text: str) -> None:
    assert str(expression) == repr(expression) == text


def test_every_operation_of_the_engine_can_be_called() -> None:
    assert set(FUNCTION_NAMES) == set(FUNCTIONS)
    missing = {name for name in FUNCTIONS if not hasattr(functions, name)}
    # Python's operators, or a second name.
    assert missing == {"ln", "matmul", "maximum", "minimum", "negative", "power"}
    for name in set(FUNCTIONS) - missing:
        assert getattr(chainrule, name) is getattr(functions, name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: bool(w), "neither true nor false"),
        (lambda: w == y, "write a loss"),
        (lambda: w != y, "write a loss"),
        (lambda: w < y, "choose by values"),
        (lambda: max([w, y]), "choose by values"),
        (lambda: list(w), "take components"),
        (lambda: len(w), "has no length"),
        (lambda: math.exp(w), "chainrule.exp"),
        (lambda: np.ones(3) @ w, "'@' with a ndarray: a formula holds names and numbers"),
        (lambda: w + np.ones(3), "make it a parameter"),
        (lambda: w * [1, 2], "'*' with a list"),
        (lambda: w + "1", "got a str"),
        (lambda: w + True, "got a bool"),
        (lambda: w + math.inf, "are finite"),
        (lambda: w[-1], "counted from 0"),
        (lambda: w[0:2], "counted from 0"),
        (lambda: functions.max(w, None), "'max' takes expressions and numbers, got a NoneType"),
        (functions.concatenate, "has no argument"),
        (lambda: parameter("x", 3), "taken"),
        (lambda: parameter("sum", 3), "taken"),
        (lambda: parameter("2a", 3), "is no name"),
        (lambda: parameter("W", 0), "whole numbers from 1"),
        (lambda: parameter("W", 2.5), "whole numbers from 1"),
        (lambda: parameter("W", "n"), "whole numbers from 1"),
        (lambda: parameter("W", 3, frozen=1), "frozen is True or False, got 1"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_formula_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(message)):
        wrong()


def test_numpy_leaves_its_operators_to_the_expression() -> None:
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(w)
    assert str(np.float64(2) * w) == "2.0 * w"


def test_a_model_names_its_prediction_and_lists_its_parameters() -> None:
    prediction = w @ functions.sigmoid(V @ x) + b
    assert model_table(loss=(prediction - y) ** 2 + 0.1 * w @ w, prediction=prediction) == {
        "prediction": "w @ sigmoid(V @ x) + b",
        "loss": "(prediction - y)**2 + 0.1 * w @ w",
        "parameters": {"w": {"shape": [16]}, "V": {"shape": [16, "d"]}, "b": {"shape": []}},
    }


def test_two_parameters_of_one_name_are_refused_where_they_differ() -> None:
    assert model_table(loss=w + parameter("w", 16))["parameters"] == {"w": {"shape": [16]}}
    for other in (parameter("w", 17), parameter("w", 16, frozen=True)):
        with pytest.raises(ExpressionError, match="two parameters are called w"):
            model_table(loss=w + other)


def test_a_dropout_that_is_used_twice_is_drawn_once() -> None:
    noisy = functions.dropout(w, 0.5)
    table = model_table(loss=functions.sum(noisy * noisy))
    assert (table["definitions"], table["loss"]) == ({"part1": "dropout(w, 0.5)"}, "sum(part1 * part1)")
    # The prediction is written once; the loss only names it.
    prediction = noisy @ x
    table = model_table(loss=prediction * prediction, prediction=prediction)
    assert (table["prediction"], table["loss"]) == ("dropout(w, 0.5) @ x", "prediction * prediction")


def test_what_is_used_several_times_becomes_a_definition() -> None:
    hidden = functions.tanh(V @ x)
    prediction = w @ hidden + functions.sum(hidden)
    residual = prediction - y
    part1 = parameter("part1")
    table = model_table(
        loss=residual * residual + part1 * functions.norm(hidden), prediction=prediction, taken=["part2"]
    )
    assert table["definitions"] == {"part3": "tanh(V @ x)", "part4": "prediction - y"}
    assert table["prediction"] == "w @ part3 + sum(part3)"
    assert table["loss"] == "part4 * part4 + part1 * norm(part3)"


@settings(deadline=None)
@given(cases(normalization=True))
def test_shared_parts_are_the_graph_of_the_formula_written_out(case: Case) -> None:
    part = expression_of(case)
    root = functions.tanh(part) * part + part
    table = model_table(loss=root)
    definitions = [Definition(name, text) for name, text in table.get("definitions", {}).items()]
    assert bool(definitions) == bool(part._operands)
    parameters, inputs = case.model.layout.parameters, list(case.model.inputs)
    named = Model.build(loss=table["loss"], definitions=definitions, parameters=parameters, inputs=inputs)
    if "dropout" not in case.formula:
        assert without_constants(named.loss) == without_constants(built(case, str(root)).loss)


def test_parts_that_would_grow_exponentially_and_deep_ones_are_short() -> None:
    doubled = w
    for _ in range(60):
        doubled = doubled * doubled + doubled
    table = model_table(loss=functions.sum(doubled))
    assert len(table["definitions"]) == 59
    deep = x
    for _ in range(300):
        deep = functions.tanh(V @ deep)
    table = model_table(loss=w @ deep)
    assert 7 <= len(table["definitions"]) <= 30
    long = w
    for _ in range(3000):
        long = long + b
    table = model_table(loss=functions.sum(long))
    assert all(len(text) <= 2 * expressions.MAXIMUM_PART for text in table["definitions"].values())


def test_a_deep_expression_overflows_no_stack_and_a_long_one_is_refused() -> None:
    total = w
    for _ in range(1500):
        total = total + b
    assert str(total) == "w" + " + b" * 1500
    doubled = w
    for _ in range(60):
        doubled = doubled * doubled + doubled
    with pytest.raises(ExpressionError, match="10000 characters"):
        str(doubled)


def test_a_name_is_for_the_client_what_it_is_for_the_engine() -> None:
    # Written twice, since the client doesn't import the engine.
    assert expressions._NAME.pattern == formula.NAME
