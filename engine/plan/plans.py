"""A model's computation for one number of rows: the loss with its gradient, the loss alone, the prediction alone.

What is computed is what `engine.backpropagation` defines; here it is compiled once, into a list of calls that write to
memory that is there already. A plan is for one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backpropagation import Randomness
from engine.errors import SettingError, ValueMismatch
from engine.finite import without_warnings
from engine.graph import Graph, Node
from engine.model import Model
from engine.plan.announcements import final_ranges
from engine.plan.code import Program, compile_program
from engine.plan.compiled import available, compile_loops, pays
from engine.plan.lowering import Lowering
from engine.plan.results import is_own, write_directly
from engine.plan.signs import without_negations
from engine.plan.trace import Buffer, Instruction, Traced
from engine.randomness import generator

Array = NDArray[Any]
BACKENDS = ("numpy", "numba")
# Of how many pairs of (parameters, gradient) a plan remembers the views: two buffers of parameters, and some places for
# gradients. Of large ones, where making views is nothing, only one, because what is remembered is kept alive.
REMEMBERED = 32
LARGE = 2**18

Announce = Callable[[int, int], None]


def check_backend(backend: str) -> None:
    """Raise SettingError unless it is the name of a backend that is installed."""
    if backend not in BACKENDS:
        raise SettingError("backend", f"unknown backend '{backend}'; there are {', '.join(BACKENDS)}")
    if backend == "numba" and not available():
        raise SettingError("backend", "numba is not installed; install the extra 'numba', or choose numpy")


class _Compiled:
    """One program with its checks: the part that all plans share."""

    def __init__(self, model: Model, graphs: list[Graph], row_count: int) -> None:
        if row_count < 1:
            raise SettingError("row_count", f"{row_count} rows cannot be computed")
        self._layout = model.layout
        self._statistics = np.zeros(model.statistics.size, np.float32)
        nodes = {node: None for graph in graphs for node in graph.nodes}
        self._input_nodes = [node for node in nodes if node.operation == "input"]
        self._needs_statistics = any(node.operation == "statistic" for node in nodes)
        # The steps of the last calls by the identities of their arrays, and these arrays: see REMEMBERED.
        self._bound: dict[tuple[int, int, bool], tuple[Callable[..., None], Array, Array | None]] = {}
        self._known: list[Array | None] = [None] * len(self._input_nodes)
        self._row_count = row_count
        # NaN and infinity are for the caller to find.
        self._enter = without_warnings()
        self._program: Program
        self._instructions: list[Instruction]
        self._is_loops = False
        # The same program with announcements, made when it is first asked for.
        self._announcing: Program | None = None

    def compile(self, lowering: Lowering, backend: str) -> None:
        self._instructions = without_negations(lowering.trace)
        self._is_loops = backend == "numba" and pays(self._instructions)
        compile_instructions = compile_loops if self._is_loops else compile_program
        self._program = compile_instructions(
            self._instructions,
            inputs=[node.name for node in self._input_nodes],
            statistics=self._statistics,
            known=self._known,
            fitting=self._fitting,
        )

    def run(self, parameters: Array, inputs: Mapping[str, Array], gradient: Array | None) -> None:
        """Compute. Raises ValueMismatch for arrays that do not fit."""
        bound = self._bound.get((id(parameters), id(gradient), False))
        step = self._bind(parameters, gradient, announcing=False) if bound is None else bound[0]
        try:
            self._enter(step, inputs)
        except KeyError as error:
            self._check_names(inputs)
            raise error from None

    def run_announcing(
        self, parameters: Array, inputs: Mapping[str, Array], gradient: Array, announce: Announce
    ) -> None:
        """Compute, and call announce(start, stop) as soon as these elements of the gradient are final."""
        if self._is_loops:  # too short a step for one part of it to be announced before another
            self.run(parameters, inputs, gradient)
            self._enter(announce, 0, self._layout.size)
            return
        bound = self._bound.get((id(parameters), id(gradient), True))
        step = self._bind(parameters, gradient, announcing=True) if bound is None else bound[0]
        self._check_names(inputs)
        self._enter(step, inputs, announce)

    def set_statistics(self, statistics: Array | None) -> None:
        if not self._needs_statistics:
            return
        if statistics is None:
            raise ValueMismatch("the model has batch_norm, whose evaluation needs its running statistics")
        if statistics.shape != self._statistics.shape:
            raise ValueMismatch(
                f"the model has {self._statistics.size} running statistics, but the vector has shape {statistics.shape}"
            )
        self._statistics[...] = statistics

    @property
    def size_bytes(self) -> int:
        """What the plan holds for temporaries."""
        return self._program.arena.nbytes

    @property
    def source(self) -> str:
        """The Python that runs, for looking at."""
        return self._program.source

    def _check_names(self, inputs: Mapping[str, Array]) -> None:
        for node in self._input_nodes:
            if node.name not in inputs:
                raise ValueMismatch(f"input '{node.name}' has no value")

    def _bind(self, parameters: Array, gradient: Array | None, *, announcing: bool) -> Callable[..., None]:
        """The step for these arrays. What is remembered holds them, so an identity is never that of another array."""
        for name, vector in (("parameters", parameters), ("gradients", gradient)):
            if vector is not None and (vector.shape != (self._layout.size,) or vector.dtype != np.float32):
                raise ValueMismatch(
                    f"the vector of {name} must be ({self._layout.size},) float32, not {vector.shape} {vector.dtype}"
                )
            if vector is not None and not vector.flags.c_contiguous:
                raise ValueMismatch(f"the vector of {name} must be contiguous, but has stride {vector.strides[0]}")
        if gradient is not None and np.may_share_memory(parameters, gradient):
            raise ValueMismatch("the gradient cannot be written to the memory of the parameters")
        step = (self._announcing_program() if announcing else self._program).bind(parameters, gradient)
        while len(self._bound) >= (1 if self._layout.size > LARGE else REMEMBERED):
            del self._bound[next(iter(self._bound))]
        self._bound[id(parameters), id(gradient), announcing] = (step, parameters, gradient)
        return step

    def _announcing_program(self) -> Program:
        if self._announcing is None:
            self._announcing = compile_program(
                self._instructions,
                inputs=[node.name for node in self._input_nodes],
                statistics=self._statistics,
                known=self._known,
                fitting=self._fitting,
                announcements=final_ranges(self._instructions),
                memory=self._program.arena,
            )
        return self._announcing

    def _fitting(self, index: int, array: Array) -> Array:
        """The array as the program takes it. One that fits is remembered; classes are looked at each time."""
        node = self._input_nodes[index]
        array = np.asarray(array)
        shape = (self._row_count, *node.shape)
        if array.shape != shape:
            raise ValueMismatch(f"input '{node.name}' must have shape {shape}, but has {array.shape}")
        if node.class_count is None:
            if array.dtype == np.float32 and array.flags.c_contiguous:
                self._known[index] = array
                return array
            return np.ascontiguousarray(array, np.float32)
        if array.dtype.kind not in "iu":
            raise ValueMismatch(f"input '{node.name}' holds classes and must be of integers, but is {array.dtype}")
        classes = np.ascontiguousarray(array, np.int64)
        # As unsigned numbers the negative ones are the largest: one look finds both ends.
        if int(classes.view(np.uint64).max()) >= node.class_count:
            raise ValueMismatch(
                f"input '{node.name}' holds classes from 0 to {node.class_count - 1}, but has values from "
                f"{array.min()} to {array.max()}"
            )
        return classes


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


class PredictionPlan:
    """The prediction alone, for `row_count` rows; no target is needed."""

    def __init__(self, model: Model, row_count: int) -> None:
        if model.prediction is None:
            raise ValueMismatch("the model has no prediction; give the job a prediction formula")
        self.model = model
        self.row_count = row_count
        self._compiled = _Compiled(model, [model.prediction], row_count)
        lowering = Lowering(row_count)
        lowering.leaves(model.prediction, model.layout, model.statistics)
        lowering.forward(model.prediction)
        self._predictions = np.zeros((row_count, *model.prediction.root.shape), np.float32)
        _store(lowering, model.prediction.root, self._predictions)
        self._compiled.compile(lowering, "numpy")

    def predict(
        self,
        parameters: NDArray[np.float32],
        x: Array | Mapping[str, Array],
        statistics: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """The predictions (rows, *shape) float32, overwritten by the next call. Arguments as in Model.predict."""
        self._compiled.set_statistics(statistics)
        self._compiled.run(parameters, self.model.prediction_inputs(x), None)
        return self._predictions


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
    """Fill `out` with the mask of a dropout: the bits of `engine.backpropagation.drawn_mask`, without a new array."""
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
