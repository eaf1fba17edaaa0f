"""Parts with names: what they mean, that they change no bits, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings

from chainrule_engine.definitions import Definition
from chainrule_engine.errors import FormulaError, ShapeMismatch
from chainrule_engine.graph import Graph, Node
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter
from tests.engine.random_formulas import Case, cases

SHAPES = {"V1": (3, 3), "V2": (3, 3), "w": (3,), "b": ()}


def built(loss: str, definitions: Mapping[str, str] | None = None, prediction: str | None = None) -> Model:
    return Model.build(
        loss=loss,
        prediction=prediction,
        functions={"phi": "tanh"},
        definitions=[Definition(name, formula) for name, formula in (definitions or {}).items()],
        parameters=[Parameter(name, shape) for name, shape in SHAPES.items()],
        inputs=[Input("x", (3,)), Input("y", ())],
    )


def graph_of(graph: Graph) -> list[tuple[Any, ...]]:
    """The graph as values that can be compared; their order is that of every sum of gradients.

    Constants have no gradient, so their order is of no account."""
    nodes = [node for node in graph.nodes if node.operation != "constant"]
    place: dict[Node, Any] = {node: number for number, node in enumerate(nodes)}
    place |= {node: repr(node.value) for node in graph.nodes if node.operation == "constant"}
    return [(n.operation, [place[o] for o in n.operands], n.shape, n.batched, n.options, n.name) for n in nodes]


def refused(definitions: Mapping[str, str], loss: str = "y", prediction: str | None = None) -> FormulaError:
    with pytest.raises(FormulaError) as caught:
        built(loss, definitions, prediction)
    return caught.value


@pytest.mark.parametrize(
    ("definitions", "loss", "written_out"),
    [
        ({"hidden": "phi(V1 @ x)"}, "w @ hidden + sum(hidden) - y", "w @ phi(V1 @ x) + sum(phi(V1 @ x)) - y"),
        ({"f(a)": "a**2 + b"}, "f(w @ x) * f(y)", "((w @ x)**2 + b) * (y**2 + b)"),
        # What is defined first is used last.
        ({"p": "V1 @ x", "q": "V2 @ x"}, "sum(phi(x) + q + p + x)", "sum(phi(x) + V2 @ x + V1 @ x + x)"),
        # An argument that the formula uses after other things.
        ({"f(h)": "V1 @ x + h"}, "sum(f(phi(x)) + x)", "sum(V1 @ x + phi(x) + x)"),
        ({"f(h, g)": "g + h"}, "sum(f(phi(x), V1 @ x) + x)", "sum(V1 @ x + phi(x) + x)"),
        ({"f(V, h)": "phi(V @ h) + h"}, "sum(f(V2, f(V1, x)))", "sum(phi(V2 @ (phi(V1 @ x) + x)) + (phi(V1 @ x) + x))"),
        ({"f(h)": "V1(h + x)", "g": "f(x)"}, "sum(g)", "sum(V1 @ (x + x))"),
        ({"m(a, c)": "max(a, c, y)"}, "m(w @ x, b)", "max(w @ x, b, y)"),
        ({"n(h)": "dropout(h, 0.5)"}, "x[0] * n(y) * n(y)", "x[0] * dropout(y, 0.5) * dropout(y, 0.5)"),
        ({"d1": "dropout(y, 0.5)", "d2": "dropout(b, 0.5)"}, "d2 - d1", "dropout(b, 0.5) - dropout(y, 0.5)"),
        # The arguments of a function are its own.
        ({"f(w)": "w * 2", "g(x)": "f(x)"}, "g(y) - w @ x", "y * 2 - w @ x"),
        ({"half": "0.5", "f(r)": "leaky_relu(y, r)"}, "f(half)", "leaky_relu(y, 0.5)"),
    ],
)  # fmt: skip
def test_definitions_are_the_graph_of_the_formula_written_out(
    definitions: dict[str, str], loss: str, written_out: str
) -> None:
    assert graph_of(built(loss, definitions).loss) == graph_of(built(written_out).loss)
    with_prediction = built("(prediction - y)**2 + b", definitions, loss)
    assert graph_of(with_prediction.loss) == graph_of(built("(prediction - y)**2 + b", None, written_out).loss)


@settings(deadline=None)
@given(cases(normalization=True))
def test_a_definition_that_nothing_uses_changes_no_graph(case: Case) -> None:
    parameters, inputs = case.model.layout.parameters, list(case.model.inputs)
    definitions = [Definition("unused", "0.125")]
    model = Model.build(loss=case.formula, definitions=definitions, parameters=parameters, inputs=inputs)
    assert graph_of(model.loss) == graph_of(case.model.loss)
    assert graph_of(model.evaluation_loss) == graph_of(case.model.evaluation_loss)


def test_a_definition_without_arguments_is_one_value_even_where_it_draws() -> None:
    graph = built("noisy * noisy", {"noisy": "dropout(y, 0.5)"}).loss
    assert [node.operation for node in graph.nodes].count("mask") == 1


def test_a_definition_that_uses_the_prediction_is_for_the_loss() -> None:
    definitions = {"residual": "prediction - y", "scaled(a)": "a * residual"}
    model = built("residual * residual + scaled(b)", definitions, "w @ x")
    assert graph_of(model.loss) == graph_of(built("(w @ x - y) * (w @ x - y) + b * (w @ x - y)").loss)
    error = refused(definitions, "residual", "w @ x + residual")
    assert (error.field, error.column) == ("prediction", 9)
    assert "'residual' is defined with prediction, so only the loss can use it" in error.reason
    error = refused(definitions, "residual", "scaled(b)")
    assert error.field == "definitions.scaled"


def test_the_value_that_a_definition_names_has_its_name_as_title() -> None:
    definitions = {"layer(V, h)": "phi(V @ h) + h", "first": "layer(V1, x)"}
    titles = {node.title: node for node in built("sum(layer(V2, first))", definitions).loss.nodes if node.title}
    assert list(titles) == ["first", "layer(V2, first)"]
    assert {node.operation for node in titles.values()} == {"add"}
    assert titles["first"].within == "layer(V1, x)"


@pytest.mark.parametrize(
    ("definitions", "field", "column", "said"),
    [
        ({"h": "x + h"}, "h", 5, "'h' is used in its own definition"),
        ({"f(a)": "f(a) + 1"}, "f", 1, "'f' is used in its own definition"),
        ({"p": "1 + q", "q": "y"}, "p", 5, "'q' is defined below; a definition may use those before it, so move it up"),
        ({"f(a)": "g(a)", "g(a)": "f(a)"}, "f", 1, "'g' is defined below"),
        ({"h": "x", "h(a)": "a"}, "h", None, "'h' is defined twice"),
        ({"V1": "x"}, "V1", None, "the name 'V1' is taken: it is a parameter, an input or the prediction"),
        ({"x": "y"}, "x", None, "is taken"),
        ({"prediction": "y"}, "prediction", None, "is taken"),
        ({"relu": "y"}, "relu", None, "the name 'relu' is taken: it is a function"),
        ({"φ(a)": "a"}, "phi", None, "is taken: it is a function"),
        ({"f(relu)": "relu"}, "f", None, "the argument 'relu' has the name of a function or a definition"),
        ({"h": "y", "f(h)": "h"}, "f", None, "the argument 'h' has the name of a function or a definition"),
        ({"f(a, a)": "a"}, "f(a, a)", None, "the argument 'a' is there twice"),
        ({"f(a, c)": "a"}, "f", 1, "the argument 'c' is not used"),
        ({"f()": "1"}, "f()", None, "unexpected ')' at column 3 of the name"),
        ({"f(a": "a"}, "f(a", None, "unexpected"),
        ({"f(a,)": "a"}, "f(a,)", None, "unexpected ')' at column 5 of the name"),
        ({"f(a) b": "a"}, "f(a) b", None, "unexpected"),
        ({"f a": "a"}, "f a", None, "unexpected 'a' at column 3 of the name"),
        ({"2": "a"}, "2", None, "unexpected '2' at column 1 of the name"),
        ({"": "a"}, "", None, "a definition is called by a name"),
        ({"f(a)": "a + "}, "f", 5, "the formula ends where a term is expected"),
        ({"f(a)": "a + V9"}, "f", 5, "unknown name 'V9'"),
        ({"f(a)": "a + reluu(a)"}, "f", 5, "unknown function 'reluu'; did you mean 'relu'?"),
        ({"h": "V1 @ y"}, "h", 4, "'V1' has shape (3, 3)"),
        ({"h": ""}, "h", 1, "the formula is empty"),
        ({"h": "prediction + 1"}, "h", 1, "unknown name 'prediction'"),
    ],
)
def test_a_wrong_definition_is_refused_with_its_name_and_column(
    definitions: dict[str, str], field: str, column: int | None, said: str
) -> None:
    error = refused(definitions)
    assert said in error.reason
    assert (error.field, error.column) == (f"definitions.{field}", column)


def test_an_error_within_a_function_says_where_it_was_called() -> None:
    error = refused({"f(V, h)": "phi(V @ h)", "g(h)": "f(V1, h)"}, "1 + sum(g(y))")
    assert error.field == "definitions.f"
    assert error.reason.endswith("; called as 'f(V1, h)' at column 1 of definitions.g")
    error = refused({"f(V, h)": "phi(V @ h)"}, "1 + sum(f(V1, y))")
    assert isinstance(error, ShapeMismatch)
    assert (error.field, error.column) == ("definitions.f", 7)
    assert error.reason.endswith("; called as 'f(V1, y)' at column 9 of loss")
    error = refused({"f(V, h)": "V @ h"}, "sum(f(V1))")
    assert (error.field, error.column) == ("loss", 5)
    assert "f(V, h) takes 2 arguments, but has 1" in error.reason
    assert "f is a function" in refused({"f(a)": "a"}, "f + 1").reason.replace("'", "")


@pytest.mark.parametrize(
    "body", ["{0}(a) + {0}(a)", "{0}({0}(a))", "{0}(a + 1) + {0}(a + 2)", "{0}(a * 2) * {0}(a * 3)"]
)
@pytest.mark.parametrize("first", ["a", "a**2 + 1", "dropout(a, 0.5)"])
def test_definitions_that_grow_exponentially_are_small_or_refused(body: str, first: str) -> None:
    definitions = {"f0(a)": first} | {f"f{n}(a)": body.format(f"f{n - 1}") for n in range(1, 30)}
    try:
        model = built("f29(y)", definitions)
    except FormulaError as error:
        assert "different calls" in error.reason or "nested more than" in error.reason  # noqa: PT017
    else:
        assert len(model.loss.nodes) < 1000


def test_a_chain_of_a_hundred_calls_overflows_no_stack() -> None:
    definitions = {"f0(a)": "((((a))))"} | {f"f{n}(a)": f"((((f{n - 1}(a) + 1))))" for n in range(1, 300)}
    assert "nested more than 100 deep" in refused(definitions, "f299(y)").reason


def test_a_thousand_values_one_after_the_other_are_read() -> None:
    definitions = {"h0": "y"} | {f"h{n}": f"h{n - 1} + b" for n in range(1, 1000)}
    assert len(built("h999", definitions).loss.nodes) == 1001
    assert "there are 1001 definitions" in refused(definitions | {"h1000": "y"}).reason
    assert "at most 50000 are read" in refused({f"h{n}": " " * 9000 + "y" for n in range(6)}).reason
