"""Formulas as people write and paste them: superscripts of several digits, Greek letters, and accents."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule_engine.backpropagation import forward
from chainrule_engine.errors import FormulaError
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter


def value_of(formula: str, **values: float) -> float:
    parameters = [Parameter(name, ()) for name in values]
    model = Model.build(loss=formula, parameters=parameters, inputs=[Input("x", (1,))])
    f = forward(model.loss, {name: np.array(value) for name, value in values.items()})
    return float(f[model.loss.root])


@pytest.mark.parametrize(("formula", "value"), [
    ("a²³", 2.0**23), ("a²", 4.0), ("a³ a", 16.0), ("a¹⁰", 1024.0), ("2a⁻²", 0.5), ("a⁰", 1.0), ("-a²", -4.0),
    ("(a + 1)³²", 3.0**32), ("sum(a⁴ + a²)", 20.0), ("a⁺³", 8.0),
])  # fmt: skip
def test_superscript_digits_are_one_exponent(formula: str, value: float) -> None:
    assert value_of(formula, a=2.0) == value


@pytest.mark.parametrize(("written", "declared"), [
    ("µ", "μ"), ("μ", "µ"), ("e\u0301tat", "\u00e9tat"), ("\u00e9tat", "e\u0301tat"), ("x\u0302", "x\u0302"),
    ("V₃", "V₃"),
])  # fmt: skip
def test_names_that_look_alike_are_one(written: str, declared: str) -> None:
    assert value_of(f"2 * {written} + 1", **{declared: 3.0}) == 7.0


@pytest.mark.parametrize(("first", "second"), [("µ", "μ"), ("e\u0301", "\u00e9")])
def test_names_that_look_alike_are_not_two_parameters(first: str, second: str) -> None:
    with pytest.raises(FormulaError, match="is taken"):
        value_of("1", **{first: 1.0, second: 2.0})


def test_names_that_look_different_are_two() -> None:
    assert value_of("V₃ - V3", **{"V₃": 5.0, "V3": 2.0}) == 3.0


def test_columns_count_the_characters_that_were_written() -> None:
    with pytest.raises(FormulaError, match="unknown name 'b'") as caught:
        value_of("e\u0301²³ + b", é=1.0)
    assert caught.value.column == 8


def test_sigma_is_the_function_and_an_error_says_what_to_call_a_parameter() -> None:
    with pytest.raises(FormulaError, match=r"'σ' is the function sigmoid .*, such as 'sigma'"):
        value_of("1", σ=1.0)
    with pytest.raises(FormulaError, match=r"'σ' is the function sigmoid .*, such as 'sigma_1'"):
        value_of("1", σ_1=1.0)
    with pytest.raises(FormulaError, match=r"'σ' is the function sigmoid; write σ\(…\), .* such as sigma") as caught:
        value_of("a + σ * a", a=1.0)
    assert caught.value.column == 5
    assert value_of("σ(a)", a=0.0) == 0.5


def test_the_larger_of_a_value_and_itself_is_the_value() -> None:
    model = Model.build(loss="max(2 * w, 2 * w) + min(w, w)", parameters=[Parameter("w", ())], inputs=[])
    assert [node.operation for node in model.loss.nodes if node.operation in ("maximum", "minimum")] == []
