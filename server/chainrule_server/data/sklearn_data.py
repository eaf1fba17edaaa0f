"""The data sets that come with scikit-learn, read from the files in its package.

Importing scikit-learn takes a second and 100 MB of memory, reading a file of it some milliseconds. Where one isn't
there, scikit-learn is imported after all; tests hold that both give the same bits.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELL_MEASURES = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip
FEATURE_NAMES: dict[str, tuple[str, ...]] = {
    "breast_cancer": (
        *(f"mean {measure}" for measure in _CELL_MEASURES),
        *(f"{measure} error" for measure in _CELL_MEASURES),
        *(f"worst {measure}" for measure in _CELL_MEASURES),
    ),
    "diabetes": ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"),
    "digits": tuple(f"pixel_{row}_{column}" for row, column in product(range(8), range(8))),
    "iris": ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"),
    "wine": (
        "alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids",
        "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline",
    ),
}  # fmt: skip
# Where the file's first line has the number of rows, that of features, and the names of the classes.
_WITH_CLASSES = {"breast_cancer": "breast_cancer.csv", "iris": "iris.csv", "wine": "wine_data.csv"}


class NoScikitLearn(Exception):
    """scikit-learn is not installed here."""


@dataclass(frozen=True)
class SklearnData:
    """features: (rows, features) float64. target: (rows,), float64, or the numbers of `target_names`."""

    features: NDArray[np.float64]
    target: NDArray[Any]
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...] | None


def read(name: str) -> SklearnData:
    """The rows of a data set, in its own units. name: one of FEATURE_NAMES. Raises NoScikitLearn."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise NoScikitLearn
    try:
        return read_files(name, Path(spec.origin).parent / "datasets" / "data")
    except FileNotFoundError:
        return load_by_import(name)


def read_files(name: str, folder: Path) -> SklearnData:
    """The same from the files of scikit-learn's folder. Raises FileNotFoundError."""
    if name == "diabetes":
        features, target = (np.loadtxt(folder / f"diabetes_{part}.csv.gz") for part in ("data_raw", "target"))
        return SklearnData(features, target, FEATURE_NAMES[name], None)
    if name == "digits":
        table = np.loadtxt(folder / "digits.csv.gz", delimiter=",")
        classes = tuple(str(digit) for digit in range(10))
    else:
        path = folder / _WITH_CLASSES[name]
        table = np.loadtxt(path, delimiter=",", skiprows=1)
        with path.open(encoding="utf-8") as file:
            classes = tuple(file.readline().strip().split(",")[2:])
    return SklearnData(np.ascontiguousarray(table[:, :-1]), table[:, -1].astype(np.int64), FEATURE_NAMES[name], classes)


def load_by_import(name: str) -> SklearnData:
    """The same by scikit-learn's own function. Raises NoScikitLearn."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise NoScikitLearn from error
    bunch = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    names = tuple(str(feature) for feature in bunch.feature_names)
    classes = tuple(str(each) for each in bunch.target_names) if "target_names" in bunch else None
    return SklearnData(np.asarray(bunch.data, dtype=np.float64), bunch.target, names, classes)
