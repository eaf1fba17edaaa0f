"""An explanation for people: every node's forward and backward value, as a table or drawn in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.cells.values import add_row
from chainrule.client.model_output import replace_file
from chainrule.client.rows import plain, rows_of
from chainrule.errors import RowsError
from chainrule.graph_picture.html import html
from chainrule.graph_picture.picture import Picture, name_of
from chainrule.graph_picture.svg import svg
from chainrule.graph_picture.values import picture_of_explanation
from chainrule.text import table_lines
from chainrule.v1 import model_service_pb2 as api

# So that f and g of ordinary models are there whole.
MAX_VALUES = 1000


@dataclass(frozen=True)
class Explanation:
    """The loss of one example, node by node: operands first, the loss last. message: as the server gave it.

    In a notebook it is shown as a drawing; `print` gives a table."""

    message: api.ExplainResponse
    title: str

    @property
    def picture(self) -> Picture:
        """Boxes and edges, for `chainrule.graph_picture`."""
        return picture_of_explanation(self.message, self.title)

    @property
    def forward(self) -> dict[str, NDArray[np.float64]]:
        """f of each node by its name or its part of the formula. Of large ones the first 1,000 values, in one row."""
        keys = _keys(self.message)
        return {key: _array(node, node.forward) for key, node in zip(keys, self.message.nodes, strict=True)}

    @property
    def backward(self) -> dict[str, NDArray[np.float64]]:
        """g = ∂loss/∂f of each node that has one, as `forward`."""
        keys = _keys(self.message)
        return {
            key: _array(node, node.backward)
            for key, node in zip(keys, self.message.nodes, strict=True)
            if node.HasField("backward")
        }

    def save(self, path: str | Path) -> Path:
        """Write the drawing to a file: .svg, or .html to step through it. Raises ModelFileError."""
        path = Path(path)
        content = html(self.picture) if path.suffix == ".html" else svg(self.picture)
        replace_file(path, [content.encode()])
        return path

    def __str__(self) -> str:
        rows = [(name_of(box), box.shape, box.f, box.g) for box in self.picture.boxes]
        return "\n".join([self.title, "", *table_lines([("NODE", "SHAPE", "FORWARD", "BACKWARD"), *rows])])

    def _repr_svg_(self) -> str:
        return svg(self.picture)


def explain_request(job_id: str, x: Any, y: Any = None) -> api.ExplainRequest:
    """The request of `Model.explain`. Raises RowsError."""
    if y is None:
        if isinstance(x, bool) or not hasattr(x, "__index__") or getattr(x, "shape", ()) != ():
            raise RowsError("explain takes the number of a row of the job's data, or the features x and the target y")
        if x.__index__() < 0:
            raise RowsError(f"rows are counted from 0, got {x}")
        return api.ExplainRequest(job_id=job_id, row=x.__index__(), max_values=MAX_VALUES)
    rows, names = rows_of(x)
    if len(rows) != 1:
        raise RowsError(f"explain takes the features of one example, got {len(rows)} rows")
    request = api.ExplainRequest(job_id=job_id, max_values=MAX_VALUES)
    add_row(request.own.features, rows[0])
    request.own.columns.extend(names)
    target = plain(y)
    if target is None:
        request.own.target.null_value = 0  # type: ignore[assignment]
    elif isinstance(target, str):
        request.own.target.string_value = target
    elif isinstance(target, bool):
        request.own.target.bool_value = target
    elif isinstance(target, float):
        request.own.target.number_value = target
    return request


def explanation_title(name: str, answer: api.ExplainResponse) -> str:
    """What stands above the drawing."""
    return f"{name} ({answer.job_id}): parameters of step {answer.step}"


def _keys(message: api.ExplainResponse) -> list[str]:
    """Of each node its name, or what a definition calls it, or its part of the formula; no key is there twice."""
    keys: dict[str, None] = {}
    for number, node in enumerate(message.nodes):
        key = node.name or node.title or node.text
        keys[f"{key} (node {number})" if key in keys else key] = None
    return list(keys)


def _array(node: api.ExplainedNode, value: api.TensorValue) -> NDArray[np.float64]:
    values = np.array(value.values)
    return values.reshape(tuple(node.shape)) if len(values) == value.value_count else values
