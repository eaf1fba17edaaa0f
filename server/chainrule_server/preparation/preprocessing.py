"""How raw rows become what the model sees, learnt once from the training rows and kept with the model.

A prediction reads the model file's metadata with `Preprocessing.from_json`, encodes raw rows with `transform`, and
gives the model's output back in the target's own terms with `target_of`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chainrule.cells.texts import CellRules
from chainrule.v1 import job_pb2
from chainrule_engine.standardization import settled
from chainrule_server.data.columns import Categories, Rows
from chainrule_server.data.data_set import DataError, data_errors
from chainrule_server.preparation.encodings import (
    CategoryEncoding,
    Encoding,
    NumberEncoding,
    check_finite,
    check_statistics,
    learn_encoding,
    missing_values,
    out_of_float32,
)

FORMAT = "chainrule-preprocessing-1"
DEFAULT_RULES = CellRules()


class TargetPreprocessing(NamedTuple):
    """What the target means; see `Preprocessing`."""

    name: str
    mean: float | None
    scale: float | None
    classes: tuple[str, ...] | None
    labels: tuple[float, ...] | None


@dataclass(frozen=True)
class Preprocessing:
    """The encoding of each feature, and what the target means.

    target_mean, target_scale: None where it is left as it is. classes: sorted. labels: the number of each class; None
    where y is the class itself."""

    features: tuple[Encoding, ...]
    target_name: str = "the target"
    target_mean: float | None = None
    target_scale: float | None = None
    classes: tuple[str, ...] | None = None
    labels: tuple[float, ...] | None = None

    @classmethod
    def of(cls, features: tuple[Encoding, ...], target: TargetPreprocessing) -> Preprocessing:
        """These two together."""
        return cls(features, *target)

    @property
    def target(self) -> TargetPreprocessing:
        """What the target means."""
        return TargetPreprocessing(self.target_name, self.target_mean, self.target_scale, self.classes, self.labels)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns that rows must have, in the order in which the model sees them."""
        return tuple(encoding.name for encoding in self.features)

    @property
    def width(self) -> int:
        """The number of places in x: `d` in a job's shapes."""
        return sum(encoding.width for encoding in self.features)

    @property
    def class_count(self) -> int:
        """The number of classes that y counts; 0 where y is a number."""
        return len(self.classes) if self.classes is not None and self.labels is None else 0

    def transform(self, columns: Mapping[str, Sequence[Any]], rules: CellRules = DEFAULT_RULES) -> NDArray[np.float32]:
        """Raw rows, as the user has them, as the model sees them: (rows, width) float32.

        columns: values by name, all of the same number of rows: numbers; texts, true and false, or whole numbers for
        categories; None for a missing value. Columns that the model doesn't use are ignored. A category that no
        training row had is 0 in all places. rules: those of the model's job. Raises DataError with field
        `columns.NAME`."""
        prepared = []
        row_counts = {name: len(columns[name]) for name in self.feature_names if name in columns}
        for encoding in self.features:
            name, field = encoding.name, f"columns.{encoding.name}"
            if name not in columns:
                needed = ", ".join(self.feature_names[:20])
                raise DataError(f"there is no column {name!r}; the model takes {needed}", field=field)
            first, row_count = next(iter(row_counts.items()))
            if row_counts[name] != row_count:
                raise DataError(f"has {row_counts[name]} rows, but {first!r} {row_count}", field=field)
            prepared.append(list(map(encoding.reader(rules), columns[name])))
            for row, value in enumerate(prepared[-1]):
                problem = encoding.problem_of(value)
                if problem:
                    raise DataError(f"row {row} (counted from 0) {problem}", field=field)
        return self.encode(prepared)

    def encode(self, columns: Sequence[Sequence[Any]]) -> NDArray[np.float32]:
        """As `transform`, of columns in the model's order.

        Their values are those that each encoding's `reader` gave, and its `problem_of` finds nothing wrong in them."""
        prepared = np.empty((len(columns[0]), self.width), dtype=np.float32)
        start = 0
        for encoding, values in zip(self.features, columns, strict=True):
            stop = start + encoding.width
            encoding.encode(encoding.column(values), prepared[:, start:stop])
            start = stop
        return prepared

    def blocks(self, data: Rows) -> Iterator[NDArray[np.float32]]:
        """The features of all rows of a data set, in its order, a block at a time: (rows, width) float32.

        Raises ColumnError where a value leaves the range of float32, DataFileError."""
        start = 0
        for columns in data.blocks():
            first = columns[0]
            row_count = len(first.codes if isinstance(first, Categories) else first.values)
            block = np.empty((row_count, self.width), dtype=np.float32)
            place = 0
            for encoding, column in zip(self.features, columns, strict=True):
                encoding.encode(column, block[:, place : place + encoding.width], first_row=start)
                place += encoding.width
            yield block
            start += row_count

    def targets(self, data: Rows) -> NDArray[Any]:
        """The targets of all rows of a data set, in its order: (n,) float32, or int64 classes.

        Raises ColumnError where one leaves the range of float32."""
        target = data.target
        if self.labels is not None:
            target = np.array(self.labels)[target]
        elif self.target_mean is not None and self.target_scale is not None:
            target = (target - self.target_mean) / self.target_scale
        with np.errstate(over="ignore", invalid="ignore"):
            targets = target.astype(np.int64 if self.class_count else np.float32)
        bad = np.flatnonzero(~np.isfinite(targets))
        if bad.size:
            raise out_of_float32(self.target_name, float(data.target[bad[0]]), int(bad[0]))
        return targets

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
        features = [
            {"kind": "number" if isinstance(each, NumberEncoding) else "category"} | asdict(each)
            for each in self.features
        ]
        target = {
            "name": self.target_name,
            "mean": self.target_mean,
            "scale": self.target_scale,
            "classes": self.classes,
            "labels": self.labels,
        }
        return json.dumps({"format": FORMAT, "features": features, "target": target}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """The preprocessing that `to_json` wrote. Raises ValueError where it is none: a file may be anybody's."""
        try:
            found: dict[str, Any] = json.loads(text)
            if found["format"] != FORMAT:
                raise ValueError(f"the preprocessing is of the form {found['format']!r:.40}, but {FORMAT} is read here")
            target = found["target"]
            return cls(
                features=tuple(_encoding(each) for each in found["features"]),
                target_name=_text(target["name"]),
                target_mean=_number(target["mean"]),
                target_scale=_number(target["scale"]),
                classes=None if target["classes"] is None else tuple(map(_text, target["classes"])),
                labels=None if target["labels"] is None else tuple(map(_finite, target["labels"])),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"is no preprocessing: {error!r:.100}") from None


def _encoding(found: dict[str, Any]) -> Encoding:
    name = _text(found["name"])
    if found["kind"] == "number":
        return NumberEncoding(name, _number(found["mean"]), _number(found["scale"]), _number(found["fill"]))
    categories = tuple(map(_text, found["categories"]))
    if found["fill"] is not None and found["fill"] not in categories:
        raise ValueError(f"is no preprocessing: {found['fill']!r:.40} is no category of {name!r:.40}")
    return CategoryEncoding(name, categories, found["fill"])


def _number(value: Any) -> float | None:
    return None if value is None else _finite(value)


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"is no preprocessing: {value!r:.40} is no finite number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is no preprocessing: {value!r:.40} is no text")
    return value


def learn(data: Rows, spec: job_pb2.DataSpec, training_rows: NDArray[np.int64]) -> Preprocessing:
    """The preprocessing of a job: mean and population standard deviation over the training rows, and their categories.

    training_rows: row numbers, sorted. A constant column keeps the scale 1. Raises DataError for values that can't be
    used in any row, and for labels or a standardization that don't fit the target."""
    target = learn_target(data, spec, training_rows)
    return Preprocessing.of(learn_features(data, spec, training_rows), target)


def learn_features(data: Rows, spec: job_pb2.DataSpec, training_rows: NDArray[np.int64]) -> tuple[Encoding, ...]:
    """The encoding of each feature. Raises DataError."""
    with data_errors(data.uri):
        return tuple(
            learn_encoding(
                data.feature(index),
                training_rows,
                name=name,
                standardize=spec.standardize.features,
                missing=spec.missing or "refuse",
            )
            for index, name in enumerate(data.feature_names)
        )


def learn_target(data: Rows, spec: job_pb2.DataSpec, training_rows: NDArray[np.int64]) -> TargetPreprocessing:
    """What the target means. Raises DataError."""
    labels = _labels(data, tuple(spec.labels))
    with data_errors(data.uri):
        if data.classes is None:
            check_finite(data.target, name=data.target_name)
            if np.isnan(data.target).any():
                raise missing_values(data.target_name, np.isnan(data.target))
    mean = scale = None
    if spec.standardize.target:
        if data.classes is not None:
            raise DataError(
                f'the target of {data.uri} is a class, which can\'t be standardized; write standardize = ["features"]',
                field="data.standardize",
            )
        mean, scale = _mean_and_scale_of_target(data.target[training_rows])
        with data_errors(data.uri):
            check_statistics(mean, scale, name=data.target_name)
    return TargetPreprocessing(data.target_name, mean, scale, data.classes, labels)


def _mean_and_scale_of_target(values: NDArray[np.float64]) -> tuple[float, float]:
    """As `mean_and_scale`, but in numpy's order of adding, which the trained bits of every job so far rest on."""
    if values.min() == values.max():
        return float(values[0]), 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = float(values.mean()), float(values.std())
    return settled(values, mean, scale)


def _labels(data: Rows, labels: tuple[float, ...]) -> tuple[float, ...] | None:
    if not labels:
        return None
    if data.classes is None:
        raise DataError(
            f"the target of {data.uri} is a number, so it takes no labels; where its numbers are names, name it in "
            "data.categories",
            field="data.labels",
        )
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
