"""How raw rows become what the model sees, learnt once from the training rows and kept with the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.v1 import job_pb2
from server.data_set import DataError, DataSet


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
        """Features as the model sees them. raw: (rows, d) in the user's units."""
        values = np.asarray(raw, dtype=np.float64)
        if self.feature_mean is not None and self.feature_scale is not None:
            values = (values - np.array(self.feature_mean)) / np.array(self.feature_scale)
        return np.ascontiguousarray(values, dtype=np.float32)

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
    # Contiguous: numpy adds the rows one after the other only in this layout.
    features = np.ascontiguousarray(data.features[training_rows])
    statistics: dict[str, Any] = {}
    if spec.standardize.features:
        mean, scale = _mean_and_scale(features)
        statistics["feature_mean"], statistics["feature_scale"] = tuple(mean.tolist()), tuple(scale.tolist())
    if spec.standardize.target:
        if data.classes is not None:
            raise DataError(
                f'the target of {data.uri} is a class, which can\'t be standardized; write standardize = ["features"]',
                field="data.standardize",
            )
        mean, scale = _mean_and_scale(data.target[training_rows])
        statistics["target_mean"], statistics["target_scale"] = float(mean), float(scale)
    return Preprocessing(feature_names=data.feature_names, classes=data.classes, labels=labels, **statistics)


def _mean_and_scale(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation of each column; its value and 1 where a column is constant."""
    # Compared, not deviation > 0: a hundred times 7.7 have a deviation of 1e-14 by rounding.
    constant = values.min(axis=0) == values.max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.where(constant, values[0], values.mean(axis=0))
        scale = np.where(constant, 1.0, values.std(axis=0))
    return mean, np.where(scale > 0, scale, 1.0)


def _check_float32(data: DataSet, features: NDArray[np.float32], targets: NDArray[Any]) -> None:
    columns = [*zip(data.feature_names, features.T, data.features.T, strict=True)]
    columns.append(("the target", targets, data.target))
    for name, prepared, raw in columns:
        bad = np.flatnonzero(~np.isfinite(prepared))
        if bad.size:
            raise DataError(
                f"{data.uri}: {name} is {raw[bad[0]]:g} in row {bad[0]} (counted from 0), out of the range of float32; "
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
