"""From a graph to instructions: forward through the nodes, then backward, as `chainrule_engine.backpropagation` does.

It calls the very functions that define the operations, with `Traced` in place of arrays. Only products have a rule of
their own here, because BLAS wants matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from chainrule_engine.backpropagation import is_differentiated
from chainrule_engine.graph import Graph, Node
from chainrule_engine.operations import OPERATIONS, Axiswise, Elementwise, Product
from chainrule_engine.operations.products import letters_of
from chainrule_engine.parameters import ParameterLayout
from chainrule_engine.plan.memory import ALIGNMENT
from chainrule_engine.plan.products import product
from chainrule_engine.plan.results import is_own
from chainrule_engine.plan.trace import Buffer, Trace, Traced

# Elements: what a core's fastest memory holds with their derivatives.
LARGEST_TOGETHER = 8192


@dataclass
class Lowering:
    """The instructions of a graph for `row_count` rows, and where its leaves and results are."""

    row_count: int
    # The names of parameters whose gradient nobody needs.
    frozen: Collection[str] = ()
    trace: Trace = field(default_factory=Trace)
    f: dict[Node, Traced] = field(default_factory=dict)
    # Small activations side by side in memory, and where each starts: their partial derivatives are taken at once.
    _together: dict[str, tuple[Traced, dict[Node, int]]] = field(default_factory=dict)

    def leaves(self, graph: Graph, layout: ParameterLayout, statistics: ParameterLayout) -> None:
        """Give each leaf its place."""
        starts = {
            ("parameter", parameter.name): start
            for parameter, start in zip(layout.parameters, layout.offsets, strict=True)
        } | {
            ("statistic", parameter.name): start
            for parameter, start in zip(statistics.parameters, statistics.offsets, strict=True)
        }
        for node in graph.nodes:
            if node.operation == "constant":
                self.f[node] = self.trace.number(node.value)
            elif node.is_leaf and node not in self.f:
                shape = (self.row_count, *node.shape) if node.batched else node.shape
                kind = "kept" if node.operation == "mask" else node.operation
                buffer = Buffer(
                    kind,
                    shape,
                    name=node.name,
                    start=starts.get((node.operation, node.name), 0),
                    dtype="float32" if node.class_count is None else "int64",
                )
                self.f[node] = Traced(self.trace, buffer, shape)

    def put_together(self, graph: Graph) -> None:
        """Lay the values of small nodes of one operation side by side, where their derivative needs nothing else.

        A call costs as much as a thousand elements: one call for all of them instead of one each."""
        nodes: dict[str, list[Node]] = {}
        above = _above_parameters(graph, self.frozen)
        for node in graph.nodes:
            if node in above and node.batched and partial_of_value(node) is not None:
                nodes.setdefault(node.operation, []).append(node)
        for operation, alike in nodes.items():
            starts, end = {}, 0
            for node in alike:
                starts[node] = end
                end += -(-node.size * self.row_count // ALIGNMENT) * ALIGNMENT
            if len(alike) > 1 and end <= LARGEST_TOGETHER:
                self._together[operation] = (self.trace.temporary((end,)), starts)

    def forward(self, graph: Graph) -> None:
        """Record the value of every node."""
        self.trace.forget()
        for node in graph.nodes:
            if node not in self.f:
                operation = OPERATIONS[node.operation]
                values = self._operand_values(node)
                if isinstance(operation, Product):
                    f = product(self.trace, values[0], values[1], letters_of(node))
                else:
                    f = self.trace.traced(operation.forward(node, *values))
                self.f[node] = f.broadcast_to((self.row_count, *node.shape) if node.batched else node.shape)
                if node.operation in self._together:
                    self._move(node, *self._together[node.operation])

    def _move(self, node: Node, together: Traced, starts: dict[Node, int]) -> None:
        """Let the last instruction write a node's value to its place beside the others."""
        f = self.f[node]
        if node in starts and is_own(f) and self.trace.instructions[-1].out.buffer is f.buffer:
            place = together.part(starts[node], f.shape)
            f.buffer, f.view, f.whole = place.buffer, place.view, False
        else:
            starts.pop(node, None)

    def backward(self, graph: Graph) -> dict[Node, Traced]:
        """Record g of every node that a parameter is below; return g of the parameters that aren't frozen."""
        self.trace.forget()
        root = graph.root
        needed = _above_parameters(graph, self.frozen)
        one = self.trace.number(1.0 if root.batched else float(self.row_count))
        g: dict[Node, Traced] = {root: one.broadcast_to((self.row_count,) if root.batched else ())}
        for node in reversed(graph.nodes):
            if node.is_leaf or node not in g:
                continue
            values = self._operand_values(node)
            gradient = g.pop(node)
            for index, operand in enumerate(node.operands):
                if operand in needed and is_differentiated(operand):
                    contribution = self._pullback(node, index, gradient, values)
                    contribution = self._summed_to(operand, contribution)
                    g[operand] = g[operand] + contribution if operand in g else contribution
        return {node: g[node] for node in graph.parameters if node in g}

    def _pullback(self, node: Node, index: int, g: Traced, values: list[Traced]) -> Traced:
        operation = OPERATIONS[node.operation]
        if isinstance(operation, Product):
            letters = letters_of(node)
            other = 1 - index
            if index == 0:  # g Bᵀ
                return product(self.trace, g, values[other], (letters[2], letters[other], letters[index]))
            return product(self.trace, values[other], g, (letters[other], letters[2], letters[index]))  # Aᵀ g
        partial = partial_of_value(node)
        together, starts = self._together.get(node.operation, (None, {}))
        if partial is not None and together is not None and node in starts:
            # The same call for every node of the group: the trace knows it after the first.
            partials = self.trace.traced(partial(together))
            return self.trace.traced(g * partials.part(starts[node], self.f[node].shape))
        return self.trace.traced(operation.pullback(node, index, g, self.f[node], *values))

    def _operand_values(self, node: Node) -> list[Traced]:
        values = [self.f[operand] for operand in node.operands]
        if node.batched and isinstance(OPERATIONS[node.operation], Axiswise):
            return [
                value if operand.batched else value.broadcast_to((self.row_count, *operand.shape))
                for operand, value in zip(node.operands, values, strict=True)
            ]
        return values

    def _summed_to(self, operand: Node, contribution: Traced) -> Traced:
        if operand.batched:
            return contribution.broadcast_to((self.row_count, *operand.shape))
        if contribution.ndim > len(operand.shape):
            contribution = contribution.broadcast_to((self.row_count, *contribution.shape[1:])).sum(axis=0)
        return contribution.broadcast_to(operand.shape)


def partial_of_value(node: Node) -> Callable[[Traced], Any] | None:
    """The partial derivative as a function of f alone, None where it needs the operand or is f or a number."""
    operation = OPERATIONS.get(node.operation)
    if not isinstance(operation, Elementwise) or operation.operand_count != 1 or operation.options:
        return None
    partial = operation.partials[0]
    trace = Trace()
    probe = Traced(trace, Buffer("temporary", (1,)), (1,))
    try:
        result = partial(probe, None)
    except (TypeError, AttributeError):
        return None
    return (lambda f: partial(f, None)) if isinstance(result, Traced) and result is not probe else None


def _above_parameters(graph: Graph, frozen: Collection[str]) -> set[Node]:
    """The nodes that depend on a parameter that isn't frozen: only their g is needed."""
    above: set[Node] = set()
    for node in graph.nodes:
        is_free = node.operation == "parameter" and node.name not in frozen
        if is_free or any(operand in above for operand in node.operands):
            above.add(node)
    return above
