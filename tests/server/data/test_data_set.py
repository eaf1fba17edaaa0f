"""Data sets: what is loaded, and how bad data is refused."""

from __future__ import annotations

import contextlib
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chainrule.v1 import job_pb2
from chainrule_server.data import data_root, data_set, size_checks, sklearn_data
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.data_set import DataError, DataSet, load
from chainrule_server.errors import InvalidSpec
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.preprocessing import Preprocessing, learn


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.ones((20, 2))
    features[7, 1] = np.nan
    data = DataSet("test:broken", features, np.arange(20.0), ("height", "weight"))
    monkeypatch.setitem(data_set.LOADERS, "test:broken", lambda: data)


def rows_of(uri: str, *, data_root: Path | None = None) -> DataSet:
    """A data set that is in memory."""
    data = load(uri, data_root=data_root)
    assert isinstance(data, DataSet)
    return data


def learnt(uri: str, *, data_root: Path | None = None) -> Preprocessing:
    """What is learnt from all rows."""
    with load(uri, data_root=data_root) as data:
        return learn(data, job_pb2.DataSpec(), np.arange(len(data.target)))


@pytest.mark.parametrize(
    ("name", "rows", "features", "classes"),
    [("diabetes", 442, 10, None), ("breast_cancer", 569, 30, 2), ("iris", 150, 4, 3), ("digits", 1797, 64, 10)],
)
def test_a_data_set_of_scikit_learn_has_its_rows_and_classes(
    name: str, rows: int, features: int, classes: int | None
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn ships the data")
    data = rows_of(f"sklearn:{name}")
    assert data.features.shape == (rows, features)
    assert len(data.feature_names) == features
    assert (None if data.classes is None else len(data.classes)) == classes
    assert data.classes is None or list(data.classes) == sorted(data.classes)


@pytest.mark.parametrize("name", sklearn_data.FEATURE_NAMES)
def test_the_files_of_scikit_learn_hold_what_its_functions_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn ships the data")
    # Where a file isn't there, its function is called.
    monkeypatch.setattr(sklearn_data, "load_by_import", lambda name: pytest.fail(f"{name} has no file"))
    read = sklearn_data.read(name)
    monkeypatch.undo()
    monkeypatch.setattr(sklearn_data, "read_files", Mock(side_effect=FileNotFoundError))
    expected = sklearn_data.read(name)
    assert read.features.tobytes() == expected.features.tobytes()
    assert np.array_equal(read.target, expected.target)
    assert (read.feature_names, read.target_names) == (expected.feature_names, expected.target_names)
    assert read.features.shape == (len(read.target), len(read.feature_names))


def test_nan_in_the_data_is_refused_with_column_and_first_row(broken: None) -> None:
    with pytest.raises(DataError, match=r"weight has no value \(or nan\) in row 7 \(counted from 0\); .*data\.missing"):
        learnt("test:broken")


def test_nan_in_the_data_refuses_the_job_at_its_uri(broken: None) -> None:
    spec = job_pb2.JobSpec(name="broken")
    spec.model.loss = "(w @ x - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.data.uri = "test:broken"
    spec.training.epochs = 1
    spec.training.batch_size = 8
    with pytest.raises(InvalidSpec) as caught:
        prepare(spec)
    assert [path for path, _ in caught.value.violations] == ["data.uri"]


@pytest.mark.parametrize("uri", ["sklearn:diabetis", "diabetes", "scikit-learn:diabetes"])
def test_a_mistyped_data_set_gets_a_suggestion(uri: str) -> None:
    with pytest.raises(DataError, match="did you mean 'sklearn:diabetes'"):
        load(uri)


@pytest.mark.parametrize("uri", ["sklearn:boston", "sklearn:", "csv:rows.csv", ""])
def test_an_unknown_data_set_is_answered_with_those_there_are(uri: str) -> None:
    with pytest.raises(DataError, match=r"there are sklearn:breast_cancer, sklearn:diabetes, .*sklearn:wine"):
        load(uri)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"pip install 'chainrule\[sklearn\]'"):
        load("sklearn:diabetes")


def test_diabetes_comes_in_its_own_units() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn ships the data")
    age = rows_of("sklearn:diabetes").features[:, 0]
    assert (age.min(), age.max()) == (19, 79)


FEATURES = np.arange(12, dtype=np.float32).reshape(6, 2)
TARGET = np.arange(6.0)


def written(folder: Path, name: str = "rows.npz", **arrays: Any) -> Path:
    path = folder / name
    np.savez(path, **{"features": FEATURES, "target": TARGET} | arrays)
    return path


def test_a_file_gives_its_rows_and_float32_stays_float32(tmp_path: Path) -> None:
    written(tmp_path, feature_names=["height", "weight"])
    data = rows_of("file:rows.npz", data_root=tmp_path)
    assert data.features.dtype == np.float32
    assert np.array_equal(data.features, FEATURES)
    assert np.array_equal(data.target, TARGET)
    assert (data.feature_names, data.classes) == (("height", "weight"), None)


def test_a_file_in_a_folder_of_the_data_root_is_read(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    written(tmp_path / "below")
    assert load("file:below/rows.npz", data_root=tmp_path).feature_names == ("x[0]", "x[1]")


def test_classes_of_a_file_are_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    written(tmp_path, target=np.array([0, 1, 2, 2, 1, 0]), classes=["rose", "lily", "tulip"])
    data = rows_of("file:rows.npz", data_root=tmp_path)
    assert data.classes == ("lily", "rose", "tulip")
    assert [data.classes[number] for number in data.target] == ["rose", "lily", "tulip", "tulip", "lily", "rose"]


def test_a_server_without_a_data_root_reads_no_file(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(DataError, match="--data-root DIR"):
        load("file:rows.npz")


@pytest.mark.parametrize("name", ["../secret.npz", "below/../../secret.npz", "link.npz", "folder/secret.npz", "{}"])
def test_nothing_outside_the_data_root_is_read(tmp_path: Path, name: str) -> None:
    secret = written(tmp_path, "secret.npz")
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (root / "link.npz").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(DataError, match="leads out of the data folder"):
        load(f"file:{name.format(secret)}", data_root=root)


def test_a_link_inside_the_data_root_is_followed(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "link.npz").symlink_to("rows.npz")
    assert len(load("file:link.npz", data_root=tmp_path).target) == 6


def test_a_link_that_is_put_there_while_the_name_is_looked_at_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "below", outside):
        folder.mkdir(parents=True)
        np.savez(folder / "rows.npz", features=FEATURES, target=np.arange(6.0))
    resolved = data_root._resolved

    def and_then_a_link(data_root: Path | None, name: str) -> Path:
        path = resolved(data_root, name)
        if name.endswith(".npz") and not (root / "below").is_symlink():
            (root / "below").rename(tmp_path / "aside")
            (root / "below").symlink_to(outside)
        return path

    with monkeypatch.context() as patch:
        patch.setattr(data_root, "_resolved", and_then_a_link)
        with pytest.raises(DataFileError, match="leads out of the data folder"):
            data_root.open_below(root, "below/rows.npz")


def test_the_data_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    written(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert len(load("file:rows.npz", data_root=tmp_path / "link").target) == 6


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("file:row.npz", "no such file in the data folder; it holds folder, .*rows.npz"),
        ("file:rows.txt", r"must end in \.csv, \.tsv, \.tab, \.parquet"),
        ("file:", "names no file; write 'file:NAME.csv'"),
        ("file:folder", "means no file"),
        ("file:row*.txt", "means no file"),
        ("file:loop.npz", "no such file|leads out|symbolic"),
        ("file:pipe.npz", "is not a file"),
        ("file:a\0.npz", "no such file"),
    ],
)
def test_a_name_that_is_no_file_is_refused(tmp_path: Path, uri: str, said: str) -> None:
    written(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(DataError, match=said):
        load(uri, data_root=tmp_path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"features": np.ones(6)}, r"'features' has shape \(6,\); give it a row for each example"),
        ({"target": np.ones((6, 1))}, r"'target' has shape \(6, 1\)"),
        ({"target": np.ones(5)}, "'features' has 6 rows, but 'target' 5"),
        ({"features": np.ones((0, 2)), "target": np.ones(0)}, "nothing to learn from"),
        ({"features": np.ones((6, 0))}, "nothing to learn from"),
        ({"features": np.full((6, 2), "a")}, "'features' is an array of <U1"),
        ({"features": np.ones((6, 2), complex)}, "'features' is an array of complex128"),
        ({"features": np.full((6, 2), None)}, "'features' holds Python objects, which are never read"),
        ({"features": np.array([[1, 2]] * 5 + [[1, np.nan]])}, r"x\[1\] has no value \(or nan\) in row 5"),
        ({"features": np.array([[1, 2]] * 5 + [[1, np.inf]])}, r"x\[1\] is inf in row 5"),
        ({"target": np.array([0, 1, np.nan, 3, 4, 5])}, r"the target has no value \(or nan\) in row 2"),
        ({"feature_names": ["a", "a"]}, "two columns are named 'a'"),
        ({"target": np.array([0, 1, np.inf, 3, 4, 5])}, "the target is inf in row 2"),
        ({"feature_names": ["a"]}, "1 feature_names for 2 features"),
        ({"feature_names": np.ones(2)}, "'feature_names' is an array of float64"),
        ({"classes": ["a", "b"]}, "'target' is float64, but with 'classes' it is their numbers"),
        ({"target": np.array([0, 1, 2, 1, 0, 1]), "classes": ["a", "b"]}, "'target' is 2 in row 2"),
        ({"target": np.array([0, 1, -1, 1, 0, 1]), "classes": ["a", "b"]}, "'target' is -1 in row 2"),
        ({"target": np.zeros(6, int), "classes": ["b", "a", "b"]}, "'classes' names 'b' twice"),
    ],
)
def test_arrays_that_are_no_rows_are_refused_with_what_they_are(
    tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    written(tmp_path, **arrays)
    with pytest.raises(DataError, match=said) as caught:
        learnt("file:rows.npz", data_root=tmp_path)
    assert caught.value.field == "data.uri"


@pytest.mark.parametrize("left_out", ["features", "target"])
def test_a_missing_array_is_named(tmp_path: Path, left_out: str) -> None:
    arrays = {"features": FEATURES, "target": TARGET}
    del arrays[left_out]
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(DataError, match=f"holds no array '{left_out}'"):
        load("file:rows.npz", data_root=tmp_path)


@pytest.mark.parametrize("position", [0, 60, 130, 300, -200, -30])
def test_a_broken_file_is_refused(tmp_path: Path, position: int) -> None:
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:position] if position else b"")
    with pytest.raises(DataError, match=r"is not an \.npz file|is broken|can't be read"):
        load("file:rows.npz", data_root=tmp_path)


def test_changed_bytes_of_a_file_are_never_a_crash(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(content)
        changed[random.integers(len(content))] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        with contextlib.suppress(DataError):
            load("file:rows.npz", data_root=tmp_path)


def test_a_job_over_a_file_is_prepared_without_a_copy_in_float64(tmp_path: Path) -> None:
    written(tmp_path)
    spec = job_pb2.JobSpec(name="rows")
    spec.model.loss = "(w @ x - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.data.uri = "file:rows.npz"
    spec.data.validation_fraction = 0
    spec.data.standardize.SetInParent()
    spec.training.epochs = 1
    spec.training.batch_size = 2
    spec.training.shards = 2
    assert np.array_equal(prepare(spec, data_root=tmp_path).rows.in_data_order()[0], FEATURES)
    with pytest.raises(InvalidSpec) as caught:
        prepare(spec)
    assert [path for path, _ in caught.value.violations] == ["data.uri"]


def test_a_file_that_unpacks_to_more_than_the_memory_is_refused_before_any_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "rows.npz", features=np.zeros((1000, 100)), target=np.zeros(1000))
    np.savez_compressed(tmp_path / "columns.npz", a=np.zeros(100_000), target=np.zeros(100_000))
    monkeypatch.setattr(size_checks, "available_memory_bytes", lambda: 500_000)
    for uri in ("file:rows.npz", "file:columns.npz"):
        spec = job_pb2.DataSpec(uri=uri, target="target" if "columns" in uri else "")
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=r"unpacks to [0-9]+ bytes, but the server has 500000"):
                load(spec, data_root=tmp_path)
            assert tracemalloc.get_traced_memory()[1] < 500_000
        finally:
            tracemalloc.stop()
    monkeypatch.setattr(size_checks, "available_memory_bytes", lambda: None)
    assert load("file:rows.npz", data_root=tmp_path).feature_names[99] == "x[99]"


def test_more_rows_than_the_memory_takes_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A million equal values are a few bytes in the file.
    pq.write_table(pa.table({"a": np.zeros(1_000_000), "target": np.zeros(1_000_000)}), tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size < 20_000
    monkeypatch.setattr(size_checks, "available_memory_bytes", lambda: 1_000_000)
    with pytest.raises(DataError, match=r"has 1000000 rows, .* too many for the 1000000 bytes"):
        load(job_pb2.DataSpec(uri="file:rows.parquet", target="target"), data_root=tmp_path)
