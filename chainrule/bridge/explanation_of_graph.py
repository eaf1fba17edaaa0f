"""A loss node by node, as messages: what the graph of a formula computes for one example, forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chainrule.text import one_line
from chainrule.v1 import model_service_pb2 as api

if TYPE_CHECKING:
    from chainrule_engine.backpropagation import Values
    from chainrule_engine.graph import Graph, Node

# What the operands of an operation are called in its formulas.
LETTERS = ("a", "b", "c")
MAX_TEXT = 200


def explanation_of(
    graph: Graph,
    f: Values,
    *,
    prediction: Node | None = None,
    max_values: int = 16,
    all_rows: bool = False,
) -> api.ExplainResponse:
    """The nodes of a loss's graph for one example, without a job's id; all_rows: for all rows together.

    f: the value of each node, as `chainrule_engine.backpropagation.forward` gives it; inputs have one row, or with
    all_rows any number. prediction: the node to point at, if it is in the graph."""
    from chainrule_engine.backpropagation import backward, is_differentiated, local_partial
    from chainrule_engine.operations import OPERATIONS

    rows = next((len(f[node]) for node in graph.inputs), None)
    g = backward(graph, f, row_count=rows)
    place = {node: number for number, node in enumerate(graph.nodes)}
    response = api.ExplainResponse()
    if prediction in place:
        response.prediction_node = place[prediction]
    for node in graph.nodes:
        operation = OPERATIONS.get(node.operation)
        explained = response.nodes.add(
            operation=node.operation,
            symbol="" if operation is None else operation.symbol,
            name=f"{node.value:g}" if node.operation == "constant" else node.name,
            text="" if node.is_leaf else shortened(_text_of(node), MAX_TEXT),
            title=shortened(node.title, MAX_TEXT),
            rule="" if operation is None else operation.formula,
            shape=node.shape,
            forward=summary_of(f[node] if all_rows else _example(node, f[node]), max_values),
        )
        if node in g:
            explained.backward.CopyFrom(summary_of(g[node] if all_rows else _example(node, g[node]), max_values))
        for index, operand in enumerate(node.operands):
            edge = explained.operands.add(node=place[operand], letter=letter_of(index))
            if operation is not None and is_differentiated(operand):
                edge.partial = operation.partial_formula(node, index)
                edge.contribution = operation.pullback_formula(node, index)
                # The value of a 1 says nothing new.
                if edge.partial not in ("1", "−1") and (value := local_partial(node, index, f)) is not None:
                    edge.partial_value.CopyFrom(summary_of(value, max_values))
    return response


def summary_of(value: NDArray[Any], max_values: int) -> api.TensorValue:
    """A tensor's count, mean, extremes and first values."""
    flat = value.reshape(-1)
    with np.errstate(all="ignore"):
        return api.TensorValue(
            value_count=flat.size,
            mean=float(flat.mean(dtype=np.float64)),
            minimum=float(flat.min()),
            maximum=float(flat.max()),
            values=flat[:max_values].astype(np.float64).tolist(),
        )


def letter_of(index: int) -> str:
    """The letter of an operand: a, b, c, and then a numbered."""
    return LETTERS[index] if index < len(LETTERS) else f"a{index + 1}"


def shortened(text: str, length: int) -> str:
    """One printable line of at most so many characters, its middle left out where it is longer."""
    line = one_line(text)
    return line if len(line) <= length else f"{line[: length // 2 - 1]} … {line[-(length // 2 - 2) :]}"


def _text_of(node: Node) -> str:
    """The part of the formula; of a function of the model's own also which call of it is meant."""
    return f"{node.text} in {node.within}" if node.within else node.text


def _example(node: Node, value: NDArray[Any]) -> NDArray[Any]:
    """The value of the one example."""
    return np.asarray(value[0] if node.batched else value)
