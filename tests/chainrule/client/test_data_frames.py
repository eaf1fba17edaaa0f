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


class Capsules:
    """A frame of a program that nobody here knows, as Arrow's interface gives it; polars does the same."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.columns = ["not", "asked", "for"]

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("read by position")


def test_tables_of_arrow_and_whatever_gives_itself_to_it_are_read_by_name(model: chainrule.Model, frame: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    expected = model.predict(frame)
    table = pa.Table.from_pandas(frame[["floors", "garden", "size", "city"]]).append_column("at", [[[1], None, []]])
    for each in (table, table.to_batches()[0], Capsules(table), table.to_reader()):
        np.testing.assert_array_equal(model.predict(each), expected)
    with pytest.raises(chainrule.InvalidJob, match=r"columns.*'city'"):
        model.predict(table.drop_columns(["city"]))


def test_frames_of_other_libraries_are_read_by_name(model: chainrule.Model, frame: Any) -> None:
    expected = model.predict(frame)
    mixed = frame[["floors", "garden", "size", "city"]]
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(model.predict(polars.from_pandas(mixed)), expected)


def test_an_array_with_named_fields_is_read_by_name(model: chainrule.Model, frame: Any) -> None:
    rows = frame[["floors", "garden", "size", "city"]].assign(city=frame["city"].astype(object)).to_records(index=False)
    np.testing.assert_array_equal(model.predict(rows), model.predict(frame))
    np.testing.assert_array_equal(model.predict(rows[:1]), model.predict(frame)[:1])


def test_what_has_names_but_no_way_to_its_values_is_refused(model: chainrule.Model) -> None:
    class Lazy:
        columns = ("size", "city")

        def __array__(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("read by position")

    with pytest.raises(chainrule.RowsError, match="a Lazy has names of columns, but no way to its values"):
        model.predict(Lazy())


def test_an_example_that_is_explained_goes_by_its_names(model: chainrule.Model, frame: Any) -> None:
    swapped = {"floors": 2, "city": "Oslo", "size": 40.0, "garden": False}
    in_order = model.explain([40.0, "Oslo", False, 2], 7.0)
    for each in (swapped, frame[["floors", "city", "size", "garden"]].iloc[1], frame.iloc[1:2]):
        np.testing.assert_array_equal(model.explain(each, 7.0).backward["w"], in_order.backward["w"])
    with pytest.raises(chainrule.InvalidJob, match=r"own.columns.*'city'"):
        model.explain({"size": 1.0, "garden": True, "floors": 1}, 7.0)


def test_a_category_that_no_training_row_had_is_a_warning_with_where_and_what(
    model: chainrule.Model, frame: Any
) -> None:
    odd = frame.assign(city=["Lima", "Olso", "Bonn"])
    with pytest.warns(chainrule.UnknownCategoryWarning) as told:
        found = model.predict(odd)
    assert [str(each.message) for each in told] == [
        "2 rows with a category in column 'city' that no training row had, such as 'Olso', where training had 'Oslo': "
        "predicted as having none of the known ones"
    ]
    assert told[0].filename == __file__
    np.testing.assert_array_equal(found[:1], model.predict(frame)[:1])
    with pytest.warns(chainrule.UnknownCategoryWarning, match="a row with a category in column 'city'"):
        model.explain([40.0, "Bern", False, 2], 7.0)
    with pytest.raises(chainrule.InvalidJob, match=r"no training row had, 'Olso'; did you mean 'Oslo'\?") as error:
        model.predict(odd, strict=True)
    assert [path for path, _ in error.value.problems] == ["rows[1].values[1]", "rows[2].values[1]"]


def test_a_row_of_a_frame_goes_by_its_names(model: chainrule.Model, frame: Any) -> None:
    swapped = frame[["city", "floors", "garden", "size"]].iloc[1]
    np.testing.assert_array_equal(model.predict(swapped), model.predict(frame)[1:2])
    # Without names it is a row in the model's order, as an array is.
    assert rows_of(pd.Series([1.0, 2.0])) == ([[1.0, 2.0]], [])
