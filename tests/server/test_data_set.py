"""Data sets: what is loaded, and how bad data is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from chainrule.v1 import job_pb2
from server import data_set
from server.data_set import DataError, DataSet, load
from server.errors import InvalidSpec
from server.prepared_job import prepare


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.ones((20, 2))
    features[7, 1] = np.nan
    data = DataSet("test:broken", features, np.arange(20.0), ("height", "weight"))
    monkeypatch.setitem(data_set.LOADERS, "test:broken", lambda: data)


@pytest.mark.parametrize(
    ("name", "rows", "features", "classes"),
    [("diabetes", 442, 10, None), ("breast_cancer", 569, 30, 2), ("iris", 150, 4, 3), ("digits", 1797, 64, 10)],
)
def test_a_data_set_of_scikit_learn_has_its_rows_and_classes(
    name: str, rows: int, features: int, classes: int | None
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn ships the data")
    data = load(f"sklearn:{name}")
    assert data.features.shape == (rows, features)
    assert len(data.feature_names) == features
    assert (None if data.classes is None else len(data.classes)) == classes
    assert data.classes is None or list(data.classes) == sorted(data.classes)


def test_nan_in_the_data_is_refused_with_column_and_first_row(broken: None) -> None:
    with pytest.raises(DataError, match=r"weight is nan in row 7"):
        load("test:broken")


def test_nan_in_the_data_refuses_the_job_at_its_uri(broken: None) -> None:
    spec = job_pb2.JobSpec(name="broken")
    spec.model.loss = "(w @ x - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.data.uri = "test:broken"
    spec.training.epochs = 1
    spec.training.batch_size = 8
    with pytest.raises(InvalidSpec) as caught:
        prepare(spec)
    assert [path for path, _ in caught.value.violations] == ["data.uri"]


@pytest.mark.parametrize("uri", ["sklearn:diabetis", "diabetes", "scikit-learn:diabetes"])
def test_a_mistyped_data_set_gets_a_suggestion(uri: str) -> None:
    with pytest.raises(DataError, match="did you mean 'sklearn:diabetes'"):
        load(uri)


@pytest.mark.parametrize("uri", ["sklearn:boston", "sklearn:", "csv:rows.csv", ""])
def test_an_unknown_data_set_is_answered_with_those_there_are(uri: str) -> None:
    with pytest.raises(DataError, match=r"there are sklearn:breast_cancer, sklearn:diabetes, .*sklearn:wine"):
        load(uri)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"pip install 'chainrule\[sklearn\]'"):
        load("sklearn:diabetes")


def test_diabetes_comes_in_its_own_units() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn ships the data")
    age = load("sklearn:diabetes").features[:, 0]
    assert (age.min(), age.max()) == (19, 79)
