"""Random formulas over all operations, with random values, and the same computation in PyTorch.

Every argument is led through a bounded function first where an operation's domain or growth asks for it, so that
values stay moderate and every formula has a derivative everywhere but at kinks.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from chainrule_engine.graph import Graph, Node
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter

DIMENSIONS = (1, 2, 3, 4)
CLASSES = 3

# {} is the operand.
UNARY = [
    "-{}", "{}**2", "sqrt(1 + {}**2)", "abs({})", "exp(tanh({}))", "log(1 + {}**2)", "log1p({}**2)", "sigmoid({})",
    "tanh({})", "relu({})", "leaky_relu({})", "leaky_relu({}, 0.3)", "softplus({})", "silu({})", "gelu({})",
    "sin({})", "cos({})", "(1.5 + tanh({}))**1.7", "1 / (2 + sin({}))", "0.5 * {}", "{} - 0.3", "2**tanh({})",
]  # fmt: skip
BINARY = [
    "{} + {}", "{} - {}", "{} * {}", "{} / (2 + sin({}))", "max({}, {})", "min({}, {})", "(2 + sin({}))**tanh({})",
    "squared({}, {})", "absolute({}, {})", "huber({}, {})", "huber({}, {}, 0.4)", "hinge({}, {})", "logistic({}, {})",
]  # fmt: skip
TO_SCALAR = ["sum({})", "mean({})", "norm({})"]
OF_VECTOR = ["softmax({})", "log_softmax({})"]


@dataclass
class Case:
    """A random formula as a model, with values. values: all leaves by name, float32 (classes int64)."""

    formula: str
    model: Model
    row_count: int
    values: dict[str, np.ndarray]
    parameters: np.ndarray
    inputs: dict[str, np.ndarray]
    seed: int

    def __repr__(self) -> str:
        shapes = {p.name: p.shape for p in self.model.layout.parameters} | {i.name: i.shape for i in self.model.inputs}
        return f"Case({self.formula!r}, {shapes}, row_count={self.row_count}, seed={self.seed})"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # how hypothesis shows it
        printer.text(repr(self))


class _Writer:
    def __init__(self, seed: int, normalization: bool) -> None:
        self.random = random.Random(seed)
        self.normalization = normalization
        self.parameters: list[Parameter] = []
        self.inputs: dict[str, Input] = {}

    def pick(self, options: Any) -> Any:
        return self.random.choice(list(options))

    def leaf(self, shape: tuple[int, ...]) -> str:
        kind = self.pick(("parameter", "old parameter", "input", "input"))
        known = [p.name for p in self.parameters if p.shape == shape]
        if kind == "old parameter" and known:
            return str(self.pick(known))
        if kind == "input":
            name = "x" + "_".join(map(str, shape))
            self.inputs[name] = Input(name, shape)
            return name
        self.parameters.append(Parameter(f"P{len(self.parameters)}", shape))
        return self.parameters[-1].name

    def expression(self, shape: tuple[int, ...], depth: int) -> str:
        if depth == 0:
            return self.leaf(shape)
        kinds = ["unary", "unary", "binary", "binary", "scalar with"]
        if self.normalization:
            kinds.append("dropout")
        if not shape:
            kinds += ["reduce", "dot", "logsumexp", "cross_entropy", "component", "reduce"]
        if len(shape) == 1:
            kinds += ["matrix vector", "matrix vector", "vector matrix", "of vector", "concatenate", "row"]
        if len(shape) == 2:
            kinds += ["matrix matrix", "of vector"]
        kind = self.pick(kinds)
        length = self.pick(DIMENSIONS)

        def deeper(of: tuple[int, ...]) -> str:
            return "(" + self.expression(of, depth - 1) + ")"

        if kind == "unary":
            return "(" + self.pick(UNARY).format(deeper(shape)) + ")"
        if kind == "binary":
            return "(" + self.pick(BINARY).format(deeper(shape), deeper(shape)) + ")"
        if kind == "scalar with":
            pair = [deeper(()), deeper(shape)]
            return "(" + self.pick(BINARY).format(*self.pick((pair, pair[::-1]))) + ")"
        if kind == "dropout":
            text = f"dropout({deeper(shape)}, 0.4)"
            if len(shape) == 1 and shape[0] > 1:
                normalized = f"layer_norm({deeper(shape)} + {self.leaf(shape)}, 0.5)"
                text = self.pick((text, normalized, f"batch_norm({deeper(shape)} + x{shape[0]}, 0.5)"))
                self.inputs[f"x{shape[0]}"] = Input(f"x{shape[0]}", shape)
            return str(text)
        if kind == "reduce":
            return str(self.pick(TO_SCALAR).format(deeper(self.pick(((length,), (length, self.pick(DIMENSIONS)))))))
        if kind == "dot":
            return f"(tanh{deeper((length,))} @ {deeper((length,))})"
        if kind == "logsumexp":
            return f"logsumexp({deeper((length,))})"
        if kind == "cross_entropy":
            self.inputs["label"] = Input("label", (), class_count=CLASSES)
            return f"cross_entropy({deeper((CLASSES,))}, label)"
        if kind == "component":
            return f"({deeper((length,))}[{self.pick(range(length))}])"
        if kind == "row":
            return f"({deeper((length, *shape))}[{self.pick(range(length))}])"
        if kind == "matrix vector":
            return f"({deeper((*shape, length))} @ tanh{deeper((length,))})"
        if kind == "vector matrix":
            return f"(tanh{deeper((length,))} @ {deeper((length, *shape))})"
        if kind == "matrix matrix":
            return f"({deeper((shape[0], length))} @ tanh{deeper((length, shape[1]))})"
        if kind == "of vector":
            return str(self.pick(OF_VECTOR).format(deeper(shape)))
        first = self.random.randrange(shape[0])
        if first == 0:
            return f"concatenate({deeper(shape)})"
        return f"concatenate({deeper((first,))}, {deeper((shape[0] - first,) if shape[0] - first > 1 else ())})"


@st.composite
def cases(draw: Any, *, normalization: bool = False, depth: int = 6) -> Case:
    """A random formula with values. normalization: with dropout, layer_norm and batch_norm, too."""
    # Drawn from a seed, formulas are as long as their depth allows; hypothesis itself would prefer the shortest.
    seed = draw(st.integers(0, 2**32 - 1))
    writer = _Writer(seed, normalization)
    formula = writer.expression((), draw(st.integers(1, depth)))
    if not writer.parameters:
        formula = f"{formula} * {writer.leaf(())} + {writer.expression((), 1)}"
    row_count = draw(st.sampled_from((1, 2, 3, 4, 7)))
    model = Model.build(loss=formula, parameters=writer.parameters, inputs=list(writer.inputs.values()))
    rng = np.random.default_rng(seed)
    parameters = rng.normal(size=model.layout.size).astype(np.float32)
    inputs: dict[str, np.ndarray] = {}
    for each in model.inputs:
        if each.class_count is None:
            inputs[each.name] = rng.normal(size=(row_count, *each.shape)).astype(np.float32)
        else:
            inputs[each.name] = rng.integers(0, each.class_count, row_count)
    values = {**model.layout.views(parameters), **inputs}
    return Case(formula, model, row_count, values, parameters, inputs, seed)


def distance_to_a_kink(graph: Graph, f: dict[Node, Any]) -> float:
    """How near any value is to a point without a derivative."""
    distances = [np.inf]
    for node in graph.nodes:
        if node.is_leaf:
            continue
        operands = [f[operand] for operand in node.operands]
        if len(operands) == 2 and node.shape:  # a scalar goes with every element of its row
            operands = [
                o.reshape((-1,) + (1,) * len(node.shape)) if operand.batched and not operand.shape else o
                for o, operand in zip(operands, node.operands, strict=True)
            ]
        near: Any = np.inf
        if node.operation in ("maximum", "minimum", "absolute"):
            near = np.abs(operands[0] - operands[1])
        elif node.operation in ("abs", "relu", "leaky_relu"):
            near = np.abs(operands[0])
        elif node.operation == "huber":
            near = np.abs(np.abs(operands[0] - operands[1]) - node.options[0])
        elif node.operation == "hinge":
            near = np.abs(1 - operands[0] * operands[1])
        elif node.operation == "norm":
            near = f[node]
        distances.append(float(np.min(near)))
    return min(distances)
