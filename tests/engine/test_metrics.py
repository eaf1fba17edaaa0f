"""Measures: sums that can be added up, and the values that they mean."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule_engine.metrics import Measure

random = np.random.default_rng(1)


def test_r2_and_rmse_are_those_of_their_definition_in_the_users_unit() -> None:
    y = random.normal(size=50).astype(np.float32)
    prediction = (y + random.normal(size=50) * 0.3).astype(np.float32)
    measure = Measure.of((), class_count=None, labels=())
    total = measure.sums(prediction[:20], y[:20]) + measure.sums(prediction[20:], y[20:])
    values = measure.values(total, 50, target_scale=10.0)
    error = prediction.astype(np.float64) - y
    np.testing.assert_allclose(values["r2"], 1 - (error**2).sum() / ((y - y.mean(dtype=np.float64)) ** 2).sum())
    np.testing.assert_allclose(values["rmse"], 10 * np.sqrt((error**2).mean()))


def test_r2_is_not_given_where_all_targets_are_equal() -> None:
    measure = Measure.of((), class_count=None, labels=())
    ones = np.ones(4, np.float32)
    assert set(measure.values(measure.sums(ones, ones), 4)) == {"rmse"}


def test_a_prediction_means_the_label_with_the_nearest_number() -> None:
    measure = Measure.of((), class_count=None, labels=(1, -1))
    sums = measure.sums(np.array([5, -0.1, 0.2, -3], np.float32), np.array([1, -1, -1, 1], np.float32))
    assert measure.values(sums, 4) == {"accuracy": 0.5}


def test_the_greatest_score_is_the_class() -> None:
    measure = Measure.of((3,), class_count=3, labels=())
    sums = measure.sums(np.array([[0, 2, 1], [3, 0, 0]], np.float32), np.array([1, 2]))
    assert measure.values(sums, 2) == {"accuracy": 0.5}


@pytest.mark.parametrize("shape", [None, (2,)])
def test_what_cannot_be_compared_is_not_measured(shape: tuple[int, ...] | None) -> None:
    measure = Measure.of(shape, class_count=None, labels=())
    assert measure.values(np.empty(0), 4) == {}


@pytest.mark.parametrize(
    "measure", [Measure("numbers"), Measure("labels", (-1.0, 1.0)), Measure("classes"), Measure("none")]
)
def test_sum_count_is_the_number_of_sums(measure: Measure) -> None:
    prediction = np.zeros((4, 2) if measure.kind == "classes" else 4, np.float32)
    assert len(measure.sums(prediction, np.zeros(4))) == measure.sum_count


def test_labels_that_float32_rounds_are_still_found() -> None:
    measure = Measure.of((), class_count=None, labels=(0.1, 0.9))
    targets = np.array([0.1, 0.9], np.float32)
    assert measure.values(measure.sums(targets, targets), 2) == {"accuracy": 1.0}
