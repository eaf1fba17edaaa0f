"""Whatever file trains, predicts: row for row with the values that training saw, in every form, to the bit."""

from __future__ import annotations

import csv
import datetime
import decimal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chainrule.cells.texts import DEFAULT_MARKERS
from chainrule.client.model_requests import predict_request
from chainrule.client.rows import rows_of
from chainrule.v1 import job_pb2
from chainrule.v1 import model_service_pb2 as api
from chainrule_server.data.column_choice import cell_rules
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.data_set import load
from chainrule_server.data.table_files import open_rows
from chainrule_server.errors import InvalidRequest
from chainrule_server.models.raw_rows import RawRows, read_features
from chainrule_server.offline.rows import requests
from chainrule_server.preparation.preprocessing import Preprocessing, learn
from tests.server import whole

pa = pytest.importorskip("pyarrow", reason="reads CSV, Parquet and Arrow files")
import pyarrow.csv  # noqa: E402
import pyarrow.feather  # noqa: E402
import pyarrow.parquet  # noqa: E402

Columns = dict[str, list[Any]]
STANDARDIZE = job_pb2.Standardization(features=True, target=False)


def data_of(name: str, **spec: Any) -> job_pb2.DataSpec:
    return job_pb2.DataSpec(uri=f"file:{name}", **{"target": "y", "standardize": STANDARDIZE} | spec)


def trained(folder: Path, data: job_pb2.DataSpec, rows: int | None = None) -> tuple[Preprocessing, NDArray[np.float32]]:
    """What is learnt from the first rows, and all prepared rows. rows: None: all."""
    with load(data, data_root=folder) as found:
        learnt = learn(found, data, np.arange(len(found.target) if rows is None else rows))
        return learnt, whole.prepared(learnt, found)[0]


def asked(
    learnt: Preprocessing, data: job_pb2.DataSpec, request: api.PredictRequest, *, strict: bool = False
) -> RawRows:
    paths = [f"rows[{row}]" for row in range(len(request.rows))]
    return read_features(request.rows, request.columns, learnt, cell_rules(data), paths=paths, strict=strict)


def predicted(
    learnt: Preprocessing, data: job_pb2.DataSpec, path: Path, *, name: str | None = None
) -> NDArray[np.float32]:
    """The rows of a file as a prediction sees them."""
    with path.open("rb") as file:
        found = open_rows(file, path.name if name is None else name, data, has_header=True)
        parts = [asked(learnt, data, each).features for each in requests(found, data, most_rows=5, most_values=1000)]
    return np.concatenate(parts)


def write_rows(path: Path, columns: Columns, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(["" if cell is None else repr(cell) if isinstance(cell, float) else cell for cell in row])


def write_npz(path: Path, columns: Columns) -> None:
    arrays = {name: [np.nan if each is None else each for each in values] for name, values in columns.items()}
    np.savez(path, **{name: np.array(values) for name, values in arrays.items()})


def write_stream(path: Path, columns: Columns) -> None:
    table = pa.table(columns)
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table, max_chunksize=3)


WRITERS: dict[str, Callable[[Path, Columns], None]] = {
    "rows.csv": write_rows,
    "arrows.csv": lambda path, columns: pyarrow.csv.write_csv(pa.table(columns), path),
    "rows.tsv": lambda path, columns: write_rows(path, columns, "\t"),
    "rows.parquet": lambda path, columns: pyarrow.parquet.write_table(pa.table(columns), path, row_group_size=3),
    "rows.feather": lambda path, columns: pyarrow.feather.write_feather(pa.table(columns), str(path), chunksize=3),
    "rows.arrow": write_stream,
    "rows.npz": write_npz,
}

numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1e5, 0.1, 0.3, -1.5]),
    st.floats(min_value=-1e12, max_value=1e12).filter(lambda value: value == 0 or abs(value) > 1e-12),
)
wholes = st.one_of(st.integers(-5, 5), st.sampled_from([2**53 + 1, -(2**53) - 1, 10**15]))
codes = st.sampled_from(
    [
        "1.0",
        "2.0",
        "1e5",
        "+5",
        "1_000",
        "07",
        "7",
        "12345678901234567890",
        "9007199254740993",
        " 7",
        "nan?",
        "-0",
        "TRUE",
    ]
)
words = st.sampled_from(["blue", " blue", "blue ", "ä", "a,b", 'a"b', "a\nb", "zz\tzz", "True or false", "2024-01-01x"])
rows = st.tuples(st.none() | numbers, wholes, st.none() | codes, st.none() | words, st.booleans(), numbers)
NAMES = ("size", "rooms", "code", "colour", "garden", "y")


@settings(max_examples=30, deadline=None)
@given(st.tuples(numbers, wholes, codes, words, st.booleans(), numbers), st.lists(rows, min_size=2, max_size=12))
def test_every_form_trains_and_predicts_with_the_same_bits(
    first: tuple[Any, ...], others: list[tuple[Any, ...]]
) -> None:
    table = [first, *others]
    columns: Columns = {name: [row[place] for row in table] for place, name in enumerate(NAMES)}
    has_gaps = None in (*columns["code"], *columns["colour"])
    # An array of texts can't say that there is none.
    writers = {name: write for name, write in WRITERS.items() if not (name == "rows.npz" and has_gaps)}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in writers.items():
            write(Path(folder) / name, columns)
        learnt_by = {}
        bits = set()
        for name in writers:
            data = data_of(name, categories=["code"], missing="median")
            learnt, features = trained(Path(folder), data, len(table) - 1)
            learnt_by[name] = (learnt, data)
            bits.add((learnt.to_json(), features.tobytes()))
        assert len(bits) == 1, bits
        expected = bits.pop()[1]
        learnt, data = learnt_by["rows.csv"]
        for name in writers:
            assert predicted(learnt, data, Path(folder) / name).tobytes() == expected, name
        found, names = rows_of(pa.table(columns))
        assert asked(learnt, data, predict_request("", found, names)).features.tobytes() == expected


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            (
                *("1", "07", ".5", "5.", "1e5", "+5", "-0", "-0.0", " 5", "5\t", "NA", "n/a", "", "NaN", "null"),
                *("9007199254740993", "12345678901234567890", "1e-400", "NAN", "-nan", "#N/A"),
            )
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_csv_file_of_numbers_in_every_writing_predicts_what_it_trained(cells: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "rows.csv", {"a": ["3", *cells], "y": list(range(len(cells) + 1))})
        data = data_of("rows.csv", missing="0.25")
        learnt, features = trained(Path(folder), data)
        assert predicted(learnt, data, Path(folder) / "rows.csv").tobytes() == features.tobytes()


@pytest.mark.parametrize(
    ("cells", "categories"),
    [
        (["2.0", "1.0", "1.0", "10.0"], ["code"]),
        ([" blue", " green", " blue", "blue"], []),
        (["n/a", "yes", "no", "yes"], []),
        (["123", "008", "0123", "8"], ["code"]),
        (["03", "10", "07", "3"], []),
        (["03", "10", "07", "3"], ["code"]),
        (["1e5", "+5", "1_000", "12345678901234567890", "12345678901234567891", "9007199254740993"], ["code"]),
        (["TRUE", "false", "True", "1", "0"], []),
        (["2024-01-01", "2024-01-02"], ["code"]),
    ],
)
def test_a_column_of_each_kind_that_failed_predicts_what_it_trained(
    tmp_path: Path, cells: list[str], categories: list[str]
) -> None:
    write_rows(tmp_path / "rows.csv", {"code": cells, "u": [0.5] * len(cells), "y": list(range(len(cells)))})
    data = data_of("rows.csv", missing="most_frequent", categories=categories)
    learnt, features = trained(tmp_path, data)
    assert len(np.unique(features, axis=0)) > 1
    assert predicted(learnt, data, tmp_path / "rows.csv").tobytes() == features.tobytes()
    # From a pipe there is no name to go by.
    assert predicted(learnt, data, tmp_path / "rows.csv", name="-").tobytes() == features.tobytes()


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.feather"])
def test_columns_that_the_model_does_not_use_may_be_anything(tmp_path: Path, name: str) -> None:
    columns: Columns = {
        "a": [decimal.Decimal("0.3"), decimal.Decimal("1.1"), None],
        "day": [datetime.date(2024, 1, 1), None, datetime.date(2024, 1, 2)],
        "at": [datetime.datetime(2024, 1, 1), None, datetime.datetime(2024, 1, 2)],
        "took": [datetime.timedelta(seconds=1), None, datetime.timedelta(days=1)],
        "list": [[1, 2], None, []],
        "struct": [{"a": 1}, None, {"a": 2}],
        "bytes": [b"\xff", None, b""],
        "y": [1.0, 2.0, 3.0],
    }
    unused = [each for each in columns if each not in ("a", "y")]
    WRITERS[name](tmp_path / name, columns)
    for choice in ({"exclude": unused}, {"features": ["a"]}):
        data = data_of(name, missing="mean", **choice)
        learnt, features = trained(tmp_path, data)
        assert predicted(learnt, data, tmp_path / name).tobytes() == features.tobytes()
    # Nobody has said that they aren't needed, and the model doesn't need them; and where it does, they are refused.
    assert predicted(learnt, data_of("rows.csv", missing="mean"), tmp_path / name).tobytes() == features.tobytes()
    found, names = rows_of(pa.table(columns))
    assert asked(learnt, data, predict_request("", found, names)).features.tobytes() == features.tobytes()
    WRITERS[name](tmp_path / name, {"a": columns["day"]})
    with pytest.raises(InvalidRequest) as error:
        predicted(learnt, data, tmp_path / name)
    assert error.value.violations == [
        (f"rows[{row}].values[0]", "must be a number, got a date32[day]") for row in (0, 2)
    ]


def test_decimals_are_the_numbers_that_a_csv_file_of_them_has(tmp_path: Path) -> None:
    texts = ["0.3", "123456789.123456789", "0.000012345678901234567", "-0.1", "1.1"]
    write_rows(tmp_path / "rows.csv", {"a": texts, "y": [1, 2, 3, 4, 5]})
    pyarrow.parquet.write_table(
        pa.table({"a": pa.array(list(map(decimal.Decimal, texts)), pa.decimal128(38, 21)), "y": [1, 2, 3, 4, 5]}),
        tmp_path / "rows.parquet",
    )
    found = [trained(tmp_path, data_of(name)) for name in ("rows.csv", "rows.parquet")]
    assert found[0][0].to_json() == found[1][0].to_json()
    assert found[0][1].tobytes() == found[1][1].tobytes()


def test_a_csv_file_keeps_its_minus_zero_among_whole_numbers(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", {"a": ["0", "-0", "7"], "b": ["1", "2", "3"], "y": [1, 2, 3]})
    data = data_of("rows.csv", standardize=job_pb2.Standardization())
    learnt, features = trained(tmp_path, data)
    assert np.signbit(features[:, 0]).tolist() == [False, True, False]
    assert predicted(learnt, data, tmp_path / "rows.csv").tobytes() == features.tobytes()


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.npz"])
def test_the_jobs_own_markers_are_missing_in_every_form(tmp_path: Path, name: str) -> None:
    columns: Columns = {
        "size": [1.5, -999.0, 3.5, 4.5],
        "colour": ["red", "?", "blue", "NA"],
        "y": [1.0, 2.0, 3.0, 4.0],
    }
    WRITERS[name](tmp_path / name, columns)
    data = data_of(name, missing="most_frequent", missing_markers=["?", "-999"])
    learnt, features = trained(tmp_path, data)
    number, category = learnt.features
    assert getattr(number, "fill") == 1.5  # noqa: B009
    # What programs write for missing is a text, where the job has markers of its own.
    assert getattr(category, "categories") == ("NA", "blue", "red")  # noqa: B009
    assert predicted(learnt, data, tmp_path / name).tobytes() == features.tobytes()
    found = asked(learnt, data, predict_request("", [[-999.0, "?"], ["-999", None]], ["size", "colour"])).features
    assert found[0].tobytes() == found[1].tobytes()


def test_every_default_marker_is_missing_in_training_and_in_a_prediction(tmp_path: Path) -> None:
    count = len(DEFAULT_MARKERS)
    columns: Columns = {"a": [*DEFAULT_MARKERS, "5"], "b": [*DEFAULT_MARKERS, "x"], "y": list(range(count + 1))}
    write_rows(tmp_path / "rows.csv", columns)
    data = data_of("rows.csv", missing="7", standardize=job_pb2.Standardization())
    learnt, features = trained(tmp_path, data)
    assert features[:, 0].tolist() == [7.0] * count + [5.0]
    assert predicted(learnt, data, tmp_path / "rows.csv").tobytes() == features.tobytes()


def test_long_cells_and_other_encodings_predict_where_they_train(tmp_path: Path) -> None:
    remark = b"x" * 200_000
    lines = [b"a,remark,y", b"1," + remark + b",1", *[b"2,%d,2" % row for row in range(150_000)], b"3,caf\xe9,3"]
    (tmp_path / "rows.csv").write_bytes(b"\n".join(lines) + b"\n")
    data = data_of("rows.csv", exclude=["remark"])
    learnt, features = trained(tmp_path, data)
    assert predicted(learnt, data, tmp_path / "rows.csv").tobytes() == features.tobytes()
    # The same column in a file of which nobody has said that the model doesn't use it.
    assert predicted(learnt, data_of("rows.csv"), tmp_path / "rows.csv").tobytes() == features.tobytes()


def test_a_matrix_of_features_predicts_without_its_target(tmp_path: Path) -> None:
    features = np.array([[1.0, -0.0], [2.5, 4.0], [np.nan, 5.0]])
    np.savez(tmp_path / "rows.npz", features=features, target=np.arange(3.0), feature_names=["a", "b"])
    data = data_of("rows.npz", target="", missing="mean")
    learnt, expected = trained(tmp_path, data)
    np.savez(tmp_path / "new.npz", features=features[:, ::-1], feature_names=["b", "a"])
    np.save(tmp_path / "new.npy", np.rec.fromarrays([features[:, 1], features[:, 0]], names=["b", "a"]))
    for name in ("rows.npz", "new.npz", "new.npy"):
        assert predicted(learnt, data, tmp_path / name).tobytes() == expected.tobytes()
        assert predicted(learnt, data, tmp_path / name, name="-").tobytes() == expected.tobytes()


def test_arrays_that_are_no_columns_are_refused_only_where_the_model_needs_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", a=np.arange(3.0), b=np.ones((3, 2)), c=np.array(7), y=np.arange(3.0))
    data = data_of("rows.npz", features=["a"])
    learnt, expected = trained(tmp_path, data)
    assert predicted(learnt, data_of("other.npz"), tmp_path / "rows.npz").tobytes() == expected.tobytes()
    np.savez(tmp_path / "rows.npz", a=np.ones((3, 2)), b=np.arange(3.0))
    with pytest.raises(InvalidRequest) as error:
        predicted(learnt, data_of("other.npz"), tmp_path / "rows.npz")
    assert "must be a number, got an array of shape (3, 2)" in str(error.value.violations)
    with pytest.raises(DataFileError, match=r"no column of values: 'a' is an array of shape \(3, 2\)"):
        predicted(learnt, data, tmp_path / "rows.npz")
