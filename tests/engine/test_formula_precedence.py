"""Operators bind as in Python: a formula and the one with all the brackets that Python would set are the same graph."""

from __future__ import annotations

import ast
import random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chainrule_engine.errors import EngineError
from chainrule_engine.graph import Graph
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter

OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.USub: "-", ast.UAdd: "+"}


def expression(rng: random.Random, depth: int) -> str:
    """Terms with signs, joined by operators; brackets only where the die says so."""
    terms = []
    for _ in range(rng.randint(1, 4)):
        inner = f"({expression(rng, depth - 1)})" if depth and rng.random() < 0.3 else rng.choice(("p", "x", "y", "3"))
        terms.append(rng.choice(("", "", "", "-", "+", "--")) + inner)
    return "".join(term + rng.choice((" + ", " - ", " * ", "/", "**", "**")) for term in terms[:-1]) + terms[-1]


def bracketed(node: ast.AST) -> str:
    match node:
        case ast.Expression():
            return bracketed(node.body)
        case ast.BinOp():
            return f"({bracketed(node.left)}{OPERATORS[type(node.op)]}{bracketed(node.right)})"
        case ast.UnaryOp():
            return f"({OPERATORS[type(node.op)]}{bracketed(node.operand)})"
    return ast.unparse(node)


def built(formula: str) -> list[tuple[object, ...]]:
    """The nodes of the formula's graph, without the places where they are written."""
    inputs = [Input("x", ()), Input("y", ())]
    graph: Graph = Model.build(loss=formula, parameters=[Parameter("p", ())], inputs=inputs).loss
    number = {node: place for place, node in enumerate(graph.nodes)}
    return [
        (node.operation, tuple(number[operand] for operand in node.operands), node.name, node.value)
        for node in graph.nodes
    ]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_operators_bind_as_in_python(seed: int) -> None:
    formula = expression(random.Random(seed), 3)
    try:
        shown = built(formula)
    except EngineError:  # constants such as 3**3**3**3
        assume(False)
    assert shown == built(bracketed(ast.parse(formula, mode="eval"))), formula


def test_brackets_make_a_difference() -> None:
    assert built("-x**2 - y - p") == built("((-(x**2)) - y) - p")
    assert built("-x**2 - y - p") != built("(-x)**2 - y - p")
    assert built("x**y**p") == built("x**(y**p)")
    assert built("x**-y*p") == built("(x**(-y))*p")
    assert built("x/y p") == built("(x/y)*p")
