"""Data frames of pandas, as people have them: predictions by the columns' names, whatever their order and types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import chainrule
from chainrule.client.rows import rows_of
from chainrule.v1 import job_pb2
from chainrule_server.preparation.prepare import prepare
from tests.server.in_process import running_server

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
TABLE = "size,city,garden,floors,price\n" + "".join(
    f"{20 + row}.5,{('Rome', 'Lima', 'Oslo')[row % 3]},{('true', 'false')[row % 2]},{row % 4},{row * 7}\n"
    for row in range(48)
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chainrule.Model]:
    """Of a number, a category, a boolean and whole numbers, where a missing value becomes the median."""
    folder = tmp_path_factory.mktemp("frames")
    (folder / "rows.csv").write_text(TABLE)
    spec = job_pb2.JobSpec(name="flats")
    spec.data.CopyFrom(job_pb2.DataSpec(uri="file:rows.csv", target="price", missing="median"))
    spec.model.prediction, spec.model.loss = "w @ x + b", "(prediction - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.model.parameters.add(name="b")
    spec.training.epochs, spec.training.batch_size = 3, 8
    with running_server(folder / "home") as server:
        job_id = server.add_finished(prepare(spec, data_root=folder)).job_id
        with chainrule.connect(server.address, credentials=chainrule.Credentials()) as client:
            yield client.job(job_id).model()


@pytest.fixture
def frame() -> Any:
    return pd.DataFrame(
        {
            "size": [31.5, 40.0, 22.25],
            "city": ["Lima", "Oslo", "Rome"],
            "garden": [True, False, True],
            "floors": [1, 2, 3],
        }
    )


def test_columns_are_found_by_name_in_any_order_and_more_are_ignored(model: chainrule.Model, frame: Any) -> None:
    expected = model.predict([[31.5, "Lima", True, 1], [40.0, "Oslo", False, 2], [22.25, "Rome", True, 3]])
    assert len(set(expected)) == 3
    other = frame[["floors", "garden", "size", "city"]].assign(remark="-")
    for each in (frame, other, frame.set_index(pd.Index([7, 3, 5]))):
        np.testing.assert_array_equal(model.predict(each), expected)


def test_types_of_pandas_are_the_values_that_they_hold(model: chainrule.Model, frame: Any) -> None:
    typed = frame.assign(
        city=pd.Categorical(frame["city"], categories=["Rome", "Oslo", "Lima", "Bonn"]),
        garden=pd.array([True, False, True], dtype="boolean"),
        floors=pd.array([1, 2, 3], dtype="Int8"),
        size=frame["size"].astype("float32"),
    )
    np.testing.assert_array_equal(model.predict(typed), model.predict(frame))
    arrow = frame.convert_dtypes(dtype_backend="pyarrow")
    np.testing.assert_array_equal(model.predict(arrow), model.predict(frame))


def test_what_pandas_has_for_missing_is_what_the_job_filled(model: chainrule.Model, frame: Any) -> None:
    expected = model.predict([{"size": None, "city": None, "garden": None, "floors": None}])
    gaps = pd.DataFrame(
        {
            "size": [np.nan],
            "city": pd.Categorical([None], categories=["Rome"]),
            "garden": pd.array([None], dtype="boolean"),
            "floors": pd.array([None], dtype="Int64"),
        }
    )
    np.testing.assert_array_equal(model.predict(gaps), expected)
    np.testing.assert_array_equal(model.predict(gaps.astype(object)), expected)


def test_a_column_that_is_not_there_is_named(model: chainrule.Model, frame: Any) -> None:
    with pytest.raises(chainrule.InvalidJob, match=r"columns.*'city'.*size, city, garden, floors"):
        model.predict(frame.drop(columns="city"))


def test_a_value_that_cannot_be_one_is_named_by_its_column(model: chainrule.Model, frame: Any) -> None:
    with pytest.raises(chainrule.InvalidJob, match="must be a number, got a Timestamp"):
        model.predict(frame.assign(size=pd.Timestamp("2026-01-01")))
    with pytest.raises(chainrule.InvalidJob) as error:
        model.predict(frame.assign(size=["one", "2_0", "1,5"]))
    assert [path for path, _ in error.value.problems] == [f"rows[{row}].values[0]" for row in range(3)]


def test_a_row_of_a_frame_goes_by_its_names(model: chainrule.Model, frame: Any) -> None:
    swapped = frame[["city", "floors", "garden", "size"]].iloc[1]
    np.testing.assert_array_equal(model.predict(swapped), model.predict(frame)[1:2])
    # Without names it is a row in the model's order, as an array is.
    assert rows_of(pd.Series([1.0, 2.0])) == ([[1.0, 2.0]], [])
