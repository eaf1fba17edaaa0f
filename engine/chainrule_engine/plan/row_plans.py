"""What a model says of a row: the same bits whatever rows are beside it, and wherever it stands among them.

Rows are computed in blocks of one fixed number, the last one filled up, and each row has products of its own. A block
alone isn't enough: OpenBLAS's kernels for Haswell and Zen add up the products of a block's rows 7 to 10 in another
order than those of rows 1 to 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.backpropagation import Values
from chainrule_engine.errors import ValueMismatch
from chainrule_engine.graph import Graph, Node
from chainrule_engine.model import Model
from chainrule_engine.plan.executable import Array, _Compiled
from chainrule_engine.plan.lowering import Lowering
from chainrule_engine.plan.trace import Buffer, Trace, Traced

# A multiple of what a processor computes at once, so that no row is in a loop's rest; few, because one row costs as
# much as all of a block.
BLOCK_ROWS = 32


class PredictionPlan:
    """The prediction alone, for any number of rows; no target is needed. Raises ValueMismatch without a formula."""

    def __init__(self, model: Model) -> None:
        if model.prediction is None:
            raise ValueMismatch("the model has no prediction; give the job a prediction formula")
        self.model = model
        self._block = _Block(model, model.prediction, [model.prediction.root])

    def predict(
        self,
        parameters: NDArray[np.float32],
        x: Array | Mapping[str, Array],
        statistics: NDArray[np.float64] | None = None,
        *,
        look: Callable[[], None] | None = None,
    ) -> NDArray[np.float32]:
        """The predictions, (rows, *shape) float32.

        parameters: (layout.size,). x: the one input of the prediction, (rows, *shape), or each of them by name.
        statistics: (statistics.size,), needed with batch_norm. look: called before each block, to stop by raising.
        Raises ValueMismatch."""
        inputs = self.model.prediction_inputs(x)
        first = np.asarray(next(iter(x.values()), [0.0]) if isinstance(x, Mapping) else x)
        row_count = len(first) if first.ndim else 0
        (found,) = self._block.outputs
        predictions = np.empty((row_count, *found.shape[1:]), np.float32)
        for start in range(0, row_count, BLOCK_ROWS):
            if look is not None:
                look()
            self._block.compute(parameters, inputs, statistics, start=start, row_count=row_count)
            predictions[start : start + BLOCK_ROWS] = found[: row_count - start]
        return predictions


def row_values(
    model: Model,
    parameters: NDArray[np.float32],
    inputs: Mapping[str, Array],
    statistics: NDArray[np.float64] | None = None,
) -> Values:
    """f of every node of the evaluated loss for one row: of the prediction's nodes the bits that PredictionPlan gives.

    inputs: by name, (1, *shape). Raises ValueMismatch."""
    graph = model.evaluation_loss
    nodes = [node for node in graph.nodes if node.class_count is None]
    block = _Block(model, graph, nodes)
    block.compute(parameters, inputs, statistics, start=0, row_count=1)
    values: Values = {node: np.asarray(inputs[node.name]) for node in graph.nodes if node.class_count is not None}
    for node, output in zip(nodes, block.outputs, strict=True):
        values[node] = output[:1].copy() if node.batched else output[0].copy()
    return {node: values[node] for node in graph.nodes}


class _Block:
    """A graph compiled for a block of rows, by row. outputs: of each root (BLOCK_ROWS, *shape) float32."""

    def __init__(self, model: Model, graph: Graph, roots: list[Node]) -> None:
        self._compiled = _Compiled(model, [graph], BLOCK_ROWS)
        lowering = Lowering(BLOCK_ROWS, trace=Trace(by_row=True))
        lowering.leaves(graph, model.layout, model.statistics)
        lowering.forward(graph)
        self.outputs = []
        for root in roots:
            out = np.zeros((BLOCK_ROWS, *root.shape), np.float32)
            lowering.trace.write(
                Traced(lowering.trace, Buffer("kept", out.shape, value=out), out.shape), lowering.f[root]
            )
            self.outputs.append(out)
        self._compiled.compile(lowering, "numpy")
        self._nodes = list(graph.inputs)
        self._rows: dict[str, Array] = {
            node.name: np.zeros((BLOCK_ROWS, *node.shape), np.float32 if node.class_count is None else np.int64)
            for node in self._nodes
        }

    def compute(
        self,
        parameters: NDArray[np.float32],
        inputs: Mapping[str, Array],
        statistics: NDArray[np.float64] | None,
        *,
        start: int,
        row_count: int,
    ) -> None:
        """Compute the block that starts at row `start` of row_count; rows after the last hold what was there before."""
        self._compiled.set_statistics(statistics)
        for node in self._nodes:
            rows, shape = np.asarray(inputs[node.name]), (row_count, *node.shape)
            if rows.shape != shape:
                raise ValueMismatch(f"input '{node.name}' must have shape {shape}, but has {rows.shape}")
            if node.class_count is not None and rows.dtype.kind not in "iu":
                raise ValueMismatch(f"input '{node.name}' holds classes and must be of integers, but is {rows.dtype}")
            # What is out of the range of float32 is infinite there.
            with np.errstate(over="ignore", invalid="ignore"):
                self._rows[node.name][: row_count - start] = rows[start : start + BLOCK_ROWS]
        self._compiled.run(parameters, self._rows, None)
