"""Measures of a prediction, as sums over rows that can be added up along the tree, and what the sums mean.

A number is measured by R² and RMSE, a class by accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measure:
    """How predictions are compared with targets.

    kind: 'numbers', 'labels' (numbers that stand for classes: the nearest counts), 'classes' (the largest of k scores
    counts) or 'none'."""

    kind: str
    labels: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, prediction_shape: tuple[int, ...] | None, *, class_count: int | None, labels: Sequence[float]
    ) -> Measure:
        """The measure that fits a prediction's per-example shape and the target."""
        if prediction_shape is None:
            return cls("none")
        if class_count:
            return cls("classes" if prediction_shape == (class_count,) else "none")
        if prediction_shape != ():
            return cls("none")
        # As targets hold them: a label that float32 rounds would equal no target otherwise.
        rounded = tuple(sorted(float(np.float32(label)) for label in labels))
        return cls("labels", rounded) if labels else cls("numbers")

    @property
    def sum_count(self) -> int:
        """How many numbers `sums` gives."""
        return {"numbers": 3, "labels": 1, "classes": 1}.get(self.kind, 0)

    def sums(self, prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
        """Sums over the rows, float64. numbers: squared error, target, squared target. classes: right answers.

        prediction: (rows,) or (rows, k). target: (rows,)."""
        if self.kind == "numbers":
            y = target.astype(np.float64)
            error = prediction.astype(np.float64) - y
            return np.array([np.dot(error, error), y.sum(), np.dot(y, y)])
        if self.kind == "labels":
            labels = np.array(self.labels)
            nearest = labels[np.abs(prediction.astype(np.float64)[:, None] - labels).argmin(axis=1)]
            return np.array([np.count_nonzero(nearest == target.astype(np.float64))], dtype=np.float64)
        if self.kind == "classes":
            return np.array([np.count_nonzero(prediction.argmax(axis=1) == target)], dtype=np.float64)
        return np.empty(0)

    def values(self, sums: NDArray[np.float64], row_count: int, *, target_scale: float = 1.0) -> dict[str, float]:
        """The named measures from the sums over `row_count` rows.

        target_scale: what one unit of the target is in the user's own unit; RMSE is given in that.
        R² = 1 - Σ(prediction - y)² / Σ(y - ȳ)²; not given where all targets are equal."""
        if self.kind == "numbers":
            squared_error, total, squared = (float(value) for value in sums)
            spread = squared - total * total / row_count
            measures = {"r2": 1 - squared_error / spread} if spread > 0 else {}
            return measures | {"rmse": math.sqrt(squared_error / row_count) * target_scale}
        if self.kind in ("labels", "classes"):
            return {"accuracy": float(sums[0]) / row_count}
        return {}
