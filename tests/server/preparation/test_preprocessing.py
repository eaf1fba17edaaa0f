"""Preparation: learnt from the training rows alone, undone in predictions, read back exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.v1 import job_pb2
from chainrule_engine.metrics import Measure
from chainrule_server.data.data_set import DataError, DataSet
from chainrule_server.preparation import encodings
from chainrule_server.preparation.encodings import CategoryEncoding, Encoding, NumberEncoding
from chainrule_server.preparation.preprocessing import Preprocessing, learn
from tests.server.whole import prepared

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
    features, targets = prepared(learnt, data)
    for values in (*features[ROWS].T, targets[ROWS]):
        np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-6)
    data.features[6:] = 1e9
    assert learn(data, spec(features=True, target=True), ROWS) == learnt


def test_a_prediction_is_given_back_in_the_targets_own_unit() -> None:
    data = numbers()
    learnt = learn(data, spec(target=True), ROWS)
    np.testing.assert_allclose(learnt.target_of(prepared(learnt, data)[1]), data.target, rtol=1e-6)


@pytest.mark.parametrize("value", [14.62, 0.1, -1e-200, 1e12])
def test_a_column_that_varies_by_roundings_alone_is_constant(value: float) -> None:
    data = numbers()
    data.features[:, 0] = np.where(np.arange(8) % 2, value, np.nextafter(value, np.inf))
    data.target[:] = data.features[:, 0]
    learnt = learn(data, spec(features=True, target=True), ROWS)
    assert (learnt.target_scale, learnt.features[0].scale) == (1.0, 1.0)  # type: ignore[union-attr]
    assert np.abs(prepared(learnt, data)[0][:, 0]).max() <= abs(value) * 1e-15


@pytest.mark.parametrize("value", [7.0, 7.7, 0.1, 1_000_000.1])
def test_a_constant_column_becomes_0_and_keeps_its_unit(value: float) -> None:
    data = numbers()
    data.features[:, 0] = value
    data.features[7, 0] = value + 1
    data.target[:] = value
    learnt = learn(data, spec(features=True, target=True), ROWS)
    features, targets = prepared(learnt, data)
    np.testing.assert_allclose(features[:, 0], [0, 0, 0, 0, 0, 0, 0, 1], rtol=1e-6)
    assert np.array_equal(targets, np.zeros(8, np.float32))


def test_statistics_do_not_depend_on_the_layout_in_memory() -> None:
    data = numbers()
    transposed = DataSet(data.uri, np.asfortranarray(data.features), data.target, data.feature_names)
    assert learn(transposed, spec(features=True), ROWS) == learn(data, spec(features=True), ROWS)


@pytest.mark.parametrize("columns", [1, 2, 5, 8])
def test_a_large_data_set_is_standardized_in_parts_with_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    features = np.random.default_rng(0).normal(5, 3, (1000, columns)).astype(np.float32)
    data = DataSet("test:parts", features, np.arange(1000.0), tuple("abcdefgh"[:columns]))
    rows = np.arange(900)
    whole = learn(data, spec(features=True), rows)
    encoded = prepared(whole, data)[0]
    monkeypatch.setattr(encodings, "PART_ROWS", 64)
    assert learn(data, spec(features=True), rows) == whole
    assert np.array_equal(prepared(whole, data)[0], encoded)
    exact = features[:900].astype(np.float64)
    means = [encoding.mean for encoding in whole.features if isinstance(encoding, NumberEncoding)]
    np.testing.assert_allclose(means, exact.mean(axis=0), rtol=1e-14)


def test_statistics_are_those_of_numpy_adding_row_after_row() -> None:
    """The bits of every job rest on them."""
    features = np.random.default_rng(0).normal(5, 3, (1000, 4))
    data = DataSet("test:numpy", features, np.arange(1000.0), tuple("abcd"))
    learnt = learn(data, spec(features=True), np.arange(1000)).features
    expected = zip("abcd", features.mean(axis=0), features.std(axis=0), strict=True)
    assert learnt == tuple(NumberEncoding(name, float(mean), float(scale)) for name, mean, scale in expected)


def test_a_value_out_of_the_range_of_float32_is_refused_with_column_and_row() -> None:
    data = numbers()
    data.features[3, 1] = 1e300
    with pytest.raises(DataError, match=r"b is 1e\+300 in row 3 .* float32"):
        prepared(learn(data, spec(), ROWS), data)


@pytest.mark.parametrize("asked", [spec(features=True), spec(target=True)])
def test_values_whose_variance_float64_cannot_hold_are_refused(asked: job_pb2.DataSpec) -> None:
    large = np.array([1e200, -1e200, 1.0, 2.0])
    data = DataSet("test:large", large[:, np.newaxis], large, ("a",))
    with pytest.raises(DataError, match="too large to be standardized"):
        learn(data, asked, np.arange(4))


def test_labels_are_given_in_the_sorted_order_of_the_classes_and_read_back_from_the_nearest_number() -> None:
    learnt = learn(classes(), spec(labels=(1, -1)), np.arange(4))
    assert prepared(learnt, classes())[1].tolist() == [1, -1, -1, 1]
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
    assert prepared(learnt, classes())[1].dtype == np.int64
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


def table() -> DataSet:
    """Whole numbers that are categories, and numbers; the last rows are for validation."""
    features = np.array([[1, 3.0], [2, np.nan], [2, 5.0], [np.nan, 7.0], [2, 5.0], [1, 4.0], [3, np.nan], [2, 9.0]])
    return DataSet("test:table", features, np.arange(8.0), ("kind", "size"), categories=frozenset(["kind"]))


def imputing(missing: str) -> job_pb2.DataSpec:
    return job_pb2.DataSpec(missing=missing, standardize=job_pb2.Standardization(features=False))


@pytest.mark.parametrize(
    ("missing", "fill"), [("mean", 4.8), ("median", 5.0), ("most_frequent", 5.0), ("0", 0.0), ("-1.5e3", -1500.0)]
)
def test_a_missing_value_becomes_what_the_job_says_learnt_from_the_training_rows(missing: str, fill: float) -> None:
    learnt = learn(table(), imputing(missing), ROWS)
    assert learnt.features == (CategoryEncoding("kind", ("1", "2"), "2"), NumberEncoding("size", fill=fill))
    features = prepared(learnt, table())[0]
    # The category 3 is in no training row.
    assert features[:, :2].tolist() == [[1, 0], [0, 1], [0, 1], [0, 1], [0, 1], [1, 0], [0, 0], [0, 1]]
    assert features[[1, 6], 2].tolist() == [np.float32(fill)] * 2


def test_of_equally_frequent_values_the_smallest_is_taken() -> None:
    features = np.array([[2.0], [1.0], [2.0], [1.0], [np.nan]])
    data = DataSet("test:tie", features, np.arange(5.0), ("a",))
    assert learn(data, imputing("most_frequent"), np.arange(5)).features[0].fill == 1.0
    as_category = DataSet("test:tie", features, np.arange(5.0), ("a",), categories=frozenset(["a"]))
    assert learn(as_category, imputing("most_frequent"), np.arange(5)).features[0].fill == "1"


def test_training_rows_have_variance_1_after_missing_values_are_filled() -> None:
    asked = job_pb2.DataSpec(missing="mean", standardize=job_pb2.Standardization(features=True))
    size = prepared(learn(table(), asked, ROWS), table())[0][ROWS, 2]
    np.testing.assert_allclose([size.mean(), size.std()], [0, 1], atol=1e-6)


def test_what_a_user_has_is_transformed_as_the_rows_of_the_data_set_were() -> None:
    asked = job_pb2.DataSpec(missing="median", standardize=job_pb2.Standardization(features=True))
    learnt = Preprocessing.from_json(learn(table(), asked, ROWS).to_json())
    kinds: list[object] = [1, "2", 2.0, None, np.int64(2), 1, "never seen", np.float32(2)]
    sizes = [3, None, 5.0, np.float64(7), 5, 4, float("nan"), 9]
    found = learnt.transform({"size": sizes, "ignored": [], "kind": kinds})
    assert np.array_equal(found, prepared(learnt, table())[0])
    assert learnt.transform({"size": [], "kind": []}).shape == (0, 3)


def test_true_and_false_are_known_in_every_writing_unless_the_column_has_texts_of_its_own() -> None:
    flag = Preprocessing((CategoryEncoding("flag", ("false", "true")),))
    written = flag.transform({"flag": [True, "true", "TRUE", "False", np.bool(False), "yes"]})
    assert written.tolist() == [[0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [0, 0]]
    text = Preprocessing((CategoryEncoding("text", ("TRUE", "true")),))
    assert text.transform({"text": ["TRUE", "true"]}).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("columns", "field", "said"),
    [
        ({"size": [1]}, "columns.kind", "there is no column 'kind'; the model takes kind, size"),
        ({"kind": ["1"], "size": [1, 2]}, "columns.size", "has 2 rows, but 'kind' 1"),
        ({"kind": ["1", "1"], "size": [1, None]}, "columns.size", "row 1 .* must be a number, got null"),
        ({"kind": ["1"], "size": ["one"]}, "columns.size", "row 0 .* must be a number, got a text"),
        ({"kind": ["1"], "size": [True]}, "columns.size", "must be a number, got a boolean"),
        ({"kind": ["1"], "size": [float("inf")]}, "columns.size", "must be a finite number, got inf"),
        ({"kind": ["1"], "size": [10**400]}, "columns.size", "out of the range of float32"),
        ({"kind": ["1"], "size": [1e39]}, "columns.size", "out of the range of float32"),
        ({"kind": [1.5], "size": [1]}, "columns.kind", "must be a text, a whole number, true or false, got 1.5"),
        ({"kind": [[]], "size": [1]}, "columns.kind", "got a list"),
        ({"kind": [10**400], "size": [1j]}, "columns.size", "must be a number, got complex"),
        ({"kind": [None], "size": [1]}, "columns.kind", "must be a category, got null"),
    ],
)
def test_values_that_the_model_cannot_take_are_refused_with_column_and_row(
    columns: dict[str, list[object]], field: str, said: str
) -> None:
    learnt = Preprocessing((CategoryEncoding("kind", ("1", "2")), NumberEncoding("size")))
    with pytest.raises(DataError, match=said) as caught:
        learnt.transform(columns)
    assert caught.value.field == field


texts = st.text(max_size=5)
numbers_learnt = st.builds(NumberEncoding, texts, st.none() | finite, st.none() | finite, st.none() | finite)
categories_learnt = st.lists(texts, min_size=1).flatmap(
    lambda names: st.builds(CategoryEncoding, texts, st.just(tuple(names)), st.none() | st.sampled_from(names))
)


@given(st.lists(numbers_learnt | categories_learnt, max_size=4), finite, st.none() | st.lists(texts).map(tuple))
def test_json_reads_back_exactly(features: list[Encoding], target_mean: float, classes: tuple[str, ...] | None) -> None:
    learnt = Preprocessing(tuple(features), "price", target_mean, 2.5, classes, (1.0, -1.0))
    assert Preprocessing.from_json(learnt.to_json()) == learnt


FORM = '"format": "chainrule-preprocessing-1"'
NO_CATEGORY = '{"kind": "category", "name": "a", "categories": ["b"], "fill": "c"}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "other"}',
        f"{{{FORM}}}",
        f'{{{FORM}, "features": [{NO_CATEGORY}], "target": {{}}}}',
    ],
)
def test_json_that_is_no_preprocessing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|is no preprocessing|of the form 'other'"):
        Preprocessing.from_json(text)
