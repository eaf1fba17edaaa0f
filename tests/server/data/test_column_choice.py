"""Which columns a job takes: mistakes that need no data, and choices in data sets that have a target of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.v1 import job_pb2
from chainrule_server.data import data_set
from chainrule_server.data.columns import Numbers
from chainrule_server.data.data_set import DataError, DataSet, load
from chainrule_server.errors import InvalidSpec
from chainrule_server.preparation.prepare import prepare


def job(**data: Any) -> job_pb2.JobSpec:
    spec = job_pb2.JobSpec(name="rows", data=job_pb2.DataSpec(**{"uri": "file:rows.npz"} | data))
    spec.model.loss = "(w @ x - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.training.epochs = 1
    spec.training.batch_size = 2
    spec.training.shards = 2
    return spec


@pytest.mark.parametrize(
    ("data", "field", "said"),
    [
        ({"target": "y", "features": ["a", "y"]}, "data.features", "names 'y', which is the target"),
        ({"target": "y", "exclude": ["y"]}, "data.exclude", "names 'y', which is the target"),
        ({"features": ["a"], "exclude": ["b"]}, "data.exclude", "excludes 'features'"),
        ({"features": ["a", "b", "a"]}, "data.features", "names 'a' twice"),
        ({"exclude": ["a", "a"]}, "data.exclude", "names 'a' twice"),
        ({"categories": ["a", "a"]}, "data.categories", "names 'a' twice"),
        ({"missing": "drop"}, "data.missing", 'must be "refuse", "mean", "median", "most_frequent" or a number'),
        ({"missing": ""}, "data.missing", "got ''"),
        ({"missing": "nan"}, "data.missing", "got 'nan'"),
        ({"missing": "1e300"}, "data.missing", "got '1e300'"),
        ({"csv": {"delimiter": ";;"}}, "data.csv.delimiter", "must be one ASCII character"),
        ({"csv": {"delimiter": '"'}}, "data.csv.delimiter", "must be one ASCII character"),
        ({"csv": {"delimiter": "→"}}, "data.csv.delimiter", "must be one ASCII character"),
        ({"csv": {"decimal_point": ","}}, "data.csv.decimal_point", "is the delimiter too"),
    ],
)
def test_a_mistake_is_told_before_the_data_is_looked_at(data: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        prepare(job(**data))
    (found,) = caught.value.violations
    assert found[0] == field
    assert said in found[1]


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch) -> str:
    features = np.arange(12.0).reshape(4, 3)
    data = DataSet("test:matrix", features, np.array([7.0, 10.0, 7.0, 10.0]), ("a", "b", "c"))
    monkeypatch.setitem(data_set.LOADERS, data.uri, lambda: data)
    return data.uri


def loaded(uri: str, **spec: Any) -> DataSet:
    data = load(job_pb2.DataSpec(uri=uri, **spec))
    assert isinstance(data, DataSet)
    return data


def test_features_of_a_matrix_are_chosen_by_name(matrix: str) -> None:
    chosen = loaded(matrix, features=["c", "a"])
    assert (chosen.feature_names, chosen.features.tolist()[0]) == (("c", "a"), [2, 0])
    assert loaded(matrix, exclude=["b"]).feature_names == ("a", "c")
    column = loaded(matrix, target="target").feature(1)
    assert isinstance(column, Numbers)
    assert column.values.tolist() == [1, 4, 7, 10]


def test_whole_numbers_of_a_matrix_and_of_its_target_are_names_where_the_job_says_so(matrix: str) -> None:
    chosen = loaded(matrix, categories=["b", "target"])
    assert (chosen.classes, chosen.target.tolist()) == (("10", "7"), [1, 0, 1, 0])
    assert not isinstance(chosen.feature(1), Numbers)
    assert isinstance(chosen.feature(0), Numbers)


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ({"target": "a"}, "data.target", "has a target of its own"),
        ({"features": ["d"]}, "data.features", "there is no column 'd'; the columns are a, b, c"),
        ({"exclude": ["a", "b", "c"]}, "data.exclude", "no column is left"),
        ({"csv": {}}, "data.csv", "is no CSV file"),
    ],
)
def test_a_choice_that_a_matrix_does_not_have_is_refused(
    matrix: str, spec: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load(job_pb2.DataSpec(uri=matrix, **spec))
    assert caught.value.field == field


def test_the_complete_spec_says_what_becomes_of_missing_values(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", features=np.ones((4, 1)), target=np.arange(4.0))
    assert prepare(job(), data_root=tmp_path).spec.data.missing == "refuse"
