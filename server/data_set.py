"""Data sets as arrays: where the rows of a job come from."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray


class DataError(ValueError):
    """Data that can't be used. `field` is the path in the job's spec that asks for it."""

    def __init__(self, message: str, *, field: str = "data.uri") -> None:
        self.field = field
        super().__init__(message)


@dataclass(frozen=True)
class DataSet:
    """Rows as they came. features: (n, d) float64. target: (n,) float64, or int64 numbers of `classes`.

    classes: sorted names, None where the target is a number."""

    uri: str
    features: NDArray[np.float64]
    target: NDArray[Any]
    feature_names: tuple[str, ...]
    classes: tuple[str, ...] | None = None


def load(uri: str) -> DataSet:
    """The data set of a URI. Raises DataError where it isn't there or holds NaN or infinity."""
    loader = LOADERS.get(uri)
    if loader is None:
        raise DataError(f"there is no data set {uri!r}; {_hint(uri)}")
    data = loader()
    _check_finite(data)
    return data


def _hint(uri: str) -> str:
    # Only the names are compared: a scheme in common would make 'sklearn:boston' look like 'sklearn:digits'.
    by_name = {known.partition(":")[2]: known for known in LOADERS}
    near = difflib.get_close_matches(uri.rpartition(":")[2], by_name, n=1)
    return f"did you mean '{by_name[near[0]]}'?" if near else f"there are {', '.join(sorted(LOADERS))}"


def _check_finite(data: DataSet) -> None:
    columns = [*zip(data.feature_names, data.features.T, strict=True), ("the target", data.target)]
    for name, column in columns:
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            raise DataError(
                f"{data.uri}: {name} is {column[bad[0]]:g} in row {bad[0]} (counted from 0) and not finite in "
                f"{bad.size - 1} more; every value must be a finite number"
            )


def _from_sklearn(name: str, **arguments: Any) -> DataSet:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            f"'sklearn:{name}' comes with scikit-learn, which is not installed here; pip install 'chainrule[sklearn]'"
        ) from error
    bunch = getattr(datasets, f"load_{name}")(**arguments)
    names = tuple(str(feature) for feature in bunch.feature_names)
    features = np.asarray(bunch.data, dtype=np.float64)
    if "target_names" not in bunch:
        return DataSet(f"sklearn:{name}", features, np.asarray(bunch.target, dtype=np.float64), names)
    # Sorted: the number of a class must not depend on the order in which a loader names them.
    classes, target = np.unique(np.asarray(bunch.target_names).astype(str)[bunch.target], return_inverse=True)
    return DataSet(f"sklearn:{name}", features, target.astype(np.int64), names, tuple(classes.tolist()))


LOADERS: dict[str, Callable[[], DataSet]] = {
    "sklearn:breast_cancer": partial(_from_sklearn, "breast_cancer"),
    "sklearn:diabetes": partial(_from_sklearn, "diabetes", scaled=False),
    "sklearn:digits": partial(_from_sklearn, "digits"),
    "sklearn:iris": partial(_from_sklearn, "iris"),
    "sklearn:wine": partial(_from_sklearn, "wine"),
}
