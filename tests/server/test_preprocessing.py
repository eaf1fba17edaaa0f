"""Preparation: learnt from the training rows alone, undone in predictions, read back exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.v1 import job_pb2
from engine.metrics import Measure
from server import preprocessing
from server.data_set import DataError, DataSet
from server.preprocessing import Preprocessing, learn

finite = st.floats(allow_nan=False, allow_infinity=False)
ROWS = np.arange(6)


def numbers() -> DataSet:
    random = np.random.default_rng(0)
    return DataSet("test:numbers", random.normal(5, 3, (8, 2)), random.normal(100, 20, 8), ("a", "b"))


def classes() -> DataSet:
    return DataSet("test:classes", np.ones((4, 1)), np.array([0, 1, 1, 0]), ("a",), ("no", "yes"))


def spec(*, features: bool = False, target: bool = False, labels: tuple[float, ...] = ()) -> job_pb2.DataSpec:
    return job_pb2.DataSpec(standardize=job_pb2.Standardization(features=features, target=target), labels=labels)


def test_training_rows_get_mean_0_and_variance_1_and_other_rows_do_not_count() -> None:
    data = numbers()
    learnt = learn(data, spec(features=True, target=True), ROWS)
    features, targets = learnt.prepare(data)
    for values in (*features[ROWS].T, targets[ROWS]):
        np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-6)
    data.features[6:] = 1e9
    assert learn(data, spec(features=True, target=True), ROWS) == learnt


def test_a_prediction_is_given_back_in_the_targets_own_unit() -> None:
    data = numbers()
    learnt = learn(data, spec(target=True), ROWS)
    np.testing.assert_allclose(learnt.target_of(learnt.prepare(data)[1]), data.target, rtol=1e-6)


@pytest.mark.parametrize("value", [7.0, 7.7, 0.1, 1_000_000.1])
def test_a_constant_column_becomes_0_and_keeps_its_unit(value: float) -> None:
    data = numbers()
    data.features[:, 0] = value
    data.features[7, 0] = value + 1
    data.target[:] = value
    learnt = learn(data, spec(features=True, target=True), ROWS)
    features, targets = learnt.prepare(data)
    np.testing.assert_allclose(features[:, 0], [0, 0, 0, 0, 0, 0, 0, 1], rtol=1e-6)
    assert np.array_equal(targets, np.zeros(8, np.float32))


def test_statistics_do_not_depend_on_the_layout_in_memory() -> None:
    data = numbers()
    transposed = DataSet(data.uri, np.asfortranarray(data.features), data.target, data.feature_names)
    assert learn(transposed, spec(features=True), ROWS) == learn(data, spec(features=True), ROWS)


def test_float32_that_is_left_as_it_is_is_not_copied() -> None:
    features = np.ones((6, 2), np.float32)
    data = DataSet("test:float32", features, np.arange(6.0), ("a", "b"))
    assert learn(data, spec(), ROWS).prepare(data)[0] is features


@pytest.mark.parametrize("columns", [1, 2, 5, 8])
def test_a_large_data_set_is_standardized_in_parts_with_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    features = np.random.default_rng(0).normal(5, 3, (1000, columns)).astype(np.float32)
    data = DataSet("test:parts", features, np.arange(1000.0), tuple("abcdefgh"[:columns]))
    rows = np.arange(900)
    whole = learn(data, spec(features=True), rows)
    prepared = whole.prepare(data)[0]
    monkeypatch.setattr(preprocessing, "PART_ELEMENTS", 64)
    assert learn(data, spec(features=True), rows) == whole
    assert np.array_equal(whole.prepare(data)[0], prepared)
    exact = features[:900].astype(np.float64)
    np.testing.assert_allclose(whole.feature_mean, exact.mean(axis=0), rtol=1e-14)


def test_a_value_out_of_the_range_of_float32_is_refused_with_column_and_row() -> None:
    data = numbers()
    data.features[3, 1] = 1e300
    with pytest.raises(DataError, match=r"b is 1e\+300 in row 3 .* float32"):
        learn(data, spec(), ROWS).prepare(data)


def test_labels_are_given_in_the_sorted_order_of_the_classes_and_read_back_from_the_nearest_number() -> None:
    learnt = learn(classes(), spec(labels=(1, -1)), np.arange(4))
    assert learnt.prepare(classes())[1].tolist() == [1, -1, -1, 1]
    assert learnt.class_count == 0
    assert learnt.target_of(np.array([3.0, -0.1, 0.1])).tolist() == [0, 1, 0]


@pytest.mark.parametrize(("labels", "tie"), [((1, -1), 1), ((-1, 1), 0)])
def test_a_tie_goes_to_the_smaller_label_as_in_the_accuracy(labels: tuple[float, ...], tie: int) -> None:
    learnt = learn(classes(), spec(labels=labels), np.arange(4))
    prediction = np.zeros(1, np.float32)
    assert learnt.target_of(prediction).tolist() == [tie]
    measure = Measure.of((), class_count=None, labels=labels)
    assert measure.sums(prediction, np.array([labels[tie]], np.float32)).tolist() == [1]


def test_classes_without_labels_are_integers_and_the_greatest_score_wins() -> None:
    learnt = learn(classes(), spec(), np.arange(4))
    assert learnt.prepare(classes())[1].dtype == np.int64
    assert learnt.class_count == 2
    assert learnt.target_of(np.array([[0.1, 0.9], [2.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("data", "asked", "field", "said"),
    [
        (numbers(), spec(labels=(1, -1)), "data.labels", "takes no labels"),
        (classes(), spec(labels=(1, 0, -1)), "data.labels", "3 labels for 2 classes"),
        (classes(), spec(labels=(1, 1)), "data.labels", "different finite float32 numbers"),
        (classes(), spec(labels=(0.1, 0.1 + 1e-12)), "data.labels", "different finite float32 numbers"),
        (classes(), spec(labels=(1e300, 0)), "data.labels", "different finite float32 numbers"),
        (classes(), spec(target=True), "data.standardize", "can't be standardized"),
    ],
)
def test_what_does_not_fit_the_target_is_refused(data: DataSet, asked: job_pb2.DataSpec, field: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        learn(data, asked, np.arange(4))
    assert caught.value.field == field


@given(st.lists(finite, min_size=1, max_size=4), finite)
def test_json_reads_back_exactly(numbers_: list[float], target_mean: float) -> None:
    names = tuple(f"column {index}" for index in range(len(numbers_)))
    learnt = Preprocessing(names, tuple(numbers_), tuple(numbers_), target_mean, 2.5, None, (1.0, -1.0))
    assert Preprocessing.from_json(learnt.to_json()) == learnt
