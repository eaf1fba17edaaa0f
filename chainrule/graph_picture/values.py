"""From the engine's graph and its values to a picture: each node's f and g for one example, in few characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chainrule.graph_picture.picture import Box, Edge, Picture, letter_of
from chainrule.text import one_line

if TYPE_CHECKING:
    from engine.graph import Graph, Node

SHOWN_VALUES = 3
MAX_TEXT = 40


def picture_of(
    graph: Graph, values: Mapping[str, NDArray[Any]], *, title: str, prediction: Node | None = None
) -> Picture:
    """The picture of a loss's graph for one example.

    values: of each leaf by name; inputs have one row. prediction: the node to mark, if it is in the graph."""
    from engine.backpropagation import backward, forward, is_differentiated, local_partial
    from engine.operations import OPERATIONS

    f = forward(graph, values)
    g = backward(graph, f)
    place = {node: number for number, node in enumerate(graph.nodes)}
    boxes, edges = [], []
    for node in graph.nodes:
        operation = OPERATIONS.get(node.operation)
        boxes.append(
            Box(
                kind=_kind(node, is_root=node is graph.root),
                title=_title(node, "" if operation is None else operation.symbol),
                text="" if node.is_leaf else shortened(node.text),
                # A number is what a constant always is.
                shape="" if node.operation == "constant" else shape_text(node.shape),
                rule="" if operation is None else operation.formula,
                f=summary(_example(node, f[node])),
                g=summary(_example(node, g[node])) if node in g else "",
                is_prediction=node is prediction,
            )
        )
        for index, operand in enumerate(node.operands):
            partial, contribution, value = "", "", ""
            if operation is not None and is_differentiated(operand):
                partial = operation.partial_formula(node, index)
                contribution = operation.pullback_formula(node, index)
                # The value of a 1 says nothing new.
                if (array := local_partial(node, index, f)) is not None and partial not in ("1", "−1"):
                    value = short_summary(array)
            edges.append(Edge(place[operand], place[node], letter_of(index), partial, value, contribution))
    return Picture(title, tuple(boxes), tuple(edges))


def summary(value: NDArray[Any]) -> str:
    """A number itself; of an array the mean and its first values."""
    if value.ndim == 0:
        return number(value[()])
    flat = value.reshape(-1)
    shown = ", ".join(number(each, 3) for each in flat[:SHOWN_VALUES])
    more = ", …" if flat.size > SHOWN_VALUES else ""
    with np.errstate(all="ignore"):
        mean = f"mean {number(flat.mean(dtype=np.float64), 3)}  " if flat.size > SHOWN_VALUES else ""
    return f"{mean}[{shown}{more}]"


def short_summary(value: NDArray[Any]) -> str:
    """A number, or the mean of an array."""
    with np.errstate(all="ignore"):
        mean = number(value.mean(dtype=np.float64), 3)
    return mean if value.size == 1 else f"mean {mean}"


def number(value: Any, digits: int = 4) -> str:
    """So many significant digits, with a real minus sign."""
    return f"{float(value):.{digits}g}".replace("-", "−")


def shape_text(shape: tuple[int, ...]) -> str:
    """'32 × 10', '32', or 'number'."""
    return " × ".join(map(str, shape)) or "number"


def shortened(text: str) -> str:
    """One printable line of at most MAX_TEXT characters."""
    line = one_line(text)
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT // 2 - 1]} … {line[-(MAX_TEXT // 2 - 2) :]}"


def _kind(node: Node, *, is_root: bool) -> str:
    if is_root:
        return "loss"
    if not node.is_leaf:
        return "operation"
    return node.operation if node.operation in ("parameter", "input") else "constant"


def _title(node: Node, symbol: str) -> str:
    if node.operation == "constant":
        return f"{node.value:g}".replace("-", "−")
    if node.is_leaf:
        return shortened(node.name)
    return f"{symbol}  {node.operation}" if symbol else node.operation


def _example(node: Node, value: NDArray[Any]) -> NDArray[Any]:
    """The value of the one example."""
    return np.asarray(value[0] if node.batched else value)
