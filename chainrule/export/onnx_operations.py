"""Each operation that a prediction can use, beside what it is in ONNX (opset 18).

A rule takes the writer, the node and the names of the operands' values, aligned as the engine aligns them, and gives
the name of the result. A value is (rows, *shape) where the node is batched and (*shape) where it is not, as in the
engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from chainrule.export.onnx_writer import Writer

if TYPE_CHECKING:
    from chainrule_engine.graph import Node

Rule = Callable[..., str]


def _matmul(w: Writer, node: Node, a: str, b: str) -> str:
    left, right = node.operands
    # V @ x of the rows: (rows, j) by the transpose of (i, j).
    if not left.batched and right.batched and (len(left.shape), len(right.shape)) == (2, 1):
        return w("MatMul", b, w("Transpose", a, perm=[1, 0]))
    if left.batched and not right.batched and len(left.shape) == 1:
        return w("MatMul", a, b)
    from chainrule_engine.operations.products import letters_of

    letters = letters_of(node)
    return w("Einsum", a, b, equation=f"{letters[0]},{letters[1]}->{letters[2]}")


def _axes(node: Node) -> list[int]:
    """The axes of one example of a node, from the end."""
    return list(range(-len(node.shape), 0))


def _reduced(w: Writer, operation: str, node: Node, a: str, *, keepdims: int = 0) -> str:
    """Over all axes of one example; a number is its own sum."""
    return w(operation, a, w.integers(_axes(node)), keepdims=keepdims) if node.shape else a


def _last(w: Writer, operation: str, a: str, *, keepdims: int = 0) -> str:
    return w(operation, a, w.integers([-1]), keepdims=keepdims)


def _norm(w: Writer, node: Node, a: str) -> str:
    # As the engine: scaled by the largest element, or by the smallest normal float32.
    operand = node.operands[0]
    largest = w("Max", _reduced(w, "ReduceMax", operand, w("Abs", a), keepdims=1), w.number(2.0**-126))
    scaled = w("Div", a, largest)
    length = w("Sqrt", _reduced(w, "ReduceSum", operand, w("Mul", scaled, scaled), keepdims=1))
    return w("Squeeze", w("Mul", largest, length), w.integers(_axes(operand)))


def _shifted(w: Writer, a: str) -> tuple[str, str, str]:
    """max a, a − max a, and ln Σ e^(a − max a), along the last axis, which is kept."""
    largest = _last(w, "ReduceMax", a, keepdims=1)
    shifted = w("Sub", a, largest)
    return largest, shifted, w("Log", _last(w, "ReduceSum", w("Exp", shifted), keepdims=1))


def _log_softmax(w: Writer, a: str) -> str:
    _, shifted, logarithm = _shifted(w, a)
    return w("Sub", shifted, logarithm)


def _logsumexp(w: Writer, a: str) -> str:
    largest, _, logarithm = _shifted(w, a)
    return w("Squeeze", w("Add", logarithm, largest), w.integers([-1]))


def _layer_norm(w: Writer, node: Node, a: str) -> str:
    centred = a
    # Twice, as the engine does: the mean of large numbers is rounded.
    for _ in range(2):
        centred = w("Sub", centred, _reduced(w, "ReduceMean", node, centred, keepdims=1))
    variance = _reduced(w, "ReduceMean", node, w("Mul", centred, centred), keepdims=1)
    return w("Div", centred, w("Sqrt", w("Add", variance, w.number(node.options[0]))))


def _component(w: Writer, node: Node, a: str) -> str:
    first = 1 if node.operands[0].batched else 0
    for index in node.options:
        # The next index is along the same axis, because this one takes it away.
        a = w("Gather", a, w.integer(int(index)), axis=first)
    return a


def _concatenate(w: Writer, node: Node, *values: str) -> str:
    columns = [
        value if operand.shape else w("Unsqueeze", value, w.integers([-1]))
        for operand, value in zip(node.operands, values, strict=True)
    ]
    return w("Concat", *columns, axis=-1)


def _log1p(w: Writer, a: str) -> str:
    # ln(1 + a) · a / ((1 + a) − 1), and a itself where 1 + a is 1: ONNX has no log1p, and near 0 ln(1 + a) loses it.
    # Source: Goldberg 1991, "What every computer scientist should know about floating-point arithmetic", theorem 4.
    one = w.number(1.0)
    sum_ = w("Add", a, one)
    is_tiny = w("Equal", sum_, one)
    # Where it is taken, the divisor isn't 0.
    divisor = w("Where", is_tiny, one, w("Sub", sum_, one))
    return w("Where", is_tiny, a, w("Div", w("Mul", w("Log", sum_), a), divisor))


def _softplus(w: Writer, a: str) -> str:
    """ln(1 + eᵃ) = max(a, 0) + ln(1 + e^−|a|)."""
    return w("Add", w("Relu", a), _log1p(w, w("Exp", w("Neg", w("Abs", a)))))


def _gelu(w: Writer, a: str) -> str:
    cubic = w("Add", w.number(1.0), w("Mul", w.number(0.044715), w("Mul", a, a)))
    tanh = w("Tanh", w("Mul", w("Mul", w.number(math.sqrt(2 / math.pi)), a), cubic))
    return w("Mul", w("Mul", w.number(0.5), a), w("Add", w.number(1.0), tanh))


def _square(w: Writer, a: str) -> str:
    return w("Mul", a, a)


def _huber(w: Writer, a: str, b: str, delta: float) -> str:
    distance = w("Abs", w("Sub", a, b))
    near = w("Min", distance, w.number(delta))
    return w("Mul", near, w("Sub", distance, w("Mul", w.number(0.5), near)))


def _plain(operation: str) -> Rule:
    return lambda w, node, *values: w(operation, *values)  # noqa: ARG005


RULES: dict[str, Rule] = {
    "add": _plain("Add"),
    "subtract": _plain("Sub"),
    "multiply": _plain("Mul"),
    "divide": _plain("Div"),
    "power": _plain("Pow"),
    "negative": _plain("Neg"),
    "square": lambda w, _, a: _square(w, a),
    "sqrt": _plain("Sqrt"),
    "abs": _plain("Abs"),
    "maximum": _plain("Max"),
    "minimum": _plain("Min"),
    "exp": _plain("Exp"),
    "log": _plain("Log"),
    "log1p": lambda w, _, a: _log1p(w, a),
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "relu": _plain("Relu"),
    "leaky_relu": lambda w, node, a: w("LeakyRelu", a, alpha=node.options[0]),
    "softplus": lambda w, _, a: _softplus(w, a),
    "silu": lambda w, _, a: w("Mul", a, w("Sigmoid", a)),
    "gelu": lambda w, _, a: _gelu(w, a),
    "sin": _plain("Sin"),
    "cos": _plain("Cos"),
    "matmul": _matmul,
    "sum": lambda w, node, a: _reduced(w, "ReduceSum", node.operands[0], a),
    "mean": lambda w, node, a: _reduced(w, "ReduceMean", node.operands[0], a),
    "norm": _norm,
    "softmax": lambda w, _, a: w("Softmax", a, axis=-1),
    "log_softmax": lambda w, _, a: _log_softmax(w, a),
    "logsumexp": lambda w, _, a: _logsumexp(w, a),
    "component": _component,
    "concatenate": _concatenate,
    "squared": lambda w, _, a, b: _square(w, w("Sub", a, b)),
    "absolute": lambda w, _, a, b: w("Abs", w("Sub", a, b)),
    "huber": lambda w, node, a, b: _huber(w, a, b, node.options[0]),
    "hinge": lambda w, _, a, b: w("Relu", w("Sub", w.number(1.0), w("Mul", a, b))),
    "logistic": lambda w, _, a, b: _softplus(w, w("Neg", w("Mul", a, b))),
    "layer_norm": _layer_norm,
    "normalize": lambda w, node, a, b, c: w("Div", w("Sub", a, b), w("Sqrt", w("Add", c, w.number(node.options[0])))),
}
