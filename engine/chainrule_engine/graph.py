"""The computation graph: each node a subexpression, the root the loss (or the prediction).

A node's shape is that of ONE example, and whether it is batched (has a value for each row) is a static property, never
read off an array: a batch size that equals a dimension changes nothing. A node without x or y is not batched. Equal
subexpressions are one node. The graph knows names and shapes, not values: `chainrule_engine.backpropagation` computes
those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

LEAVES = ("parameter", "input", "constant", "mask", "statistic")

Option = float | int


@dataclass(frozen=True, eq=False)
class Node:
    """One box of the graph: an operation on operands, or a leaf.

    operation: a name in the table of operations, or one of LEAVES.
    index: its place in the order of building; operands come first.
    shape: of one example. batched: whether there is a value for each row.
    options: numbers that are no operands, such as the rate of dropout.
    name: of a parameter or an input. value: of a constant. class_count: of an input that holds classes.
    title: what a definition calls an operation's value. within: the call of a definition that the text is part of."""

    index: int
    operation: str
    operands: tuple[Node, ...] = ()
    shape: tuple[int, ...] = ()
    batched: bool = False
    options: tuple[Option, ...] = ()
    name: str = ""
    value: float = 0.0
    class_count: int | None = None
    formula: str = field(default="", repr=False)
    start: int = 0
    end: int = 0
    title: str = ""
    within: str = ""

    @property
    def is_leaf(self) -> bool:
        """Whether nothing is computed: a parameter, an input or a constant."""
        return self.operation in LEAVES

    @property
    def size(self) -> int:
        """The number of elements for one example."""
        return math.prod(self.shape)

    @property
    def text(self) -> str:
        """The part of the formula that the node was first written as."""
        return self.formula[self.start : self.end]

    @property
    def column(self) -> int:
        """Where `text` starts in its formula, counted from 1."""
        return self.start + 1


@dataclass(frozen=True)
class Graph:
    """Everything that the root depends on. nodes: in topological order (operands first), the root last."""

    root: Node
    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, root: Node) -> Graph:
        """The graph of all nodes that `root` depends on."""
        return cls(root, reachable([root]))

    @property
    def parameters(self) -> tuple[Node, ...]:
        """The leaves that are parameters."""
        return tuple(node for node in self.nodes if node.operation == "parameter")

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The leaves that are inputs."""
        return tuple(node for node in self.nodes if node.operation == "input")


def reachable(roots: Iterable[Node]) -> tuple[Node, ...]:
    """All nodes that the roots depend on, operands first. Iterative: a deep graph does not overflow the stack."""
    found: dict[int, Node] = {}
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node.index not in found:
            found[node.index] = node
            waiting.extend(node.operands)
    return tuple(found[index] for index in sorted(found))
