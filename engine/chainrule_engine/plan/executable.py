"""A program with its memory, ready to be called: what all plans have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.errors import SettingError, ValueMismatch
from chainrule_engine.finite import without_warnings
from chainrule_engine.graph import Graph, Node
from chainrule_engine.model import Model
from chainrule_engine.plan.final_ranges import final_ranges
from chainrule_engine.plan.lowering import Lowering
from chainrule_engine.plan.negations import without_negations
from chainrule_engine.plan.numba_program import available, compile_loops, pays
from chainrule_engine.plan.numpy_program import Program, compile_program
from chainrule_engine.plan.trace import Instruction

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
        self._inputs = _Inputs([node for node in nodes if node.operation == "input"], row_count)
        self._needs_statistics = any(node.operation == "statistic" for node in nodes)
        # The steps of the last calls by the identities of their arrays, and these arrays: see REMEMBERED.
        self._bound: dict[tuple[int, int, bool], tuple[Callable[..., None], Array, Array | None]] = {}
        # NaN and infinity are for the caller to find.
        self._enter: Callable[..., Any] = without_warnings()
        self._program: Program
        self._instructions: list[Instruction]
        self._is_loops = False
        # The same program with announcements, made when it is first asked for.
        self._announcing: Program | None = None

    def compile(self, lowering: Lowering, backend: str) -> None:
        self._instructions = without_negations(lowering.trace)
        self._is_loops = backend == "numba" and pays(self._instructions)
        compile_instructions = compile_loops if self._is_loops else compile_program
        # A number out of the range of float32 is infinite there, as in the interpreter.
        self._program = self._enter(
            compile_instructions,
            self._instructions,
            inputs=self._inputs.names,
            statistics=self._statistics,
            known=self._inputs.known,
            fitting=self._inputs.fitting,
        )

    def run(self, parameters: Array, inputs: Mapping[str, Array], gradient: Array | None) -> None:
        """Compute. Raises ValueMismatch for arrays that do not fit."""
        bound = self._bound.get((id(parameters), id(gradient), False))
        step = self._bind(parameters, gradient, announcing=False) if bound is None else bound[0]
        try:
            self._enter(step, inputs)
        except KeyError as error:
            self._inputs.check_names(inputs)
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
        self._inputs.check_names(inputs)
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
                inputs=self._inputs.names,
                statistics=self._statistics,
                known=self._inputs.known,
                fitting=self._inputs.fitting,
                announcements=final_ranges(self._instructions),
                memory=self._program.arena,
            )
        return self._announcing


class _Inputs:
    """The inputs of a plan, and the last array of each that fitted. A program holds it, so it must not know the plan:
    what holds itself is only freed by a full collection, and with it all the plan's memory.

    names: in the order of the program's arguments. known: of each the array that needs no look."""

    def __init__(self, nodes: list[Node], row_count: int) -> None:
        self._nodes = nodes
        self._row_count = row_count
        self.names = [node.name for node in nodes]
        self.known: list[Array | None] = [None] * len(nodes)

    def check_names(self, inputs: Mapping[str, Array]) -> None:
        """Raise ValueMismatch for an input that has no value."""
        for name in self.names:
            if name not in inputs:
                raise ValueMismatch(f"input '{name}' has no value")

    def fitting(self, index: int, array: Array) -> Array:
        """The array as the program takes it. One that fits is remembered; classes are looked at each time."""
        node = self._nodes[index]
        array = np.asarray(array)
        shape = (self._row_count, *node.shape)
        if array.shape != shape:
            raise ValueMismatch(f"input '{node.name}' must have shape {shape}, but has {array.shape}")
        if node.class_count is None:
            if array.dtype == np.float32 and array.flags.c_contiguous:
                self.known[index] = array
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
