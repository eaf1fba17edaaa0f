"""A model's computation for one number of rows: the loss with its gradient, the loss alone, the prediction alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backpropagation import Randomness, Values, backward, dropout_masks, forward
from engine.errors import SettingError, ValueMismatch
from engine.graph import Graph
from engine.model import Model

Array = NDArray[Any]
BACKENDS = ("numpy",)


class TrainingPlan:
    """The loss and its gradient for batches of `row_count` rows."""

    def __init__(self, model: Model, row_count: int, *, backend: str = "numpy") -> None:
        if backend not in BACKENDS:
            raise SettingError("backend", f"unknown backend '{backend}'; there is {', '.join(BACKENDS)}")
        self.model = model
        self.row_count = row_count
        self.row_losses = np.zeros(row_count, np.float32)
        self.statistics_sums = np.zeros(model.statistics.size)

    def gradient(
        self,
        parameters: NDArray[np.float32],
        inputs: Mapping[str, Array],
        out: NDArray[np.float32],
        *,
        randomness: Randomness | None = None,
    ) -> float:
        """Write Σ over rows of ∂loss/∂parameters to `out`; return Σ over rows of the loss.

        parameters, out: (layout.size,) float32. inputs: by name, (rows, *shape) float32, classes int64.
        randomness: (seed, step, shard), needed with dropout. Afterwards `row_losses` holds each row's loss, and
        `statistics_sums` Σ a and Σ a² for each batch_norm. Raises ValueMismatch."""
        graph, layout = self.model.loss, self.model.layout
        values = {**layout.views(parameters), **inputs}
        if any(node.operation == "mask" for node in graph.nodes):
            if randomness is None:
                raise ValueMismatch("the loss has dropout, which needs randomness=(seed, step, shard)")
            values |= dropout_masks(graph.nodes, row_count=self.row_count, randomness=randomness)
        f = forward(graph, values)
        g = backward(graph, f, row_count=self.row_count)
        out[...] = 0.0
        views = layout.views(out)
        for node in graph.parameters:
            if node in g:
                views[node.name][...] = g[node]
        sums = list(self.model.statistics.views(self.statistics_sums).values())
        for index, node in enumerate(self.model.normalized):
            if node in f:
                rows = f[node].astype(np.float64)
                sums[2 * index][...] = rows.sum(axis=0)
                sums[2 * index + 1][...] = (rows * rows).sum(axis=0)
        self.row_losses[...] = f[graph.root]
        return float(self.row_losses.sum(dtype=np.float64))


class EvaluationPlan:
    """The loss and the prediction for `row_count` rows, without dropout and with running statistics."""

    def __init__(self, model: Model, row_count: int) -> None:
        self.model = model
        self.row_count = row_count
        self.row_losses = np.zeros(row_count, np.float32)

    def evaluate(
        self,
        parameters: NDArray[np.float32],
        inputs: Mapping[str, Array],
        statistics: NDArray[np.float64] | None = None,
    ) -> tuple[float, NDArray[np.float32] | None]:
        """Return Σ over rows of the loss, and the predictions (rows, *shape), None without a prediction formula.

        statistics: (statistics.size,) float64, needed with batch_norm. Raises ValueMismatch."""
        f = _evaluated(self.model, self.model.evaluation_loss, parameters, inputs, statistics)
        self.row_losses[...] = f[self.model.evaluation_loss.root]
        predictions = None
        if self.model.prediction is not None:
            predictions = _rows(self.model, self.model.prediction, self.row_count, parameters, inputs, statistics)
        return float(self.row_losses.sum(dtype=np.float64)), predictions


class PredictionPlan:
    """The prediction alone, for `row_count` rows; no target is needed."""

    def __init__(self, model: Model, row_count: int) -> None:
        if model.prediction is None:
            raise ValueMismatch("the model has no prediction; give the job a prediction formula")
        self.model = model
        self.row_count = row_count
        self._graph = model.prediction

    def predict(
        self,
        parameters: NDArray[np.float32],
        x: Array | Mapping[str, Array],
        statistics: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """The predictions (rows, *shape) float32. Arguments as in Model.predict."""
        inputs = self.model.prediction_inputs(x)
        return _rows(self.model, self._graph, self.row_count, parameters, inputs, statistics)


def _evaluated(
    model: Model, graph: Graph, parameters: Array, inputs: Mapping[str, Array], statistics: Array | None
) -> Values:
    values = {**model.layout.views(parameters), **inputs}
    if model.statistics.size:
        if statistics is None:
            raise ValueMismatch("the model has batch_norm, whose evaluation needs its running statistics")
        values |= model.statistics.views(statistics)
    return forward(graph, values)


def _rows(
    model: Model, graph: Graph, row_count: int, parameters: Array, inputs: Mapping[str, Array], statistics: Array | None
) -> NDArray[np.float32]:
    value = _evaluated(model, graph, parameters, inputs, statistics)[graph.root]
    result = np.empty((row_count, *graph.root.shape), np.float32)
    result[...] = value
    return result
