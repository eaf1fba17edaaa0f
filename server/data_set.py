"""Data sets as arrays: where the rows of a job come from."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.data_root import DataFileError, open_below
from server.npz_file import read_npz

# Looked at in parts of about so many elements: a mask over all of a large data set would be a copy of its own.
CHECKED_ELEMENTS = 1 << 20


class DataError(ValueError):
    """Data that can't be used. `field` is the path in the job's spec that asks for it."""

    def __init__(self, message: str, *, field: str = "data.uri") -> None:
        self.field = field
        super().__init__(message)


@dataclass(frozen=True)
class DataSet:
    """Rows as they came. features: (n, d) float64 or float32. target: (n,) float64, or int64 numbers of `classes`.

    classes: sorted names, None where the target is a number."""

    uri: str
    features: NDArray[Any]
    target: NDArray[Any]
    feature_names: tuple[str, ...]
    classes: tuple[str, ...] | None = None


def load(uri: str, *, data_root: Path | None = None) -> DataSet:
    """The data set of a URI. data_root: the folder that `file:` may read; None: no file is read.

    Raises DataError where it isn't there, can't be read, or holds NaN or infinity."""
    scheme, _, name = uri.partition(":")
    if scheme == "file":
        data = _from_file(uri, name, data_root)
    elif uri in LOADERS:
        data = LOADERS[uri]()
    else:
        raise DataError(f"there is no data set {uri!r}; {_hint(uri)}")
    _check_finite(data)
    return data


def not_finite(features: NDArray[Any]) -> tuple[int, int] | None:
    """(row, column) of the first value that is NaN or infinite, in the first such column; None where all are finite.

    features: (n, d)."""
    rows = max(1, CHECKED_ELEMENTS // max(1, features.shape[1]))
    parts = (np.isfinite(features[start : start + rows]).all() for start in range(0, len(features), rows))
    if all(parts):
        return None
    for index, column in enumerate(features.T):
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            return int(bad[0]), index
    return None


def _hint(uri: str) -> str:
    # Only the names are compared: a scheme in common would make 'sklearn:boston' look like 'sklearn:digits'.
    by_name = {known.partition(":")[2]: known for known in LOADERS}
    near = difflib.get_close_matches(uri.rpartition(":")[2], by_name, n=1)
    if near:
        return f"did you mean '{by_name[near[0]]}'?"
    return f"there are {', '.join(sorted(LOADERS))}, and 'file:NAME.npz' for your own"


def _check_finite(data: DataSet) -> None:
    place = not_finite(data.features)
    if place is not None:
        name, column = data.feature_names[place[1]], data.features[:, place[1]]
    elif not np.isfinite(data.target).all():
        name, column = "the target", data.target
    else:
        return
    bad = np.flatnonzero(~np.isfinite(column))
    raise DataError(
        f"{data.uri}: {name} is {column[bad[0]]:g} in row {bad[0]} (counted from 0) and not finite in "
        f"{bad.size - 1} more; every value must be a finite number"
    )


def _from_file(uri: str, name: str, data_root: Path | None) -> DataSet:
    if not name.endswith(".npz"):
        raise DataError(f"{uri!r} names no .npz file; write 'file:NAME.npz'")
    try:
        with open_below(data_root, name) as file:
            rows = read_npz(file)
    except DataFileError as error:
        raise DataError(f"{uri!r}: {error}") from None
    return DataSet(uri, rows.features, rows.target, rows.feature_names, rows.classes)


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
