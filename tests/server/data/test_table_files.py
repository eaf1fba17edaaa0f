"""Files of columns: every form gives the same rows, and bad ones are refused with what is wrong and where."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chainrule.v1 import job_pb2
from chainrule_server.data.columns import MAX_CATEGORIES
from chainrule_server.data.data_root import MAX_FILES
from chainrule_server.data.data_set import DataError, load
from chainrule_server.preparation.preprocessing import Preprocessing, learn
from tests.server import whole

pa = pytest.importorskip("pyarrow", reason="reads CSV, Parquet and Arrow files")
import pyarrow.csv  # noqa: E402
import pyarrow.feather  # noqa: E402
import pyarrow.parquet  # noqa: E402

STANDARDIZE = job_pb2.Standardization(features=True, target=False)

Prepared = tuple[Preprocessing, NDArray[np.float32], NDArray[Any]]


def prepared(folder: Path, uri: str, *, rows: int | None = None, **spec: Any) -> Prepared:
    """What is learnt from the first rows, and the prepared rows. rows: None: all."""
    data_spec = job_pb2.DataSpec(uri=f"file:{uri}", standardize=STANDARDIZE, **{"target": "y"} | spec)
    with load(data_spec, data_root=folder) as data:
        learnt = learn(data, data_spec, np.arange(len(data.target) if rows is None else rows))
        features, targets = whole.prepared(learnt, data)
    return learnt, features, targets


def refused(folder: Path, uri: str, **spec: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        prepared(folder, uri, **spec)
    assert caught.value.field.startswith("data.")
    return caught.value


def write_csv(path: Path, columns: dict[str, Any]) -> None:
    pyarrow.csv.write_csv(pa.table(columns), path)


def write_parquet(path: Path, columns: dict[str, Any]) -> None:
    pyarrow.parquet.write_table(pa.table(columns), path, row_group_size=3)


def write_arrow(path: Path, columns: dict[str, Any]) -> None:
    pyarrow.feather.write_feather(pa.table(columns), str(path), chunksize=3)


def write_stream(path: Path, columns: dict[str, Any]) -> None:
    table = pa.table(columns)
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table, max_chunksize=3)


def write_npz(path: Path, columns: dict[str, Any]) -> None:
    np.savez(path, **{name: np.array(values) for name, values in columns.items()})


WRITERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "arrow": write_stream,
    "feather": write_arrow,
    "npz": write_npz,
}

COLUMNS = {
    "size": [1.5, 2.0, 0.25, 7.0, 3.0, 4.0],
    "city": ["Bern", "Genf", "Bern", "Zug", "Genf", "Bern"],
    "rooms": [1, 2, 2, 5, 3, 4],
    "garden": [True, False, False, True, True, False],
    "y": [10.0, 20.0, 5.0, 70.0, 30.0, 40.0],
}


@pytest.mark.parametrize("form", list(WRITERS))
def test_a_file_of_columns_is_standardized_and_one_hot_in_every_form(tmp_path: Path, form: str) -> None:
    WRITERS[form](tmp_path / f"rows.{form}", COLUMNS)
    learnt, features, targets = prepared(tmp_path, f"rows.{form}")
    assert learnt.feature_names == ("size", "city", "rooms", "garden")
    assert (learnt.width, features.dtype) == (7, np.float32)
    size, rooms = np.array(COLUMNS["size"]), np.array(COLUMNS["rooms"])
    np.testing.assert_allclose(features[:, 0], (size - size.mean()) / size.std(), rtol=1e-6)
    assert [learnt.features[1].categories[place] for place in features[:, 1:4].argmax(axis=1)] == COLUMNS["city"]
    np.testing.assert_allclose(features[:, 4], (rooms - rooms.mean()) / rooms.std(), rtol=1e-6)
    # false, true
    assert features[:, 5:].tolist() == [[0, 1], [1, 0], [1, 0], [0, 1], [0, 1], [1, 0]]
    assert targets.tolist() == COLUMNS["y"]


# Not so near to 0 that training rows may be 1e30 times closer together than the others: that is refused.
floats = st.floats(min_value=-1e12, max_value=1e12).filter(lambda value: value == 0 or abs(value) > 1e-12)
words = st.sampled_from(["a", "b", "B", "ä", "a,b", 'a"b', "a\nb", "zz zz"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(floats, st.integers(-(2**40), 2**40), words, st.booleans()), min_size=3, max_size=20))
def test_every_form_gives_the_same_prepared_bits(rows: list[tuple[float, int, str, bool]]) -> None:
    names = ("size", "rooms", "city", "y")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for form, write in WRITERS.items():
            write(Path(folder) / f"rows.{form}", columns)
            learnt, features, targets = prepared(Path(folder), f"rows.{form}", rows=len(rows) - 1)
            found[form] = (learnt.to_json(), features.tobytes(), targets.tobytes())
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("form", list(WRITERS))
def test_several_files_are_the_rows_of_one_in_the_order_of_their_names(tmp_path: Path, form: str) -> None:
    WRITERS[form](tmp_path / f"all.{form}", COLUMNS)
    (tmp_path / "parts").mkdir()
    for number, part in ((2, slice(5, 6)), (10, slice(0, 2)), (11, slice(2, 5))):
        WRITERS[form](tmp_path / "parts" / f"{number}.{form}", {name: each[part] for name, each in COLUMNS.items()})
    (tmp_path / "parts" / "_SUCCESS").touch()
    (tmp_path / "parts" / "README").touch()
    learnt, features, targets = prepared(tmp_path, f"all.{form}")
    for uri in ("parts", "parts/", f"parts/*.{form}", "parts/[12]*"):
        again = prepared(tmp_path, uri)
        # 10, 11, 2: names are texts.
        assert (again[0], again[1].tobytes(), again[2].tobytes()) == (learnt, features.tobytes(), targets.tobytes())


def test_columns_are_chosen_by_name_and_in_the_jobs_order(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", COLUMNS)
    assert prepared(tmp_path, "rows.csv", features=["rooms", "size"])[0].feature_names == ("rooms", "size")
    assert prepared(tmp_path, "rows.csv", exclude=["city"])[0].feature_names == ("size", "rooms", "garden")
    assert prepared(tmp_path, "rows.csv", target="size")[0].feature_names == ("city", "rooms", "garden", "y")


def test_columns_that_are_not_chosen_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,day,remark,y\n1,2024-01-01,,1\n2,2024-01-02,x,2\n")
    assert prepared(tmp_path, "rows.csv", exclude=["day", "remark"])[1].tolist() == [[-1], [1]]


@pytest.mark.parametrize("form", list(WRITERS))
def test_a_target_of_texts_or_of_true_and_false_is_a_class(tmp_path: Path, form: str) -> None:
    WRITERS[form](tmp_path / f"rows.{form}", COLUMNS)
    learnt, _, targets = prepared(tmp_path, f"rows.{form}", target="city")
    assert (learnt.classes, learnt.class_count, targets.dtype) == (("Bern", "Genf", "Zug"), 3, np.int64)
    assert targets.tolist() == [0, 1, 0, 2, 1, 0]
    assert prepared(tmp_path, f"rows.{form}", target="garden")[0].classes == ("false", "true")
    assert prepared(tmp_path, f"rows.{form}", target="garden", labels=[-1, 1])[2].tolist() == [1, -1, -1, 1, 1, -1]


@pytest.mark.parametrize("form", list(WRITERS))
def test_whole_numbers_are_names_where_the_job_says_so(tmp_path: Path, form: str) -> None:
    WRITERS[form](tmp_path / f"rows.{form}", COLUMNS | {"kind": [3, 10, 3, 3, 10, 10]})
    learnt, features, targets = prepared(
        tmp_path, f"rows.{form}", target="kind", features=["rooms"], categories=["rooms", "kind"]
    )
    # Sorted as texts.
    assert learnt.classes == ("10", "3")
    assert targets.tolist() == [1, 0, 1, 1, 0, 0]
    assert learnt.features[0].categories == ("1", "2", "3", "4", "5")
    assert features.argmax(axis=1).tolist() == [0, 1, 1, 4, 2, 3]


def test_a_postcode_in_a_csv_file_keeps_its_zero(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("code,y\n0123,1\n123,2\n")
    assert prepared(tmp_path, "rows.csv", categories=["code"])[0].features[0].categories == ("0123", "123")


def test_a_table_in_an_npy_file_has_numbered_columns_and_named_fields_keep_their_names(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    learnt, _, targets = prepared(tmp_path, "table.npy", target="x[2]")
    assert (learnt.feature_names, targets.tolist()) == (("x[0]", "x[1]"), [2, 5, 8, 11])
    rows = [(1.5, 2, "a"), (2.5, 1, "b")]
    np.save(tmp_path / "fields.npy", np.array(rows, dtype=[("size", "<f4"), ("y", "<i8"), ("city", "<U3")]))
    learnt, _, targets = prepared(tmp_path, "fields.npy")
    assert (learnt.feature_names, targets.tolist()) == (("size", "city"), [2, 1])


def test_pickles_are_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([None, 1]), allow_pickle=True)
    assert "Python objects, which are never read" in str(refused(tmp_path, "rows.npy"))
    np.savez(tmp_path / "rows.npz", a=np.array([None, 1]), y=np.ones(2))
    assert "Python objects, which are never read" in str(refused(tmp_path, "rows.npz"))


def test_a_csv_file_of_another_country_is_read_as_the_job_says(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("größe;y\n1,5;2\n2,5;-1,25e1\n", encoding="utf-8-sig")
    form = job_pb2.CsvFormat(delimiter=";", decimal_point=",")
    learnt, _, targets = prepared(tmp_path, "rows.csv", csv=form)
    assert (learnt.feature_names, targets.tolist()) == (("größe",), [2, -12.5])
    (tmp_path / "rows.tsv").write_text("a\ty\n1\t2\n2\t3\n")
    assert prepared(tmp_path, "rows.tsv")[2].tolist() == [2, 3]


def test_float32_columns_and_other_numbers_of_parquet_are_read(tmp_path: Path) -> None:
    columns = {
        "f4": pa.array([0.1, 2.5], pa.float32()),
        "f2": pa.array(np.array([0.5, 2.5], np.float16)),
        "i1": pa.array([1, -2], pa.int8()),
        "u8": pa.array([1, 2**63], pa.uint64()),
        "decimal": pa.array([1, 2], pa.decimal128(5, 2)),
        "dictionary": pa.array(["b", "a"]).dictionary_encode(),
        "unsigned": pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.uint8()), pa.array(["p", "q", "never"])),
        "view": pa.array(["s", "t"], pa.string_view()),
        "a.b": pa.array([1.0, 2.0]),
        "a": pa.array([3.0, 5.0]),
        "y": pa.array([1.0, 2.0]),
    }
    for form in ("parquet", "arrow"):
        pa_columns = {name: each for name, each in columns.items() if form == "arrow" or name != "view"}
        WRITERS[form](tmp_path / f"rows.{form}", pa_columns)
        learnt, features, _ = prepared(tmp_path, f"rows.{form}")
        assert np.isfinite(features).all()
        by_name = {each.name: each for each in learnt.features}
        assert by_name["dictionary"].categories == ("a", "b")
        assert by_name["unsigned"].categories == ("p", "q")
        assert (by_name["a.b"].mean, by_name["a"].mean) == (1.5, 4.0)
        assert by_name["f4"].mean == (float(np.float32(0.1)) + 2.5) / 2


@pytest.mark.parametrize(
    ("text", "spec", "field", "said"),
    [
        ("", {}, "data.uri", "is empty; the first line names the columns"),
        ("a,y\n", {}, "data.uri", "has no row"),
        ("a,y\n1,2\n", {"target": ""}, "data.target", "name the column that is to be predicted; the columns are a, y"),
        ("size,y\n1,2\n", {"target": "sise"}, "data.target", "no column 'sise'; did you mean 'size'?"),
        ("a,y\n1,2\n", {"target": "Y"}, "data.target", "did you mean 'y'?"),
        ("a,y\n1,2\n", {"target": "price"}, "data.target", "the columns are a, y"),
        ("size,y\n1,2\n", {"features": ["sice"]}, "data.features", "did you mean 'size'?"),
        ("size,y\n1,2\n", {"exclude": ["sice"]}, "data.exclude", "did you mean 'size'?"),
        ("size,y\n1,2\n", {"categories": ["sice"]}, "data.categories", "did you mean 'size'?"),
        ("a,b,y\n1,2,3\n", {"features": ["b"], "categories": ["a"]}, "data.categories", "is no feature of this job"),
        ("a,y\n1,2\n", {"exclude": ["a"]}, "data.exclude", "no column is left"),
        ("a,a,y\n1,2,3\n", {}, "data.uri", "two columns are named 'a'"),
        (",a,y,\n0,1,2,3\n", {}, "data.uri", "columns 1, 4 of 4 have no name; give each one"),
        ("sep=;\na;y\n1;2\n", {}, "data.uri", "the first line, 'sep=;', is meant for Excel; take it out"),
        ("My report\na,y\n1,2\n", {}, "data.uri", "the first line, 'My report', is a title, and no names for the 2"),
        ("My report,,\na,b,y\n1,2,3\n", {}, "data.uri", "'My report', is a title, and no names for the 3 columns"),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", {}, "data.uri", "must name the columns, but holds '5.1'"),
        (",a,y\n0,1,2\n", {}, "data.exclude", r"column 1 of 3 has no name.*data.exclude"),
        ("5.1,3.5\n4.9,3.0\n", {}, "data.uri", "the first line must name the columns, but holds '5.1'"),
        ("a;y\n1;2\n", {}, "data.csv.delimiter", 'a semicolon divides the columns, say data.csv = { delimiter = ";" }'),
        ("a\ty\n1\t2\n", {}, "data.csv.delimiter", r'delimiter = "\\t"'),
        ("a,y\n1,2\n3\n", {}, "data.uri", "Expected 2 columns, got 1: 3"),
        ("a,y\n1,2\n3,4,5\n", {}, "data.uri", "Expected 2 columns, got 3"),
        ("a,y\n2024-02-03,1\n", {}, "data.uri", "'a' holds date32.*dates and times are not learnt from"),
        ("a,y\n12:30,1\n", {}, "data.uri", "'a' holds time32"),
        ("a,y\n1,2024-02-03\n", {}, "data.uri", "'y' holds date32"),
        ("a,y\n1,2\n2,3\nx,4\n", {}, "data.uri", "'a' holds numbers, but 'x' in row 2 .*data.categories"),
        ("a,y\n1,2\ninf,3\n", {}, "data.uri", "a is inf in row 1"),
        ("a,y\n1,2\n2,-inf\n", {}, "data.uri", "y is -inf in row 1"),
        (
            "a,y\n1,2\n1e39,3\n",
            {"standardize": job_pb2.Standardization()},
            "data.uri",
            r"a is 1e\+39 in row 1 .*float32",
        ),
        ("a,y\n1,2\n,3\nNA,4\n", {}, "data.uri", r"a has no value \(or nan\) in row 1 .*in 1 more.*data.missing"),
        ("a,y\nx,2\n,3\n", {}, "data.uri", r"a has no value \(or nan\) in row 1"),
        ("a,y\n1,2\n2,\n", {"missing": "mean"}, "data.uri", "'y' is the target, but has no value in row 1"),
        ("a,y\n,2\n,3\n", {"missing": "mean"}, "data.uri", "'a' has no value in any training row"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_refused_with_what_and_where(
    tmp_path: Path, text: str, spec: dict[str, Any], field: str, said: str
) -> None:
    (tmp_path / "rows.csv").write_text(text)
    data_spec = job_pb2.DataSpec(**{"uri": "file:rows.csv", "target": "y", "standardize": STANDARDIZE} | spec)
    with (
        pytest.raises(DataError, match=f"^file:rows.csv: .*{said}") as caught,
        load(data_spec, data_root=tmp_path) as data,
    ):
        whole.prepared(learn(data, data_spec, np.arange(len(data.target))), data)
    assert caught.value.field == field


def test_a_column_may_be_called_a_year_but_a_row_of_numbers_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("2019,2020,y\n1,2,3\n4,5,6\n")
    assert prepared(tmp_path, "rows.csv")[0].feature_names == ("2019", "2020")
    (tmp_path / "rows.csv").write_text("2019,2020\n1,2\n")
    assert "the first line must name the columns, but holds '2019'" in str(refused(tmp_path, "rows.csv"))


def test_a_first_line_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a," * (1 << 19) + "y\n1,2\n")
    assert "the first line is longer than 1048576 bytes" in str(refused(tmp_path, "rows.csv"))


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("größe,y\n1,2\n".encode("latin-1"))
    assert "is not UTF-8" in str(refused(tmp_path, "rows.csv"))


@pytest.mark.parametrize("form", list(WRITERS))
def test_too_many_categories_are_refused_with_the_column(tmp_path: Path, form: str) -> None:
    count = MAX_CATEGORIES + 1
    WRITERS[form](tmp_path / f"rows.{form}", {"name": [f"n{row}" for row in range(count)], "y": [1.0] * count})
    error = refused(tmp_path, f"rows.{form}")
    assert f"'name' has {count} different values" in str(error)
    assert 'data.exclude = ["name"]' in str(error)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (lambda: pa.array([[1], [2]]), "'a' holds list"),
        (lambda: pa.array([{"b": 1}, {"b": 2}]), "'a' holds struct"),
        (lambda: pa.array([b"1", b"2"]), "'a' holds binary"),
        (lambda: pa.array([1, 2], pa.timestamp("ms")), "'a' holds timestamp"),
        (lambda: pa.array([1, 2], pa.duration("s")), "'a' holds duration"),
        (lambda: pa.nulls(2), "'a' has no value in any training row|a has no value"),
    ],
)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_column_of_another_kind_is_refused_with_its_type(
    tmp_path: Path, form: str, array: Callable[[], Any], said: str
) -> None:
    WRITERS[form](tmp_path / f"rows.{form}", {"a": array(), "y": [1.0, 2.0]})
    with pytest.raises(DataError, match=said):
        prepared(tmp_path, f"rows.{form}")


def test_a_category_with_fractions_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet", COLUMNS)
    error = refused(tmp_path, "rows.parquet", categories=["size"])
    assert (error.field, "'size' is 1.5 in row 0" in str(error)) == ("data.categories", True)
    write_npz(tmp_path / "rows.npz", COLUMNS)
    error = refused(tmp_path, "rows.npz", categories=["size"])
    assert (error.field, "'size' is 1.5 in row 0" in str(error)) == ("data.categories", True)


def test_files_with_other_columns_or_of_other_forms_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "1.csv", {"a": [1], "y": [1]})
    write_csv(tmp_path / "2.csv", {"b": [1], "y": [1]})
    assert "1.csv has a, 2.csv has not; 2.csv has b, 1.csv has not" in str(refused(tmp_path, "*.csv"))
    write_csv(tmp_path / "2.csv", {"a": ["x"], "y": [1]})
    assert "'a' holds text in 2.csv, but numbers in 1.csv" in str(refused(tmp_path, "*.csv"))
    write_parquet(tmp_path / "3.parquet", COLUMNS)
    assert "files of different forms, .csv, .parquet" in str(refused(tmp_path, "*"))


def test_nothing_outside_the_data_root_is_read_or_listed_by_a_folder_or_a_pattern(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_csv(tmp_path / "secret.csv", COLUMNS)
    (root / "out").symlink_to(tmp_path)
    (root / "link.csv").symlink_to(tmp_path / "secret.csv")
    for uri in ("../*.csv", "..", "out", "out/*.csv", f"{tmp_path}", f"{tmp_path}/*.csv", "*.csv"):
        error = refused(root, uri)
        assert "leads out of the data folder" in str(error), uri
        assert "secret" not in str(error)


def test_an_arrow_stream_that_was_cut_between_two_batches_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    write_stream(path, COLUMNS)
    path.write_bytes(path.read_bytes()[:-8])
    with pa.ipc.open_stream(str(path)) as stream:
        assert stream.read_all().num_rows == 6, "Arrow itself sees nothing wrong"
    assert "is an Arrow stream that was cut off" in str(refused(tmp_path, "rows.arrow"))


def test_a_file_of_another_form_than_its_name_says_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", COLUMNS)
    for form in ("parquet", "arrow", "feather", "npz", "npy"):
        (tmp_path / f"rows.{form}").write_bytes((tmp_path / "rows.csv").read_bytes())
        assert f"rows.{form}" in str(refused(tmp_path, f"rows.{form}"))
    write_npz(tmp_path / "rows.npz", COLUMNS)
    assert refused(tmp_path, "rows.npz", csv=job_pb2.CsvFormat(delimiter=";")).field == "data.csv"


@pytest.mark.parametrize("form", [*WRITERS, "npy"])
def test_changed_bytes_of_a_file_are_never_a_crash(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"rows.{form}"
    if form == "npy":
        np.save(path, np.array([(1.5, 2), (2.5, 1)], dtype=[("size", "<f4"), ("y", "<i8")]))
    else:
        WRITERS[form](path, COLUMNS)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(100):
        changed = bytearray(content)
        changed[random.integers(len(content))] = random.integers(256)
        path.write_bytes(changed[: random.integers(len(content))] if random.random() < 0.1 else changed)
        with contextlib.suppress(DataError):
            prepared(tmp_path, path.name)


def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "rows.csv", COLUMNS)
    write_npz(tmp_path / "rows.npz", COLUMNS)
    monkeypatch.setitem(__import__("sys").modules, "chainrule_server.data.formats.csv_file", None)
    assert "pip install 'chainrule[data]'" in str(refused(tmp_path, "rows.csv"))
    prepared(tmp_path, "rows.npz")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts the process's open files in /proc")
def test_every_file_is_closed_after_rows_were_read_and_after_they_were_refused(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for form, write in WRITERS.items():
        write(tmp_path / f"rows.{form}", COLUMNS)
    for number in range(3):
        write_csv(tmp_path / "parts" / f"{number}.csv", COLUMNS)
    write_csv(tmp_path / "parts" / "9.csv", {"other": [1]})
    with (tmp_path / "rows.csv").open():
        assert open_below(tmp_path) == [tmp_path / "rows.csv"]
    for form in WRITERS:
        prepared(tmp_path, f"rows.{form}")
        refused(tmp_path, f"rows.{form}", target="nowhere")
        refused(tmp_path, f"rows.{form}", features=["nowhere"])
    refused(tmp_path, "parts")
    assert open_below(tmp_path) == []


def open_below(folder: Path) -> list[Path]:
    """The files of a folder that this process has open; what other tests leave open may be closed at any time."""
    links = [Path(os.path.realpath(link)) for link in Path("/proc/self/fd").iterdir()]
    return [path for path in links if path.is_relative_to(folder)]


def test_more_files_than_can_be_open_are_refused_before_one_is_read(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}.csv").touch()
    assert f"means {MAX_FILES + 1} files, but {MAX_FILES} are the most" in str(refused(tmp_path, "*.csv"))
