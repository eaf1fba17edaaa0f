"""Forward and backward through a graph, one node after the other: the definition of what a plan computes.

forward   goes from the leaves to the root and gives each node's value f.
backward  goes from the root to the leaves and gives each node's g = ∂(sum of the root over the rows)/∂f:
          the root's g is 1, and a node's g is the sum, over the nodes it is an operand of, of their g times their
          local partial derivative.
Both keep everything, for looking at. A value is (rows, *shape) where the node is batched and (*shape) where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.errors import ValueMismatch
from chainrule_engine.graph import Graph, Node
from chainrule_engine.operations import OPERATIONS, Axiswise
from chainrule_engine.randomness import generator

Array = NDArray[Any]
Values = dict[Node, Array]
Randomness = tuple[int, int, int]
# A value as it is after rounding; True: it is the term of a sum, which rounds even where its terms are exact.
Disturb = Callable[[Array, bool], Array]


def forward(graph: Graph, values: Mapping[str, Array], *, disturb: Disturb | None = None) -> Values:
    """Each node's value, from the values of the parameters, the inputs and, where the graph has them, the masks.

    float32 if all of them are float32, else float64. Infinity and NaN are values like others.
    disturb: done to each value as it is made, and to each term of a sum or product, to see what rounding them does.
    Raises ValueMismatch where a value is missing or has another shape than its leaf."""
    dtype = _dtype(graph, values)
    row_count = row_count_of(graph, values)
    f: Values = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if node.operation == "constant":
                f[node] = np.asarray(node.value, dtype)
            elif node.is_leaf:
                f[node] = _leaf_value(node, values, row_count, dtype)
            else:
                operands = _operand_values(node, f, row_count)
                if disturb is not None and adds_up(node):
                    operands = [disturb(operand, True) for operand in operands]
                f[node] = np.asarray(OPERATIONS[node.operation].forward(node, *operands))
                if disturb is not None:
                    f[node] = disturb(f[node], False)
    return f


def backward(graph: Graph, f: Values, *, row_count: int | None = None, disturb: Disturb | None = None) -> Values:
    """Each node's g, from the values that `forward` gave. g of an unbatched node is summed over the rows.

    A root without inputs counts once for each row; then row_count must say how many there are (1 if not given).
    Constants, classes and masks have no g. disturb: as in `forward`, for each g and each contribution to one."""
    root = graph.root
    for node in graph.nodes:
        if node.batched:
            row_count = len(f[node])
            break
    rows = 1 if row_count is None else row_count
    g: Values = {root: np.ones_like(f[root]) if root.batched else np.full_like(f[root], rows)}
    with np.errstate(all="ignore"):
        for node in reversed(graph.nodes):
            if node.is_leaf or node not in g:
                continue
            operation = OPERATIONS[node.operation]
            operand_values = _operand_values(node, f, rows)
            if disturb is not None and adds_up(node):
                operand_values = [disturb(operand, True) for operand in operand_values]
            for index, operand in enumerate(node.operands):
                if is_differentiated(operand):
                    own = g[node] if disturb is None else disturb(g[node], False)
                    contribution = operation.pullback(node, index, own, f[node], *operand_values)
                    if disturb is not None:
                        contribution = disturb(np.asarray(contribution), False)
                    contribution = _summed_to(operand, contribution, f[operand])
                    g[operand] = g[operand] + contribution if operand in g else contribution
    return g


def local_partial(node: Node, index: int, f: Values) -> Array | None:
    """The local partial derivative ∂f(node)/∂f(operand `index`) where it is element by element, else None.

    A product's partial derivatives are its operands: they are read off the graph."""
    operation = OPERATIONS[node.operation]
    partial = getattr(operation, "partial", None)
    if partial is None or not is_differentiated(node.operands[index]):
        return None
    with np.errstate(all="ignore"):
        return np.asarray(partial(node, index, f[node], *(f[operand] for operand in node.operands)))


def adds_up(node: Node) -> bool:
    """Whether the value is a sum of many terms, each of which is rounded."""
    return node.operation in ("matmul", "sum", "mean")


def is_differentiated(node: Node) -> bool:
    """Whether a node has a g: everything but constants, classes, masks and statistics."""
    return node.operation not in ("constant", "mask", "statistic") and node.class_count is None


def row_count_of(graph: Graph, values: Mapping[str, Array]) -> int | None:
    """The number of rows of the inputs, None where the graph has no batched leaf. Raises ValueMismatch."""
    counts = {}
    for node in graph.nodes:
        if node.is_leaf and node.batched:
            shape = np.shape(_value_of(node, values))
            if not shape:
                raise ValueMismatch(f"input '{node.name}' must have a row for each example, but is one number")
            counts[node.name] = shape[0]
    if len(set(counts.values())) > 1:
        raise ValueMismatch("the inputs differ in rows: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    return next(iter(counts.values()), None)


def dropout_masks(
    nodes: Iterable[Node], *, row_count: int, randomness: Randomness, dtype: Any = np.float32
) -> dict[str, Array]:
    """The mask of each dropout, by name: 0 with probability `rate`, else 1 / (1 − rate).

    randomness: (seed, step, shard). Any process draws the same masks again, in any order."""
    return {
        node.name: drawn_mask(node, row_count=row_count, randomness=randomness).astype(dtype)
        for node in nodes
        if node.operation == "mask"
    }


def drawn_mask(node: Node, *, row_count: int, randomness: Randomness) -> NDArray[np.float32]:
    """The mask of one dropout, float32."""
    seed, step, shard = randomness
    shape = (row_count, *node.shape) if node.batched else node.shape
    uniform = generator("dropout", seed=seed, words=(step, shard, node.name)).random(shape, dtype=np.float32)
    (rate,) = node.options
    return (uniform >= rate) * np.float32(1 / (1 - rate))


def _value_of(node: Node, values: Mapping[str, Array]) -> Array:
    if node.name not in values:
        hint = "; draw it with dropout_masks, or evaluate without dropout" if node.operation == "mask" else ""
        raise ValueMismatch(f"{node.operation} '{node.name}' has no value{hint}")
    return values[node.name]


def _leaf_value(node: Node, values: Mapping[str, Array], row_count: int | None, dtype: Any) -> Array:
    value = np.asarray(_value_of(node, values))
    shape = (row_count, *node.shape) if node.batched else node.shape
    if value.shape != shape:
        raise ValueMismatch(f"{node.operation} '{node.name}' must have shape {shape}, but has {value.shape}")
    if node.class_count is None:
        return value.astype(dtype, copy=False)
    if value.dtype.kind not in "iu":
        raise ValueMismatch(f"input '{node.name}' holds classes and must be of integers, but is {value.dtype}")
    if value.size and not (int(value.min()) >= 0 and int(value.max()) < node.class_count):
        raise ValueMismatch(
            f"input '{node.name}' holds classes from 0 to {node.class_count - 1}, but has values from "
            f"{value.min()} to {value.max()}"
        )
    return value


def _dtype(graph: Graph, values: Mapping[str, Array]) -> Any:
    leaves = (node for node in graph.nodes if node.is_leaf and node.class_count is None and node.name in values)
    # Statistics are float64 whatever the rest is.
    dtypes = {np.asarray(values[node.name]).dtype for node in leaves if node.operation != "statistic"}
    return np.float32 if dtypes == {np.dtype(np.float32)} else np.float64


def _operand_values(node: Node, f: Values, row_count: int | None) -> list[Array]:
    """The operands' values; over axes, an operand without rows is repeated for each row if another has rows."""
    values = [f[operand] for operand in node.operands]
    if node.batched and row_count is not None and isinstance(OPERATIONS[node.operation], Axiswise):
        return [
            value if operand.batched else np.broadcast_to(value, (row_count, *operand.shape))
            for operand, value in zip(node.operands, values, strict=True)
        ]
    return values


def _summed_to(operand: Node, contribution: Array, value: Array) -> Array:
    """A contribution in the shape of the operand's value: summed over the rows if the operand has none."""
    if not operand.batched and contribution.ndim > len(operand.shape):
        contribution = contribution.sum(axis=0)
    return np.broadcast_to(contribution, value.shape) if contribution.shape != value.shape else contribution
