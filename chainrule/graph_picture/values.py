"""From an explanation to a picture: each node's f and g for one example, in few characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from chainrule.bridge.explanation_of_graph import explanation_of, shortened
from chainrule.graph_picture.picture import Box, Edge, Picture
from chainrule.v1 import model_service_pb2 as api

if TYPE_CHECKING:
    from chainrule_engine.graph import Graph, Node

SHOWN_VALUES = 3
MAX_TEXT = 40


def picture_of(
    graph: Graph, values: Mapping[str, NDArray[Any]], *, title: str, prediction: Node | None = None
) -> Picture:
    """The picture of a loss's graph for one example. values: of each leaf by name; inputs have one row."""
    from chainrule_engine.backpropagation import forward

    f = forward(graph, values)
    return picture_of_explanation(explanation_of(graph, f, prediction=prediction, max_values=SHOWN_VALUES), title)


def picture_of_explanation(explanation: api.ExplainResponse, title: str) -> Picture:
    """The picture of an explanation of at least SHOWN_VALUES values."""
    boxes, edges = [], []
    for number, node in enumerate(explanation.nodes):
        boxes.append(
            Box(
                kind=_kind(node, is_root=number == len(explanation.nodes) - 1),
                title=_title(node),
                text=shortened(node.text, MAX_TEXT),
                # A number is what a constant always is.
                shape="" if node.operation == "constant" else shape_text(node.shape),
                rule=node.rule,
                f=summary(node.forward, is_number=not node.shape),
                g=summary(node.backward, is_number=not node.shape) if node.HasField("backward") else "",
                is_prediction=explanation.HasField("prediction_node") and number == explanation.prediction_node,
            )
        )
        for operand in node.operands:
            value = short_summary(operand.partial_value) if operand.HasField("partial_value") else ""
            edges.append(Edge(operand.node, number, operand.letter, operand.partial, value, operand.contribution))
    return Picture(title, tuple(boxes), tuple(edges))


def summary(value: api.TensorValue, *, is_number: bool) -> str:
    """A number itself; of an array the mean and its first values."""
    if is_number and value.value_count == 1:
        return number(value.values[0])
    shown = ", ".join(number(each, 3) for each in value.values[:SHOWN_VALUES])
    if value.value_count <= SHOWN_VALUES:
        return f"[{shown}]"
    return f"mean {number(value.mean, 3)}  [{shown}, …]"


def short_summary(value: api.TensorValue) -> str:
    """A number, or the mean of an array."""
    mean = number(value.mean, 3)
    return mean if value.value_count == 1 else f"mean {mean}"


def number(value: float, digits: int = 4) -> str:
    """So many significant digits, with a real minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")


def shape_text(shape: Sequence[int]) -> str:
    """'32 × 10', '32', or 'number'."""
    return " × ".join(map(str, shape)) or "number"


def _kind(node: api.ExplainedNode, *, is_root: bool) -> str:
    if is_root:
        return "loss"
    if node.rule:
        return "operation"
    return node.operation if node.operation in ("parameter", "input") else "constant"


def _title(node: api.ExplainedNode) -> str:
    if node.operation == "constant":
        return node.name.replace("-", "−")
    if not node.rule:
        return shortened(node.name, MAX_TEXT)
    operation = f"{node.symbol}  {node.operation}" if node.symbol else node.operation
    return f"{shortened(node.title, MAX_TEXT)}: {operation}" if node.title else operation
