"""A model's computation for one number of rows: the loss with its gradient, and the loss alone.

What is computed is what `chainrule_engine.backpropagation` defines; here it is compiled once, into a list of calls that
write to memory that is there already. A plan is for one thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.backpropagation import Randomness
from chainrule_engine.errors import ValueMismatch
from chainrule_engine.graph import Node
from chainrule_engine.model import Model
from chainrule_engine.plan.executable import Announce, Array, _Compiled, check_backend
from chainrule_engine.plan.lowering import Lowering
from chainrule_engine.plan.results import is_own, write_directly
from chainrule_engine.plan.trace import Buffer, Instruction, Traced
from chainrule_engine.randomness import generator


class TrainingPlan:
    """The loss and its gradient for batches of `row_count` rows.

    backend: 'numpy', or 'numba' for compiled loops where the plan is so small that they pay (the bits then differ from
    numpy's, so a job's workers must agree on it). Raises SettingError.
    row_losses: (row_count,) float32, each row's loss after `gradient`; a view that stays the same.
    statistics_sums: (statistics.size,) float64, for each batch_norm Σ a and Σ a² over the rows."""

    def __init__(self, model: Model, row_count: int, *, backend: str = "numpy") -> None:
        check_backend(backend)
        self.model = model
        self.row_count = row_count
        self.row_losses = np.zeros(row_count, np.float32)
        self.statistics_sums = np.zeros(model.statistics.size)
        self._losses = _Losses(self.row_losses)
        self._compiled = _Compiled(model, [model.loss], row_count)
        self._masks: list[tuple[Node, NDArray[np.float32]]] = []
        lowering = Lowering(row_count, frozen={each.name for each in model.layout.parameters if each.frozen})
        lowering.leaves(model.loss, model.layout, model.statistics)
        for node in model.loss.nodes:
            if node.operation == "mask":
                buffer = _buffer(lowering.f[node])
                buffer.value = np.zeros(buffer.shape, np.float32)
                self._masks.append((node, buffer.value))
        lowering.put_together(model.loss)
        lowering.forward(model.loss)
        _store(lowering, model.loss.root, self.row_losses)
        self._sum_statistics(lowering)
        gradients = lowering.backward(model.loss)
        write_directly(lowering.trace, gradients, model.layout)
        self._compiled.compile(lowering, backend)

    def _sum_statistics(self, lowering: Lowering) -> None:
        sums = list(self.model.statistics.views(self.statistics_sums).values())
        for index, node in enumerate(self.model.normalized):
            if node in lowering.f:
                rows = lowering.trace.full(lowering.f[node])
                for operation, total in (("sum_rows", sums[2 * index]), ("sum_squares", sums[2 * index + 1])):
                    out = Traced(lowering.trace, Buffer("kept", total.shape, value=total), total.shape)
                    lowering.trace.instructions.append(Instruction(operation, [rows], out))

    def gradient(
        self,
        parameters: NDArray[np.float32],
        inputs: Mapping[str, Array],
        out: NDArray[np.float32],
        *,
        randomness: Randomness | None = None,
        final: Announce | None = None,
    ) -> float:
        """Write Σ over rows of ∂loss/∂parameters to `out`, 0 where they are frozen; return Σ over rows of the loss.

        parameters, out: (layout.size,) float32; the same array objects each time are fastest. inputs: by name,
        (rows, *shape) float32, classes int64. randomness: (seed, step, shard), needed with dropout.
        final(start, stop) is called as soon as the elements start … stop - 1 of `out` are final, the last layer's
        first, while earlier ones are still to come: each element once, small parameters together with the next.
        Raises ValueMismatch, and what `final` raises."""
        if self._masks:
            self._draw_masks(randomness)
        if final is None:
            self._compiled.run(parameters, inputs, out)
        else:
            self._compiled.run_announcing(parameters, inputs, out, final)
        return self._losses.total()

    def _draw_masks(self, randomness: Randomness | None) -> None:
        if randomness is None:
            raise ValueMismatch("the loss has dropout, which needs randomness=(seed, step, shard)")
        seed, step, shard = randomness
        for node, mask in self._masks:
            draw_mask(node, mask, seed=seed, step=step, shard=shard)

    @property
    def size_bytes(self) -> int:
        """What the plan holds for temporaries; the gradient is the caller's."""
        return self._compiled.size_bytes

    @property
    def source(self) -> str:
        """The Python that runs, for looking at."""
        return self._compiled.source


class EvaluationPlan:
    """The loss and the prediction for `row_count` rows, without dropout and with running statistics.

    backend: as in TrainingPlan. row_losses: (row_count,) float32, each row's loss after `evaluate`."""

    def __init__(self, model: Model, row_count: int, *, backend: str = "numpy") -> None:
        check_backend(backend)
        self.model = model
        self.row_count = row_count
        self.row_losses = np.zeros(row_count, np.float32)
        self._losses = _Losses(self.row_losses)
        graphs = [model.evaluation_loss] if model.prediction is None else [model.evaluation_loss, model.prediction]
        self._compiled = _Compiled(model, graphs, row_count)
        lowering = Lowering(row_count)
        for graph in graphs:
            lowering.leaves(graph, model.layout, model.statistics)
            lowering.forward(graph)
        _store(lowering, model.evaluation_loss.root, self.row_losses)
        self._predictions: NDArray[np.float32] | None = None
        if model.prediction is not None:
            self._predictions = np.zeros((row_count, *model.prediction.root.shape), np.float32)
            _store(lowering, model.prediction.root, self._predictions)
        self._compiled.compile(lowering, backend)

    def evaluate(
        self,
        parameters: NDArray[np.float32],
        inputs: Mapping[str, Array],
        statistics: NDArray[np.float64] | None = None,
    ) -> tuple[float, NDArray[np.float32] | None]:
        """Return Σ over rows of the loss, and the predictions (rows, *shape), None without a prediction formula.

        The predictions are overwritten by the next call. statistics: (statistics.size,) float64, needed with
        batch_norm. Raises ValueMismatch."""
        self._compiled.set_statistics(statistics)
        self._compiled.run(parameters, inputs, None)
        return self._losses.total(), self._predictions

    @property
    def size_bytes(self) -> int:
        """What the plan holds for temporaries."""
        return self._compiled.size_bytes


class _Losses:
    """Σ of the row losses, in float64."""

    def __init__(self, row_losses: NDArray[np.float32]) -> None:
        self._rows = row_losses
        self._wide = np.zeros(row_losses.shape)
        self._ones = np.ones(row_losses.shape)

    def total(self) -> float:
        if len(self._rows) == 1:
            return self._rows.item()
        np.copyto(self._wide, self._rows)
        return float(self._wide.dot(self._ones))


def draw_mask(node: Node, out: NDArray[np.float32], *, seed: int, step: int, shard: int) -> None:
    """Fill `out` with the mask of a dropout: the bits of `chainrule_engine.backpropagation.drawn_mask`, without a new
    array."""
    (rate,) = node.options
    generator("dropout", seed=seed, words=(step, shard, node.name)).random(out=out, dtype=np.float32)
    np.greater_equal(out, np.float32(rate), out=out)
    np.multiply(out, np.float32(1 / (1 - rate)), out=out)


def _buffer(value: Traced) -> Buffer:
    if value.buffer is None:
        raise TypeError("a number has no memory")
    return value.buffer


def _store(lowering: Lowering, root: Node, out: NDArray[np.float32]) -> None:
    """Let a root's value be in `out`: there from the start, or copied where it is another array's view."""
    value = lowering.f[root]
    if is_own(value) and value.size == out.size:
        buffer = _buffer(value)
        buffer.kind, buffer.value = "kept", out.reshape(buffer.shape)
    else:
        lowering.trace.write(Traced(lowering.trace, Buffer("kept", out.shape, value=out), out.shape), value)
