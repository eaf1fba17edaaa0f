"""The three kinds of operation, and what each must say of itself.

An operation states its value and its derivatives in plain numpy, side by side, and only once: the interpreter calls
these functions with arrays, the compiled plan traces them. They must therefore be written with operators, numpy's
ufuncs and the methods `sum` and `max`; and must not look at the values to decide what to do. Beside them stand the same
formulas for readers, with which a picture of the graph explains itself.
"""

# ruff: noqa: ARG002, ARG005  (all rules of a kind take the same arguments)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule_engine.graph import Node

# Any: arrays in the interpreter, traced values in the plan, so that an operation is written once for both.
Array = Any
Shape = tuple[int, ...]


class Misfit(Exception):
    """Operands that an operation cannot take; the message says what would fit. The builder adds names and column."""


@dataclass(frozen=True)
class OptionRule:
    """A number that an operation takes after its operands, such as the rate of dropout: `low` <= number < `high`."""

    name: str
    default: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Operation:
    """What all kinds have. operand_count: None means one or more. symbol: to write on a box.

    For readers, in the operands' letters a, b, c, the value f, and g = ∂loss/∂f: formula, and partial_formulas, which
    has ∂f/∂operand for each operand ('' for one that has no derivative)."""

    name: str
    formula: str
    operand_count: int | None
    options: tuple[OptionRule, ...] = ()
    symbol: str = ""
    partial_formulas: tuple[str, ...] = ()

    def shape(self, *operands: Node, options: tuple[float, ...]) -> Shape:
        """The shape of the result for one example. Raises Misfit."""
        raise NotImplementedError(f"operation '{self.name}' has no rule for its shape")

    def forward(self, node: Node, *values: Array) -> Array:
        """f of the node from the values of its operands."""
        raise NotImplementedError(f"operation '{self.name}' has no forward")

    def pullback(self, node: Node, index: int, g: Array, f: Array, *values: Array) -> Array:
        """What g of the node contributes to g of operand `index`: its local partial derivative applied to g."""
        raise NotImplementedError(f"operation '{self.name}' has no derivative for operand {index + 1}")

    def partial_formula(self, node: Node, index: int) -> str:
        """∂f/∂operand for readers; where the entry doesn't say it, the name with a prime."""
        if not self.partial_formulas:
            return f"{self.name}′"
        # With any number of operands, one formula is for all of them.
        return self.partial_formulas[0 if self.operand_count is None else index]

    def pullback_formula(self, node: Node, index: int) -> str:
        """What g contributes to g of operand `index`, for readers."""
        partial = self.partial_formula(node, index)
        return {"1": "g", "−1": "−g"}.get(partial, f"g · ({partial})" if " " in partial else f"g · {partial}")


@dataclass(frozen=True)
class Elementwise(Operation):
    """Element by element; a scalar goes with every element, and gets the sum of what they contribute.

    value: (a, b, …, options…) -> f.    partials: one (f, a, b, …, options…) -> ∂f/∂operand for each operand."""

    value: Callable[..., Array] = lambda *_: NotImplemented
    partials: tuple[Callable[..., Array | float], ...] = ()

    def shape(self, *operands: Node, options: tuple[float, ...]) -> Shape:
        """The one shape that is not a scalar's."""
        shapes = {operand.shape for operand in operands if operand.shape}
        if len(shapes) > 1:
            raise Misfit("element by element, the shapes must be equal, or one side a scalar")
        return shapes.pop() if shapes else ()

    def forward(self, node: Node, *values: Array) -> Array:
        return self.value(*aligned(node, *values), *node.options)

    def pullback(self, node: Node, index: int, g: Array, f: Array, *values: Array) -> Array:
        contribution = g * self.partials[index](f, *aligned(node, *values), *node.options)
        operand = node.operands[index]
        if node.shape and not operand.shape:
            contribution = contribution.sum(axis=axes_of(node))
        return contribution

    def pullback_formula(self, node: Node, index: int) -> str:
        contribution = super().pullback_formula(node, index)
        return f"sum({contribution})" if node.shape and not node.operands[index].shape else contribution

    def partial(self, node: Node, index: int, f: Array, *values: Array) -> Array:
        """The local partial derivative itself, as it is drawn on an edge."""
        return np.asarray(self.partials[index](f, *aligned(node, *values), *node.options))


@dataclass(frozen=True)
class Axiswise(Operation):
    """Over the axes of one example, always the last axes; a batch only adds an axis in front.

    shape_rule: (operands…, options) -> shape.    value: (node, a, b, …) -> f.
    pullbacks: one (node, g, f, a, b, …) -> contribution for each operand; it may be short of an axis of length 1.
    With no fixed number of operands there is one pullback, and it takes the operand's index after the node.
    pullback_formulas: the same for readers; where there are none, g times the partial derivative."""

    shape_rule: Callable[..., Shape] = lambda *_, options: ()
    value: Callable[..., Array] = lambda *_: NotImplemented
    pullbacks: tuple[Callable[..., Array] | None, ...] = ()
    pullback_formulas: tuple[str, ...] = ()

    def shape(self, *operands: Node, options: tuple[float, ...]) -> Shape:
        return self.shape_rule(*operands, options=options)

    def forward(self, node: Node, *values: Array) -> Array:
        return self.value(node, *values)

    def pullback(self, node: Node, index: int, g: Array, f: Array, *values: Array) -> Array:
        if self.operand_count is None:
            rule = self.pullbacks[0]
            return super().pullback(node, index, g, f, *values) if rule is None else rule(node, index, g, f, *values)
        rule = self.pullbacks[index]
        return super().pullback(node, index, g, f, *values) if rule is None else rule(node, g, f, *values)

    def pullback_formula(self, node: Node, index: int) -> str:
        if not self.pullback_formulas:
            return super().pullback_formula(node, index)
        return self.pullback_formulas[0 if self.operand_count is None else index]


def aligned(node: Node, *values: Array) -> tuple[Array, ...]:
    """The operands' values, a scalar for each row made a column, so that it goes with every element of its row."""
    return tuple(
        expanded(node, value) if operand.batched and not operand.shape and node.shape else value
        for operand, value in zip(node.operands, values, strict=True)
    )


def expanded(node: Node, value: Array) -> Array:
    """`value`, a scalar for each row (or one scalar), with an axis of length 1 for each axis of `node`."""
    return value.reshape(value.shape + (1,) * len(node.shape))


def axes_of(node: Node) -> tuple[int, ...]:
    """The axes of one example, counted from the end, whether the node is batched or not."""
    return tuple(range(-len(node.shape), 0))
