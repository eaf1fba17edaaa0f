"""Holds the gradients of backpropagation against central differences, in float64, and float32 ones against those.

A difference (L(p + h) − L(p − h)) / 2h is wrong where a kink (max at a tie, |a| at 0) lies within the step, and where L
curves much on that scale. So where it disagrees it is taken again with smaller steps; and if even then ∂L/∂p itself
changes about the step by as much as the two differ, nothing can be said, and the element counts as one at a kink.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.backpropagation import Disturb, backward, forward, is_differentiated, row_count_of
from chainrule_engine.errors import EngineError
from chainrule_engine.graph import Graph, Node
from chainrule_engine.operations.operation import aligned

Array = NDArray[Any]
Values = Mapping[str, Array]

# How often a step that is too wide for the loss's curvature, or that meets a kink, is divided by ten.
SMALLER_STEPS = 2
# At how many points around a kink the gradient is looked at.
NEARBY_DRAWS = 4
# What rounding may add to a difference, in units of the loss's last place.
ROUNDING_UNITS = 16
# How far float32 may be from float64, relative to a parameter's largest element; besides, what rounding each value once
# can do, because a sum that cancels loses more. Never what the rules themselves lose in float32: an unstable rule would
# be excused by its own error.
FLOAT32_TOLERANCE = 1e-5
NOISE_FACTOR = 2
# A few of float32's last places, either way: each draw takes a row's rounding to the other side with about 1/2.
NOISE_MOVE = 2.0**-22
NOISE_DRAWS = 8


@dataclass(frozen=True)
class GradientCheck:
    """How far the gradient of one leaf is from the differences.

    error: the largest distance, relative to the largest element of either. elements: (k,) flat indices of those that
    were differenced; gradient, differences: (k,) float64, their values. at_kink: (k,) bool, those about which
    differences say nothing. mismatch: the first of the k that disagrees, None where all agree."""

    name: str
    error: float
    gradient: Array
    differences: Array
    elements: NDArray[np.int64]
    at_kink: NDArray[np.bool_]
    mismatch: int | None = None

    @property
    def checked(self) -> int:
        """The number of elements that were compared."""
        return len(self.elements) - self.skipped

    @property
    def skipped(self) -> int:
        """The number of elements at a kink."""
        return int(np.count_nonzero(self.at_kink))


class GradientMismatch(EngineError):
    """Backpropagation and differences disagree; the message names the leaf and both numbers."""


@dataclass(frozen=True)
class PrecisionCheck:
    """How far a float32 gradient is from the float64 one. error: relative to the largest element of the latter.

    mismatch: the flat index of the worst element where one is too far off, else None."""

    error: float
    mismatch: int | None


def check_gradients(
    graph: Graph,
    values: Values,
    *,
    tolerance: float = 1e-6,
    step: float = 1e-5,
    most: int = 200,
    seed: int = 0,
) -> list[GradientCheck]:
    """Compare ∂(sum of the root over the rows)/∂leaf with central differences; return one result for each leaf.

    values: as `forward` takes them; the comparison is in float64 whatever their type. Of a leaf with more than `most`
    elements a sample is differenced, drawn from `seed`. Raises GradientMismatch if an error is above `tolerance`.
    An element at a kink (max at a tie, |a| at 0) is left out and counted in `skipped`."""
    leaves = [node for node in graph.nodes if node.is_leaf and is_differentiated(node)]
    results = compare_with_differences(
        graph, [values], leaves=leaves, tolerance=tolerance, step=step, most=most, seed=seed
    )
    for result in results:
        if result.mismatch is not None:
            at = result.mismatch
            raise GradientMismatch(
                f"∂loss/∂{result.name}, element {result.elements[at]}: backpropagation gives "
                f"{result.gradient[at]:.9g}, differences give {result.differences[at]:.9g}"
            )
    return results


def compare_with_differences(
    graph: Graph,
    batches: Sequence[Values],
    *,
    row_counts: Sequence[int] | None = None,
    leaves: Sequence[Node] | None = None,
    tolerance: float = 1e-6,
    step: float = 1e-5,
    most: int = 200,
    seed: int = 0,
) -> list[GradientCheck]:
    """As `check_gradients`, for the sum over several batches, each with rows and masks of its own; nothing is raised.

    The batches share their parameters, which are those of the first. leaves: those to compare, else the parameters;
    an input only where there is one batch. row_counts: of the batches; needed where the root has no inputs, and so
    counts once for each row."""
    leaves = graph.parameters if leaves is None else leaves
    loss = _Loss(graph, batches, row_counts, leaves)
    gradients = loss.gradients()
    results = []
    for node in leaves:
        element_count = loss.value(node).size
        elements = np.arange(element_count)
        if element_count > most:
            elements = np.sort(np.random.default_rng(seed).choice(element_count, most, replace=False))
        results.append(_compare_leaf(loss, node, gradients[node.name], elements, tolerance=tolerance, step=step))
    return results


def sum_of_gradients(
    graph: Graph,
    batches: Sequence[Values],
    *,
    row_counts: Sequence[int] | None = None,
    leaves: Sequence[Node] | None = None,
    disturb: Disturb | None = None,
) -> dict[str, Array]:
    """∂(sum of the root over all rows of all batches)/∂leaf, of the interpreter, by name. leaves: else the parameters.

    float32 where the values are, else float64. row_counts: see `compare_with_differences`. disturb: see `forward`."""
    total: dict[str, Array] = {}
    for index, batch in enumerate(batches):
        row_count = row_count_of(graph, batch) if row_counts is None else row_counts[index]
        g = backward(graph, forward(graph, batch, disturb=disturb), row_count=row_count, disturb=disturb)
        for node in graph.parameters if leaves is None else leaves:
            part = np.array(g.get(node, np.zeros_like(batch[node.name])))
            total[node.name] = total[node.name] + part if node.name in total else part
    return total


def in_float64(values: Values) -> dict[str, Array]:
    """A copy of the values in float64; integers stay as they are."""
    # All of them: a float32 input alone must not make the whole float32.
    return {
        name: np.array(value) if np.asarray(value).dtype.kind in "iu" else np.array(value, np.float64)
        for name, value in values.items()
    }


def compare_in_float32(gradient: Array, exact: Array, *, noise: Array | float = 0.0) -> PrecisionCheck:
    """Hold a float32 gradient against the float64 one of the interpreter.

    noise: what else each element may be off besides FLOAT32_TOLERANCE of the largest: see `float32_noise`."""
    scale = float(np.abs(exact).max(initial=0.0))
    distances = np.abs(gradient.astype(np.float64) - exact).reshape(-1)
    wrong = ~(distances <= FLOAT32_TOLERANCE * scale + np.reshape(noise, -1))
    worst = int(np.argmax(np.where(np.isnan(distances), np.inf, distances))) if wrong.any() else None
    return PrecisionCheck(float(distances.max(initial=0.0)) / (scale or 1.0), worst)


def float32_noise(
    graph: Graph,
    batches: Sequence[Values],
    *,
    row_counts: Sequence[int] | None = None,
    seed: int = 0,
    moves_exact: bool = False,
) -> dict[str, Array]:
    """How far each element of the float64 gradient goes when every value moves by as little as float32 rounds, by name.

    Values, their g, and the terms of sums are moved as they are made: what no way of computing an operation can keep in
    float32. So it is large where a sum cancels, and where a row is so near a kink that float32 may take the other side;
    and not where a rule loses digits that its operands have. The moves are drawn from `seed`. moves_exact: also what
    float32 holds exactly, which breaks every tie."""
    exact = [in_float64(batch) for batch in batches]
    centre = sum_of_gradients(graph, exact, row_counts=row_counts)
    noise = {name: np.zeros_like(gradient) for name, gradient in centre.items()}
    rng = np.random.default_rng(seed)

    def disturb(value: Array, is_term: bool) -> Array:
        moved = value * (1 + NOISE_MOVE * rng.choice([-1.0, 1.0], value.shape))
        # What float32 holds exactly isn't rounded.
        return moved if is_term or moves_exact else np.where(value.astype(np.float32) == value, value, moved)

    for _ in range(NOISE_DRAWS):
        for name, gradient in sum_of_gradients(graph, exact, row_counts=row_counts, disturb=disturb).items():
            np.maximum(noise[name], NOISE_FACTOR * np.abs(gradient - centre[name]), out=noise[name])
    return noise


def ties_of(graph: Graph, values: Values) -> dict[str, int]:
    """The maxima and minima whose operands are equal, by their text, and in how many values: both derivatives are 0."""
    return {node.text: count for node, count in tied_nodes(graph, forward(graph, values)).items()}


def tied_nodes(graph: Graph, f: Mapping[Node, Array]) -> dict[Node, int]:
    """As `ties_of`, from the values that `forward` gave."""
    found = {}
    for node in graph.nodes:
        if node.operation in ("maximum", "minimum"):
            a, b = aligned(node, *(f[operand] for operand in node.operands))
            count = int(np.count_nonzero(np.broadcast_to(np.equal(a, b), f[node].shape)))
            if count:
                found[node] = count
    return found


class _Loss:
    """The sum of the root over all rows of all batches, in float64, as a function of leaves that can be moved."""

    def __init__(
        self, graph: Graph, batches: Sequence[Values], row_counts: Sequence[int] | None, leaves: Sequence[Node]
    ) -> None:
        self._graph = graph
        self._row_counts = row_counts
        self._leaves = leaves
        exact = [in_float64(batch) for batch in batches]
        # One array of each parameter for all batches: moving it moves it everywhere.
        shared = {node.name: exact[0][node.name] for node in graph.parameters if node.name in exact[0]}
        self._batches = [batch | shared for batch in exact]

    def value(self, leaf: Node) -> Array:
        """The value of a leaf; an input's is that of the first batch."""
        return self._batches[0][leaf.name]

    def gradients(self) -> dict[str, Array]:
        """∂loss/∂leaf by name."""
        return sum_of_gradients(self._graph, self._batches, row_counts=self._row_counts, leaves=self._leaves)

    def difference(self, leaf: Node, element: int, width: float) -> tuple[float, float]:
        """The central difference, and what rounding may have added to it."""
        with self._moved(leaf, element, width):
            above, size_above = self._total()
        with self._moved(leaf, element, -width):
            below, size_below = self._total()
        unit = float(np.finfo(np.float64).eps) * max(1.0, size_above, size_below)
        return (above - below) / (2 * width), ROUNDING_UNITS * unit / width

    def gradients_at_ends(self, leaf: Node, element: int, width: float) -> list[float]:
        """∂loss/∂element at both ends of the step."""
        found = []
        for by in (-width, width):
            with self._moved(leaf, element, by):
                found.append(float(self.gradients()[leaf.name].flat[element]))
        return found

    def gradients_nearby(self, leaf: Node, element: int, width: float) -> list[float]:
        """∂loss/∂element at a few points around, with all leaves moved."""
        found = []
        originals = {node.name: self.value(node).copy() for node in self._leaves}
        rng = np.random.default_rng(element)
        try:
            for _ in range(NEARBY_DRAWS):
                for node in self._leaves:
                    moves = width * rng.uniform(-1.0, 1.0, self.value(node).shape)
                    self.value(node)[...] = originals[node.name] + moves
                found.append(float(self.gradients()[leaf.name].flat[element]))
        finally:
            for node in self._leaves:
                self.value(node)[...] = originals[node.name]
        return found

    def _total(self) -> tuple[float, float]:
        """The sum over all rows, and that of the absolute values, on which its rounding depends."""
        total = size = 0.0
        for index, batch in enumerate(self._batches):
            root = forward(self._graph, batch)[self._graph.root]
            times = 1 if self._graph.root.batched or self._row_counts is None else self._row_counts[index]
            total += times * float(root.sum())
            size += times * float(np.abs(root).sum())
        return total, size

    @contextlib.contextmanager
    def _moved(self, leaf: Node, element: int, by: float) -> Iterator[None]:
        value = self.value(leaf)
        original = value.flat[element]
        value.flat[element] = original + by
        try:
            yield
        finally:
            value.flat[element] = original


def _compare_leaf(
    loss: _Loss, leaf: Node, gradient: Array, elements: NDArray[np.int64], *, tolerance: float, step: float
) -> GradientCheck:
    value = loss.value(leaf)
    selected = gradient.reshape(-1)[elements]
    widths = step * np.maximum(1.0, np.abs(value.reshape(-1)[elements]))
    first = [loss.difference(leaf, int(element), width) for element, width in zip(elements, widths, strict=True)]
    differences = np.array([difference for difference, _ in first], np.float64)
    largest = max(float(np.abs(each).max(initial=0.0)) for each in (selected, differences))
    # Below this, rounding is all that a difference shows.
    scale = np.maximum(largest, np.array([rounding for _, rounding in first]) / tolerance)
    errors = np.abs(selected - differences) / scale
    at_kink = np.zeros(len(elements), bool)
    mismatch = None
    for position in map(int, np.flatnonzero(~(errors <= tolerance))):
        again = _look_closer(
            loss,
            leaf,
            int(elements[position]),
            gradient=float(selected[position]),
            width=float(widths[position]),
            first=first[position],
            near=tolerance * largest,
        )
        if again is None:
            mismatch = position
            break
        differences[position] = again.difference
        at_kink[position] = again.is_at_kink
        errors[position] = tolerance * abs(selected[position] - again.difference) / again.allowed
    error = float(errors[~at_kink].max(initial=0.0))
    return GradientCheck(leaf.name, error, selected, differences, elements, at_kink, mismatch)


@dataclass(frozen=True)
class _CloserLook:
    difference: float
    allowed: float
    is_at_kink: bool


def _look_closer(
    loss: _Loss, leaf: Node, element: int, *, gradient: float, width: float, first: tuple[float, float], near: float
) -> _CloserLook | None:
    """Difference an element again whose first difference is off, with smaller steps; None where it stays off.

    first: the first difference and its rounding. near: how far off an element may be besides its rounding."""
    difference, rounding = first
    distance = abs(gradient - difference)
    for _ in range(SMALLER_STEPS):
        closer, noise = loss.difference(leaf, element, width / 10)
        # Where rounding is as large as what is to be explained, everything would agree.
        if not 4 * noise <= distance:
            break
        width, difference, rounding = width / 10, closer, noise
        if abs(gradient - difference) <= max(near, rounding):
            return _CloserLook(difference, max(near, rounding), is_at_kink=False)
    allowed = max(near, rounding)
    slopes = [gradient, *loss.gradients_at_ends(leaf, element, width), *loss.gradients_nearby(leaf, element, width)]
    # By the mean value theorem a difference lies among the derivatives on its step, however they jump. Those nearby are
    # for a tie that lasts along the step, as in max(u + b, v + b) with u = v.
    if min(slopes) - allowed <= difference <= max(slopes) + allowed:
        return _CloserLook(difference, allowed, is_at_kink=True)
    return None
