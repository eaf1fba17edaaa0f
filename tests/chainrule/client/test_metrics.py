"""A job's measures as arrays."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from chainrule.client.metrics import Metrics
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api

ROWS = [
    api.MetricRow(step=1, loss=2.0),
    api.MetricRow(
        step=2, loss=1.0, epoch=1, validation_loss=1.5, metrics=[job_pb2.Metric(name="validation_r2", value=0.5)]
    ),
]


def test_measures_are_arrays_of_one_length_with_nan_where_there_is_none() -> None:
    metrics = Metrics(ROWS)
    np.testing.assert_array_equal(metrics["step"], [1, 2])
    np.testing.assert_array_equal(metrics["loss"], [2.0, 1.0])
    np.testing.assert_array_equal(metrics["validation_r2"], [np.nan, 0.5])
    assert {len(column) for column in metrics.values()} == {2}
    assert repr(metrics).startswith("<Metrics of 2 steps: step, epoch, time, loss")


def test_a_job_without_steps_has_empty_arrays() -> None:
    assert {len(column) for column in Metrics([]).values()} == {0}


def test_pandas_gets_the_columns_by_step() -> None:
    pandas = pytest.importorskip("pandas")
    frame = Metrics(ROWS).to_pandas()
    assert frame.index.tolist() == [1, 2]
    assert frame.index.name == "step"
    assert {"epoch", "time", "loss", "validation_loss"} <= set(frame.columns)
    assert frame.loc[2, "loss"] == 1.0
    assert pandas.isna(frame.loc[1, "validation_r2"])
    assert Metrics([]).to_pandas().empty


def test_the_absence_of_pandas_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        Metrics(ROWS).to_pandas()
