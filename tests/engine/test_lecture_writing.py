"""The writing of a lecture: a head before the formula, three kinds of brackets, subscripts, primes, lookalikes."""

from __future__ import annotations

import pytest

from chainrule_engine.errors import FormulaError
from chainrule_engine.graph import Graph
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter

SHAPES = {"V1": (3, 3), "V2": (3, 3), "V3": (3, 3), "w": (3,), "w'": (3,), "V₀": (3, 3), "b": ()}


def built(loss: str) -> Model:
    return Model.build(
        loss=loss,
        functions={"phi": "sigmoid"},
        parameters=[Parameter(name, shape) for name, shape in SHAPES.items()],
        inputs=[Input("x", (3,)), Input("y", ())],
    )


def described(graph: Graph) -> list[tuple[object, ...]]:
    place = {node: number for number, node in enumerate(graph.nodes)}
    return [(n.operation, n.name, n.value, n.options, [place[o] for o in n.operands]) for n in graph.nodes]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (
            "Loss(x, y, V1, V2, V3, w) = (w · φ(V3φ(V2φ(V1φ(x)))) - y)^2",
            "(w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x)))) - y)**2",
        ),
        ("max{1 - (w · φ(x))y, 0}", "max(1 - (w @ phi(x)) * y, 0)"),
        ("L = b y", "b * y"),
        ("J(b) = b^2", "b**2"),
        ("ŷ(x) = b w · x", "b * w @ x"),
        ("[{w · x - y}² + b]²", "((w @ x - y)**2 + b)**2"),
        ("2[b + y]{b - y}", "2 * (b + y) * (b - y)"),
        ("max[b, y] + relu{b}", "max(b, y) + relu(b)"),
        ("w[0] + V1[1, 2] + {w + x}[1]", "w[0] + V1[1, 2] + (w + x)[1]"),
        ("w{V1 x}", "w @ (V1 @ x)"),
        ("b^[2]", "b**2"),
        ("w′ · x + w' · x", "w' @ x + w' @ x"),
        ("w’φ(x)", "w' @ phi(x)"),
        ("sum(V₀φ(x))", "sum(V₀ @ phi(x))"),
    ],
)
def test_a_lectures_writing_is_the_graph_of_the_plain_one(written: str, meant: str) -> None:
    assert described(built(written).loss) == described(built(meant).loss)


@pytest.mark.parametrize(
    ("loss", "column", "said"),
    [
        ("Loss(x, V4) = b", 9, "unknown name 'V4'"),
        ("Loss(x, 2) = b", 9, "unexpected '2'; before '=' stand a name and the names"),
        ("Loss(x y) = b", 8, "unexpected 'y'"),
        ("Loss() = b", 6, "a name is missing; before '='"),
        ("Loss(x) = b + V4", 15, "unknown name 'V4'"),
        ("Loss(x) = ", 11, "the formula is empty"),
        ("Loss(x) == b", 9, "unexpected character '='"),
        ("b = y = b", 7, "unexpected character '='"),
        ("max{b, y)", 9, "'{' of column 4 needs a '}', but found ')'"),
        ("[b + y", 7, "'[' of column 1 needs a ']', but the formula ends"),
        ("w[b]", 3, "an index is a whole number, counted from 0; for a product write ( in place of ["),
        ("w[-1]", 3, "an index is a whole number"),
        (
            "b + V₃[0, 0]",
            5,
            "unknown name 'V₃'; it looks like 'V3', but has '₃' (subscript three) for '3' (digit three)",
        ),
        ("sum(х)", 5, "looks like 'x', but has 'х' (cyrillic small letter ha) for 'x' (latin small letter x)"),
        ("у + b", 1, "it looks like 'y', but has 'у' (cyrillic small letter u)"),
        ("ω · x", 1, "it looks like 'w', but has 'ω' (greek small letter omega)"),
        ("rеlu(b)", 1, "it looks like 'relu', but has 'е' (cyrillic small letter ie)"),
    ],
)
def test_what_is_wrong_is_shown_at_its_column(loss: str, column: int, said: str) -> None:
    with pytest.raises(FormulaError) as caught:
        built(loss)
    assert said in caught.value.reason
    assert (caught.value.field, caught.value.column) == ("loss", column)


@pytest.mark.parametrize(("first", "second"), [("a'", "a′"), ("a″", "a''"), ("a‴", "a′″")])
def test_primes_that_look_alike_are_one_name(first: str, second: str) -> None:
    with pytest.raises(FormulaError, match="is taken"):
        Model.build(loss="1", parameters=[Parameter(first, ()), Parameter(second, ())], inputs=[])


def test_brackets_of_each_kind_are_bounded() -> None:
    for opening, closing in ("()", "[]", "{}"):
        with pytest.raises(FormulaError, match="nested more than 100 deep"):
            built(opening * 300 + "b" + closing * 300)
