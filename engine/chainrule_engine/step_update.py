"""One step's update, range by range: from the partial sums of a range to the next parameters and state of that range.

Ranges may be prepared in any order and by several threads, as soon as their partial sums are there; each is worked on
in blocks that stay in a core's cache, so that memory is read and written once. Everything but the norm is element by
element, and the norm is summed over the fixed blocks of `chainrule_engine.blocks`: so the bits are those of the whole
vector at once. Nothing that others read is written: `chainrule_engine.synchronous_sgd.ParameterState` exchanges the
buffers afterwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.blocks import BLOCK, GRAIN, add_in_order, square_sums
from chainrule_engine.clipping import clip_by_global_norm, clip_by_value
from chainrule_engine.finite import NotFinite, is_finite, without_warnings
from chainrule_engine.optimizers import State, Step, UpdateRule
from chainrule_engine.parameters import Vector
from chainrule_engine.penalties import Penalty
from chainrule_engine.reduction import TreeSum
from chainrule_engine.schedules import Constant, Schedule

# Elements below which a second thread costs more than it brings.
WORTH_A_THREAD = 4 * BLOCK


@dataclass(frozen=True)
class UpdateRecipe:
    """How a mean gradient is turned into a step: penalties, clipping by value, then by norm, then the rule.

    learning_rate: the base that the schedule works on. clip_value, clip_norm: None for no limit. frozen: the elements
    (start, stop) that no step moves; to all of the above their gradient is 0."""

    rule: UpdateRule
    learning_rate: float
    total_steps: int
    schedule: Schedule = field(default_factory=Constant)
    penalties: tuple[Penalty, ...] = ()
    clip_value: float | None = None
    clip_norm: float | None = None
    frozen: tuple[tuple[int, int], ...] = ()


class Workspace:
    """What one thread works in: a few blocks, and a context in which numpy does not warn."""

    def __init__(self, *, scratch_rows: int, size: int) -> None:
        self.size = min(size, BLOCK)
        self.scratch = _aligned(scratch_rows, self.size)
        self.sums = _aligned(1, self.size)
        self.enter = without_warnings()

    def sums_for(self, tree: TreeSum) -> NDArray[np.float32]:
        """At least as many rows as the sum along the tree needs; the first is where it ends."""
        if len(self.sums) < tree.row_count:
            self.sums = _aligned(tree.row_count, self.size)
        return self.sums


@dataclass(frozen=True)
class Buffers:
    """What a step reads and what it writes: parameters and optimizer state, (n,) float32 each."""

    parameters: Vector
    state: State
    next_parameters: Vector
    next_state: State


@dataclass
class StepUpdate:
    """The update of one step. `prepare` every range, then `complete`; any thread may call `prepare`.

    With a limit on the norm, `prepare` leaves the mean gradient in the buffer of the next parameters, because the norm
    is known only once all of it is there; `complete` then does the rest."""

    recipe: UpdateRecipe
    step: int
    row_count: int
    learning_rate: float
    buffers: Buffers
    tree: TreeSum
    # Workspaces at rest: taken and put back by whoever prepares, and there are never more than threads at work.
    workspaces: list[Workspace]
    # Nanoseconds; None: nobody wants to know how long the reduction took.
    clock_ns: Callable[[], int] | None = None
    is_complete: bool = False
    _reduce_times_ns: list[int] = field(default_factory=list)
    _is_finite: bool = True
    _prepared: list[tuple[int, int]] = field(default_factory=list)
    _square_sums: NDArray[np.float64] | None = None
    # Blocks that were prepared in several ranges: what they add to the norm is summed when all of it is there.
    _cut_blocks: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._size = self.buffers.parameters.size
        self._rows = np.float32(self.row_count)
        if self.recipe.clip_norm is not None:
            self._square_sums = np.empty(-(-self._size // BLOCK))

    def prepare(self, start: int, stop: int, partial_sums: Sequence[Vector]) -> None:
        """Reduce and update the elements start … stop - 1; each element exactly once in all.

        start: a multiple of GRAIN. stop: as well, or the end. partial_sums: the whole vectors, (n,) float32, in the
        order of the subtrees that the step was begun with; only the range is read, and nothing is written to them."""
        if start % GRAIN or (stop % GRAIN and stop != self._size):
            raise ValueError(f"the range {start}:{stop} does not start and end at a multiple of {GRAIN} elements")
        workspace = self._take()
        try:
            if self._square_sums is None:
                workspace.enter(self._prepare, start, stop, partial_sums, workspace)
            else:
                workspace.enter(self._prepare_for_norm, start, stop, partial_sums, workspace, self._square_sums)
        finally:
            self.workspaces.append(workspace)
        self._prepared.append((start, stop))

    def prepare_all(
        self, partial_sums: Sequence[Vector], *, executor: Executor | None = None, thread_count: int = 1
    ) -> None:
        """Prepare every range: on the caller's thread, and for a large vector on thread_count - 1 of the executor's."""
        self._on_threads(lambda start, stop: self.prepare(start, stop, partial_sums), executor, thread_count)

    def complete(self, *, executor: Executor | None = None, thread_count: int = 1) -> None:
        """Finish what needs all ranges at once; see `prepare_all` for the threads.

        Raises NotFinite where the next parameters or state would not be finite, and RuntimeError where a range was not
        prepared, or twice."""
        end = 0
        for start, stop in sorted(self._prepared):
            if start != end:
                raise RuntimeError(f"the elements from {min(start, end)} on were prepared twice or not at all")
            end = stop
        if end != self._size:
            raise RuntimeError(f"the elements from {end} on were not prepared")
        if self._square_sums is not None and self._is_finite and not self.is_complete:
            for block in self._cut_blocks:
                whole = self.buffers.next_parameters[block * BLOCK : (block + 1) * BLOCK]
                self._square_sums[block] = square_sums(whole)[0]
            norm = math.sqrt(add_in_order(self._square_sums))
            self._on_threads(lambda start, stop: self._update_clipped(start, stop, norm), executor, thread_count)
        if not self._is_finite:
            raise NotFinite(shard=0, row=None)
        self.is_complete = True

    @property
    def reduce_ns(self) -> int:
        """The time that adding up took so far, of all threads together; 0 without a clock."""
        return sum(self._reduce_times_ns)

    def _take(self) -> Workspace:
        try:
            return self.workspaces.pop()
        except IndexError:
            return Workspace(scratch_rows=max(1, self.recipe.rule.scratch_rows), size=self._size)

    def _on_threads(self, work: Callable[[int, int], None], executor: Executor | None, thread_count: int) -> None:
        if executor is None or thread_count < 2 or self._size < WORTH_A_THREAD:
            work(0, self._size)
            return
        # Threads take the next blocks when they are through with their last: none waits for a slower one.
        starts = itertools.count(0, 2 * BLOCK)

        def blocks() -> None:
            for start in starts:
                if start >= self._size:
                    return
                work(start, min(start + 2 * BLOCK, self._size))

        others = [executor.submit(blocks) for _ in range(thread_count - 1)]
        try:
            blocks()
        finally:
            for other in others:
                # One that has not begun, because the executor is busy, would find nothing left to do.
                if not other.cancel():
                    other.result()

    def _prepare(self, start: int, stop: int, partial_sums: Sequence[Vector], workspace: Workspace) -> None:
        rows = workspace.sums_for(self.tree)
        for first, last in _blocks(start, stop):
            gradient = self._mean_gradient(first, last, partial_sums, rows, rows[0, : last - first], workspace)
            self._update(first, last, gradient, workspace)
            if not self._is_finite:
                return

    def _prepare_for_norm(
        self,
        start: int,
        stop: int,
        partial_sums: Sequence[Vector],
        workspace: Workspace,
        sums: NDArray[np.float64],
    ) -> None:
        rows = workspace.sums_for(self.tree)
        kept = self.buffers.next_parameters
        for first, last in _blocks(start, stop):
            gradient = self._mean_gradient(first, last, partial_sums, rows, kept[first:last], workspace)
            if first % BLOCK == 0 and last == min(first + BLOCK, self._size):
                sums[first // BLOCK] = square_sums(gradient)[0]
            else:
                self._cut_blocks.add(first // BLOCK)

    def _update_clipped(self, start: int, stop: int, norm: float) -> None:
        workspace = self._take()
        try:
            workspace.enter(self._update_clipped_in, start, stop, norm, workspace)
        finally:
            self.workspaces.append(workspace)

    def _update_clipped_in(self, start: int, stop: int, norm: float, workspace: Workspace) -> None:
        if self.recipe.clip_norm is None:
            raise TypeError("there is no limit on the norm")
        for first, last in _blocks(start, stop):
            gradient = workspace.sums[0, : last - first]
            kept = self.buffers.next_parameters[first:last]
            clip_by_global_norm(kept, norm=norm, limit=self.recipe.clip_norm, out=gradient)
            self._update(first, last, gradient, workspace)

    def _mean_gradient(
        self,
        first: int,
        last: int,
        partial_sums: Sequence[Vector],
        rows: NDArray[np.float32],
        out: Vector,
        workspace: Workspace,
    ) -> Vector:
        """The mean gradient with its penalties, 0 where frozen, clipped by value, in `out`."""
        if self.clock_ns is None:
            total = self.tree.add_up(partial_sums, first, last, rows)
        else:
            begun_ns = self.clock_ns()
            total = self.tree.add_up(partial_sums, first, last, rows)
            self._reduce_times_ns.append(self.clock_ns() - begun_ns)
        np.divide(total, self._rows, out=out)
        if self.recipe.penalties:
            parameters = self.buffers.parameters[first:last]
            for penalty in self.recipe.penalties:
                penalty.add_gradient(out, parameters, out=out, scratch=workspace.scratch[0, : last - first])
        for start, stop in self._frozen(first, last):
            out[start:stop] = 0.0
        if self.recipe.clip_value is not None:
            # Clipping would hide an infinity.
            if not is_finite(out):
                self._is_finite = False
            clip_by_value(out, limit=self.recipe.clip_value, out=out)
        return out

    def _update(self, first: int, last: int, gradient: Vector, workspace: Workspace) -> None:
        buffers, scratch = self.buffers, workspace.scratch
        parameters, out, state, next_state = (
            buffers.parameters, buffers.next_parameters, buffers.state, buffers.next_state,
        )  # fmt: skip
        if last - first != self._size:
            parameters, out, scratch = parameters[first:last], out[first:last], scratch[:, : last - first]
            state = {name: vector[first:last] for name, vector in state.items()}
            next_state = {name: vector[first:last] for name, vector in next_state.items()}
        step = Step(
            number=self.step,
            learning_rate=self.learning_rate,
            parameters=parameters,
            gradient=gradient,
            state=state,
            out=out,
            out_state=next_state,
            scratch=scratch,
        )
        self.recipe.rule.update(step)
        # Even where the gradient is 0 a rule may move a parameter, such as by decoupled weight decay.
        for start, stop in self._frozen(first, last):
            out[start:stop] = parameters[start:stop]
            for name, vector in next_state.items():
                vector[start:stop] = state[name][start:stop]
        # The state too: an infinite second moment would freeze its element for ever without a word.
        if not is_finite(out) or not all(map(is_finite, next_state.values())):
            self._is_finite = False

    def _frozen(self, first: int, last: int) -> list[tuple[int, int]]:
        """Of the elements first … last - 1 those that are frozen, counted from `first`."""
        ranges = self.recipe.frozen
        return [(max(a, first) - first, min(b, last) - first) for a, b in ranges if a < last and b > first]


def _blocks(start: int, stop: int) -> list[tuple[int, int]]:
    """The range, cut where blocks of the vector end."""
    borders = [start, *range(start - start % BLOCK + BLOCK, stop, BLOCK), stop]
    return list(pairwise(borders))


def _aligned(rows: int, size: int) -> NDArray[np.float32]:
    """(rows, size) float32, uninitialized; its start, and with whole blocks each row's, is at a cache line."""
    memory = np.empty(rows * size + 16, dtype=np.float32)
    start = (-memory.ctypes.data // 4) % 16
    return memory[start : start + rows * size].reshape(rows, size)
