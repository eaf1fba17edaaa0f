"""What the entries of the table say to readers is what they compute."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from chainrule_engine.graph import Node
from chainrule_engine.model import Input, Model
from chainrule_engine.operations import OPERATIONS, Axiswise, Elementwise, Operation
from chainrule_engine.operations.products import PRODUCTS
from chainrule_engine.parameters import Parameter

# From the writing of the formulas to Python's, in this order.
SPELLINGS = {
    "−": "-", "²": "**2", "aᵇ⁻¹": "a**(b-1)", "eᵃᵇ": "exp(a*b)", "√": "sqrt", "1[": "[", "[": "(", "]": ")",
    "ln a": "log(a)", "sin a": "sin(a)", "cos a": "cos(a)", "sign a": "sign(a)", "δ": "option", "ε": "option",
    "slope": "option", "rate": "option", "2a": "2*a", "2f": "2*f",
}  # fmt: skip
# What is a name of its own.
UNWRITTEN = ("gelu",)


def evaluated(formula: str, names: dict[str, Any]) -> Any:
    """The value of a formula for readers."""
    for written, python in SPELLINGS.items():
        formula = formula.replace(written, python)
    # Two terms side by side are a product.
    formula = re.sub(r"(?<=[\w)]) (?=[\w(])", "*", formula)
    functions = {name: getattr(np, name) for name in ("exp", "log", "sin", "cos", "sqrt", "sign")}
    functions |= {"max": np.maximum, "min": np.minimum, "σ": lambda a: 1 / (1 + np.exp(-a))}
    return eval(formula, {"__builtins__": {}}, functions | names)  # noqa: S307  (our own table)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_every_operation_says_its_partial_derivatives(operation: Operation) -> None:
    if operation in PRODUCTS:
        return
    assert len(operation.partial_formulas) == (operation.operand_count or 1)
    if isinstance(operation, Axiswise):
        assert len(operation.pullback_formulas) == len(operation.pullbacks)
        said = zip(operation.pullbacks, operation.partial_formulas, operation.pullback_formulas, strict=True)
        assert all((rule is not None) == bool(partial) == bool(pullback) for rule, partial, pullback in said)
    else:
        assert all(operation.partial_formulas)


@pytest.mark.parametrize(
    "operation",
    [each for each in OPERATIONS.values() if isinstance(each, Elementwise) and each.name not in UNWRITTEN],
    ids=lambda operation: operation.name,
)
def test_a_partial_derivative_is_the_one_that_is_written(operation: Elementwise) -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.uniform(0.2, 2.0, (3, 50))
    if operation.name not in ("sqrt", "log", "log1p", "power", "normalize"):
        a, b = a * rng.choice([-1, 1], 50), b * rng.choice([-1, 1], 50)
    operands = (a, b, c)[: operation.operand_count]
    option = 0.3
    options = (option,) * len(operation.options)
    f = operation.value(*operands, *options)
    names = {"a": a, "b": b, "c": c, "f": f, "option": option}
    for partial, formula in zip(operation.partials, operation.partial_formulas, strict=True):
        expected = np.broadcast_to(partial(f, *operands, *options), f.shape)
        np.testing.assert_allclose(np.broadcast_to(evaluated(formula, names), f.shape), expected, rtol=1e-12)


def test_a_scalar_among_vectors_gets_the_sum_of_what_they_contribute() -> None:
    assert pullbacks("s * v") == ["sum(g · b)", "g · a"]
    assert pullbacks("v - s") == ["g", "sum(−g)"]
    assert pullbacks("s * s") == ["g · b", "g · a"]


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("v @ v", ["g b", "g a"]),
        ("A @ v", ["g bᵀ", "aᵀ g"]),
        ("v @ A", ["b g", "a gᵀ"]),
        ("A @ A", ["g bᵀ", "aᵀ g"]),
    ],
)
def test_each_product_says_its_own_pullbacks(formula: str, expected: list[str]) -> None:
    assert pullbacks(formula) == expected


def test_each_operand_of_many_has_the_same_formula() -> None:
    assert pullbacks("concatenate(v, v, s)") == ["its part of g"] * 3


def test_an_entry_that_says_nothing_gets_the_chain_rule() -> None:
    cube = Elementwise("cube", "a³", 1, value=lambda a: a * a * a, partials=(lambda _, a: 3 * a * a,))
    node = Node(1, "cube", (Node(0, "parameter", name="a"),))
    assert (cube.partial_formula(node, 0), cube.pullback_formula(node, 0)) == ("cube′", "g · cube′")


def pullbacks(formula: str) -> list[str]:
    """What the root's g contributes to each operand."""
    parameters = [Parameter("s", ()), Parameter("v", (3,)), Parameter("A", (3, 3))]
    model = Model.build(loss=f"norm({formula})", parameters=parameters, inputs=[Input("x", ())])
    node = model.loss.root.operands[0]
    return [OPERATIONS[node.operation].pullback_formula(node, index) for index in range(len(node.operands))]
