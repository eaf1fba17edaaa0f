"""Every wrong formula is refused with what is wrong, where, and what would be right; and at once."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from chainrule_engine.errors import FormulaError, ShapeMismatch
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter

PARAMETERS = [Parameter("V1", (16, 8)), Parameter("V2", (16, 16)), Parameter("V3", (16, 16)), Parameter("w", (16,))]
INPUTS = [Input("x", (8,)), Input("y", ()), Input("label", (), class_count=3)]


def refused(loss: str, prediction: str | None = None) -> FormulaError:
    with pytest.raises(FormulaError) as caught:
        Model.build(
            loss=loss, prediction=prediction, functions={"phi": "sigmoid"}, parameters=PARAMETERS, inputs=INPUTS
        )
    return caught.value


@pytest.mark.parametrize(
    ("loss", "column", "said"),
    [
        ("w @ phi(V3 @ V4)", 14, "unknown name 'V4'; the parameters are V1, V2, V3, w and the inputs x, y, label"),
        ("w @ sigmod(V1 @ x)", 5, "unknown function 'sigmod'; did you mean 'sigmoid'?"),
        ("w @ φ(V1 x) + ψ(y)", 15, 'say what it is in the model, for example psi = "sigmoid"'),
        ("", 1, "the formula is empty"),
        ("(w @ phi(V1 @ x)", 17, "'(' of column 1 needs a ')', but the formula ends"),
        ("y +", 4, "the formula ends where a term is expected"),
        ("y 2", 3, "an operator is missing before '2'"),
        ("y)", 2, "unexpected ')' after a complete formula"),
        ("x.T", 2, "unexpected character '.'"),
        ("__import__('os')", 12, 'unexpected character "\'"'),
        ("exp", 1, "'exp' is a function; write exp(…)"),
        ("max(y)", 1, "max takes 2 arguments, but has 1"),
        ("exp(y, y)", 1, "exp takes 1 arguments, but has 2"),
        ("leaky_relu(y, y)", 15, "'y' cannot be the slope of leaky_relu; it is a number from 0 to below 1"),
        ("dropout(y, 1)", 12, "'1' cannot be the rate of dropout"),
        ("x[8]", 2, "index 8 is out of range; indices run from 0 to 7"),
        ("x[y]", 3, "an index is a whole number"),
        ("label * y", 7, "'label' holds classes"),
        ("cross_entropy(V1 @ x, label)", 1, "there must be one logit for each of the 3 classes"),
        ("V1 @ x", 1, "the loss has shape (16,), but a loss is one number for each example"),
        ("1 / 0", 3, "is not a finite number"),
        ("prediction", 1, "unknown name 'prediction'"),
    ],
)
def test_an_error_says_what_and_at_which_column(loss: str, column: int, said: str) -> None:
    error = refused(loss)
    assert said in error.reason
    assert (error.field, error.column) == ("loss", column)
    assert str(error).startswith(f"loss at column {column}: ")


def test_shapes_that_do_not_fit_are_both_named() -> None:
    error = refused("w @ phi(V2 @ x) - y")
    assert isinstance(error, ShapeMismatch)
    assert error.column == 12
    assert "'V2' has shape (16, 16) and 'x' has shape (8,)" in error.reason
    assert "a left side of shape (16, 8) would fit" in error.reason


def test_the_formula_with_the_error_is_named() -> None:
    assert refused("(prediction - y)**2", "w @ V9").field == "prediction"
    assert refused("(prediction - z)**2", "w @ w").field == "loss"


@pytest.mark.parametrize(
    ("functions", "field"),
    [({"phi": "sigmoyd"}, "functions.phi"), ({"exp": "tanh"}, "functions.exp"), ({"ψ": "max"}, "functions.ψ")],
)
def test_a_wrong_function_is_named(functions: dict[str, str], field: str) -> None:
    with pytest.raises(FormulaError) as caught:
        Model.build(loss="y", functions=functions, parameters=PARAMETERS, inputs=INPUTS)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        (Parameter("V 1", (3,)), "is no name"),
        (Parameter("x", (3,)), "the name 'x' is taken"),
        (Parameter("exp", (3,)), "the name 'exp' is taken"),
        (Parameter("u", (0,)), "whole numbers from 1 up"),
        (Parameter("u", (10**6, 10**6)), "1000000000000 elements"),
    ],
)
def test_a_wrong_parameter_is_named(parameter: Parameter, said: str) -> None:
    with pytest.raises(FormulaError, match=said) as caught:
        Model.build(loss="y", parameters=[parameter], inputs=INPUTS)
    assert caught.value.field in (f"parameters.{parameter.name}", f"inputs.{parameter.name}")


HOSTILE = {
    "a million brackets": "(" * 1_000_000,
    "nested brackets": "(" * 5_000 + ")" * 5_000,
    "nested calls": "exp(" * 2_000,
    "signs": "-" * 9_000 + "y",
    "powers": "**".join(["9"] * 2_000),
    "huge powers": "9**9**9**9",
    "a huge power of a huge number": "9e300**9e300 * y",
    "a long number": "9" * 9_000,
    "a long name": "a" * 9_000,
    "a huge exponent": "1e999999999",
    "a matrix of 10^12": "y * sum(concatenate(" + "x, " * 3_000 + "x))" + "[" * 100,
    "an attribute": "x.__class__.__mro__",
    "a lambda": "(lambda: y)()",
    "a string": "'a' * 10**9",
    "a comparison": "x < y",
    "an unfinished index": "x[" * 3_000,
    "not a letter": "\x00" * 100,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_formula_is_refused_in_bounded_time_and_memory(name: str) -> None:
    refused("y +")  # imports are not counted
    start_s = time.process_time()
    refused(HOSTILE[name])
    assert time.process_time() - start_s < 0.1
    tracemalloc.start()
    refused(HOSTILE[name])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 50e6


def test_the_longest_formula_is_deep_and_does_not_overflow_the_stack() -> None:
    model = Model.build(loss="y" + "+y" * 4_999, parameters=[], inputs=INPUTS)
    assert len(model.loss.nodes) == 5_000
