"""Holds the gradients of backpropagation against central differences, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backpropagation import backward, forward, is_differentiated, row_count_of
from engine.errors import EngineError
from engine.graph import Graph

Array = NDArray[Any]


@dataclass(frozen=True)
class GradientCheck:
    """How far the gradient of one leaf is from the differences. error: relative to the largest element of either."""

    name: str
    error: float
    gradient: Array
    differences: Array
    checked: int


class GradientMismatch(EngineError):
    """Backpropagation and differences disagree; the message names the leaf and both numbers."""


def check_gradients(
    graph: Graph,
    values: Mapping[str, Array],
    *,
    tolerance: float = 1e-6,
    step: float = 1e-5,
    most: int = 200,
    seed: int = 0,
) -> list[GradientCheck]:
    """Compare ∂(sum of the root over the rows)/∂leaf with central differences; return one result for each leaf.

    values: as `forward` takes them; the comparison is in float64 whatever their type. Of a leaf with more than `most`
    elements a sample is differenced, drawn from `seed`. Raises GradientMismatch if an error is above `tolerance`.
    Near a kink (max at a tie, |a| at 0) the two differ by right: choose other values."""
    exact: dict[str, Array] = {
        name: np.array(value) if np.asarray(value).dtype.kind in "iu" else np.array(value, np.float64)
        for name, value in values.items()
    }
    # A float32 input alone must not make the whole float32.
    f = forward(graph, exact)
    row_count = row_count_of(graph, exact)
    g = backward(graph, f, row_count=row_count)
    results = []
    for node in graph.nodes:
        if not node.is_leaf or not is_differentiated(node):
            continue
        value = exact[node.name]
        gradient = np.array(g.get(node, np.zeros_like(value)))
        rng = np.random.default_rng(seed)
        chosen = np.arange(value.size) if value.size <= most else np.sort(rng.choice(value.size, most, replace=False))
        differences = np.zeros(len(chosen))
        for position, element in enumerate(chosen):
            original = value.flat[element]
            width = step * max(1.0, abs(float(original)))
            sums = []
            for sign in (1.0, -1.0):
                value.flat[element] = original + sign * width
                sums.append(_total(graph, exact))
            value.flat[element] = original
            differences[position] = (sums[0] - sums[1]) / (2 * width)
        selected = gradient.reshape(-1)[chosen]
        scale = max(1e-3, float(np.abs(selected).max(initial=0.0)), float(np.abs(differences).max(initial=0.0)))
        errors = np.abs(selected - differences) / scale
        error = float(errors.max(initial=0.0))
        if not error <= tolerance:
            worst = int(np.argmax(~(errors <= tolerance)))
            raise GradientMismatch(
                f"∂loss/∂{node.name}, element {int(chosen[worst])}: backpropagation gives {selected[worst]:.9g}, "
                f"differences give {differences[worst]:.9g}"
            )
        results.append(GradientCheck(node.name, error, selected, differences, len(chosen)))
    return results


def _total(graph: Graph, values: Mapping[str, Array]) -> float:
    return float(forward(graph, values)[graph.root].sum())
