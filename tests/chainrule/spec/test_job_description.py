"""How programs describe jobs: by files, dicts, keywords and expressions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chainrule.errors import JobFileError
from chainrule.spec.expressions import inputs, parameter
from chainrule.spec.functions import tanh
from chainrule.spec.job_description import job_spec
from chainrule.spec.job_file import load_job_file
from chainrule.v1 import job_pb2

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "two_layer.toml"


def test_a_path_and_its_spec_are_the_same_job() -> None:
    spec = load_job_file(EXAMPLE)
    assert job_spec(EXAMPLE) == job_spec(str(EXAMPLE)) == job_spec(spec) == spec
    assert job_spec(spec) is not spec


def test_keywords_describe_a_whole_job() -> None:
    V, w = parameter("V", 4, "d", frozen=True), parameter("w", 4, initializer="zeros")
    x, y = inputs()
    prediction = w @ tanh(V @ x)
    spec = job_spec(
        prediction=prediction,
        loss=(prediction - y) ** 2,
        start={"job": "8c63", "parameters": ["V"]},
        data="sklearn:diabetes",
        epochs=np.int64(3),
        batch_size=64,
        standardize=("features",),
        optimizer={"name": "adam", "learning_rate": np.float32(0.5)},
    )
    by_dict = {
        "name": "job",
        "model": {
            "prediction": "w @ tanh(V @ x)",
            "loss": "(prediction - y)**2",
            "parameters": {"w": {"shape": [4], "initializer": "zeros"}, "V": {"shape": [4, "d"], "frozen": True}},
            "start": {"job": "8c63", "parameters": ["V"]},
        },
        "data": {"uri": "sklearn:diabetes", "standardize": ["features"]},
        "training": {"epochs": 3, "batch_size": 64, "optimizer": {"name": "adam", "learning_rate": 0.5}},
    }
    assert spec == job_spec(by_dict)


def test_keywords_change_single_keys_of_a_job() -> None:
    spec = job_spec(EXAMPLE, epochs=7, name="shorter", model={"parameters": {"w": ["d"]}}, standardize=[])
    expected = load_job_file(EXAMPLE)
    expected.training.epochs, expected.name = 7, "shorter"
    del expected.model.parameters[:]
    expected.model.parameters.add(name="w", shape=["d"])
    expected.data.standardize.Clear()
    expected.data.standardize.SetInParent()
    assert spec == expected


def test_expressions_in_a_dict_bring_their_parameters_unless_it_lists_them() -> None:
    w, (x, y) = parameter("w", "d"), inputs()
    spec = job_spec({"model": {"loss": (w @ x - y) ** 2}})
    assert spec.model == job_pb2.ModelSpec(loss="(w @ x - y)**2", parameters=[job_pb2.Parameter(name="w", shape=["d"])])
    assert job_spec(loss=(w @ x - y) ** 2, parameters={"w": [3]}).model.parameters[0].shape == ["3"]


def test_a_wrong_keyword_is_named_with_the_nearest_right_one() -> None:
    with pytest.raises(JobFileError) as caught:
        job_spec(epoch=3, learning_rat=0.1)
    assert caught.value.problems[0] == ("epoch", "unknown keyword; did you mean 'epochs'?")
    with pytest.raises(JobFileError, match=r"training\.epochs: must be a whole number, got 2\.5"):
        job_spec(epochs=2.5)


def test_what_is_no_job_is_told_by_its_type_and_not_whole() -> None:
    with pytest.raises(JobFileError, match="path of a job file, a dict or a JobSpec, got a value of type int"):
        job_spec(3)  # type: ignore[arg-type]
    with pytest.raises(JobFileError, match=r"data: must be a table, got a value of type ndarray$"):
        job_spec(loss="w @ w", data=np.ones(3))
