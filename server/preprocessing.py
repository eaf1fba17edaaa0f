"""How raw rows become what the model sees, learnt once from the training rows and kept with the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.v1 import job_pb2
from server.data_set import DataError, DataSet, not_finite

# Standardized in parts of about so many elements, so that float64 is never needed for all of a large data set.
PART_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Preprocessing:
    """Shift and scale of the features and of the target (None: left as they are), and what classes mean.

    feature_mean, feature_scale: d numbers. labels: the number of each class; None where y is the class itself."""

    feature_names: tuple[str, ...]
    feature_mean: tuple[float, ...] | None = None
    feature_scale: tuple[float, ...] | None = None
    target_mean: float | None = None
    target_scale: float | None = None
    classes: tuple[str, ...] | None = None
    labels: tuple[float, ...] | None = None

    @property
    def class_count(self) -> int:
        """The number of classes that y counts; 0 where y is a number."""
        return len(self.classes) if self.classes is not None and self.labels is None else 0

    def features_of(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Features as the model sees them. raw: (rows, d) in the user's units.

        float32 that is left as it is, is not copied; the arithmetic of a standardization is in float64."""
        values = np.asarray(raw)
        if values.dtype != np.float32:
            values = values.astype(np.float64, copy=False)
        if self.feature_mean is None or self.feature_scale is None:
            return np.ascontiguousarray(values, dtype=np.float32)
        mean, scale = np.array(self.feature_mean), np.array(self.feature_scale)
        prepared = np.empty(values.shape, dtype=np.float32)
        rows = max(1, PART_ELEMENTS // max(1, len(mean)))
        for start in range(0, len(values), rows):
            prepared[start : start + rows] = (values[start : start + rows] - mean) / scale
        return prepared

    def prepare(self, data: DataSet) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """(features, targets) of all rows: (n, d) float32, and (n,) float32 or int64 classes.

        Raises DataError where a value leaves the range of float32."""
        target = data.target
        if self.labels is not None:
            target = np.array(self.labels)[target]
        elif self.target_mean is not None and self.target_scale is not None:
            target = (target - self.target_mean) / self.target_scale
        with np.errstate(over="ignore", invalid="ignore"):
            features = self.features_of(data.features)
            targets = target.astype(np.int64 if self.class_count else np.float32)
        _check_float32(data, features, targets)
        return features, targets

    def target_of(self, prediction: NDArray[Any]) -> NDArray[Any]:
        """Predictions in the target's own unit; for classes their places in `classes`.

        prediction: (rows,), or (rows, k) scores of classes. Between two labels at the same distance the smaller counts,
        as it does in the accuracy; between two equal scores the first."""
        if self.labels is not None:
            labels = np.array(self.labels)
            order = labels.argsort()
            distance = np.abs(np.asarray(prediction, dtype=np.float64)[:, None] - labels[order])
            return np.asarray(order[distance.argmin(axis=1)])
        if self.class_count:
            return np.asarray(np.asarray(prediction).argmax(axis=1))
        if self.target_mean is not None and self.target_scale is not None:
            return np.asarray(prediction, dtype=np.float64) * self.target_scale + self.target_mean
        return prediction

    def to_json(self) -> str:
        """JSON that `from_json` reads back exactly."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """The preprocessing that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**arguments)


def learn(data: DataSet, spec: job_pb2.DataSpec, training_rows: NDArray[np.int64]) -> Preprocessing:
    """The preprocessing of a job: mean and population standard deviation over the training rows, in float64.

    training_rows: row numbers, in the order of the data set. A constant column keeps the scale 1.
    Raises DataError for labels or a standardization that don't fit the target."""
    labels = _labels(data, tuple(spec.labels))
    statistics: dict[str, Any] = {}
    if spec.standardize.features:
        means, scales = [], []
        for columns in _parts_of_columns(len(training_rows), data.features.shape[1]):
            # Contiguous: numpy adds the rows one after the other only in this layout.
            part = np.ascontiguousarray(data.features[training_rows, columns], dtype=np.float64)
            mean, scale = _mean_and_scale(part)
            means += mean.tolist()
            scales += scale.tolist()
        statistics["feature_mean"], statistics["feature_scale"] = tuple(means), tuple(scales)
    if spec.standardize.target:
        if data.classes is not None:
            raise DataError(
                f'the target of {data.uri} is a class, which can\'t be standardized; write standardize = ["features"]',
                field="data.standardize",
            )
        mean, scale = _mean_and_scale(data.target[training_rows])
        statistics["target_mean"], statistics["target_scale"] = float(mean), float(scale)
    return Preprocessing(feature_names=data.feature_names, classes=data.classes, labels=labels, **statistics)


def _parts_of_columns(row_count: int, column_count: int) -> list[slice]:
    """Columns in parts of about PART_ELEMENTS; two at least, because numpy adds a single column in another order."""
    width = max(2, PART_ELEMENTS // max(1, row_count))
    bounds = [*range(0, max(1, column_count - 1), width), column_count]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _mean_and_scale(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation of each column; its value and 1 where a column is constant."""
    # Compared, not deviation > 0: a hundred times 7.7 have a deviation of 1e-14 by rounding.
    constant = values.min(axis=0) == values.max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.where(constant, values[0], values.mean(axis=0))
        scale = np.where(constant, 1.0, values.std(axis=0))
    return mean, np.where(scale > 0, scale, 1.0)


def _check_float32(data: DataSet, features: NDArray[np.float32], targets: NDArray[Any]) -> None:
    place = not_finite(features)
    if place is not None:
        row, name, raw = place[0], data.feature_names[place[1]], data.features[place]
    elif not np.isfinite(targets).all():
        row = int(np.flatnonzero(~np.isfinite(targets))[0])
        name, raw = "the target", data.target[row]
    else:
        return
    raise DataError(
        f"{data.uri}: {name} is {raw:g} in row {row} (counted from 0), out of the range of float32; "
        "give it in a larger unit",
        field="data.uri",
    )


def _labels(data: DataSet, labels: tuple[float, ...]) -> tuple[float, ...] | None:
    if not labels:
        return None
    if data.classes is None:
        raise DataError(f"the target of {data.uri} is a number, so it takes no labels", field="data.labels")
    if len(labels) != len(data.classes):
        raise DataError(
            f"{len(labels)} labels for {len(data.classes)} classes; give one to each of {', '.join(data.classes)}",
            field="data.labels",
        )
    with np.errstate(over="ignore"):
        rounded = np.array(labels).astype(np.float32)
    if len(np.unique(rounded)) < len(labels) or not np.isfinite(rounded).all():
        raise DataError(f"labels must be different finite float32 numbers, got {list(labels)}", field="data.labels")
    return labels
