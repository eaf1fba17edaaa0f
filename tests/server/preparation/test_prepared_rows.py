"""Rows in the order of their shards."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from chainrule.v1 import job_pb2
from chainrule_engine.sharding import divide
from chainrule_server.data import columns
from chainrule_server.data.columns import BLOCK_ROWS
from chainrule_server.data.data_set import DataError, DataSet, load
from chainrule_server.errors import StorageFull
from chainrule_server.preparation import row_file
from chainrule_server.preparation.prepared_rows import PreparedRows, lay_out
from chainrule_server.preparation.preprocessing import Preprocessing, learn
from chainrule_server.preparation.row_file import RowFolder
from tests.server.whole import prepared

STANDARDIZED = job_pb2.Standardization(features=True, target=True)
DIVISION = {"shard_count": 4, "validation_fraction": 0.3, "seed": 1}


def data_set(row_count: int = 101) -> DataSet:
    random = np.random.default_rng(0)
    return DataSet("test:rows", random.normal(5, 3, (row_count, 3)), random.normal(size=row_count), ("a", "b", "c"))


def laid_out(data: DataSet, folder: RowFolder | None = None) -> tuple[PreparedRows, Preprocessing]:
    division = divide(row_count=len(data.target), **DIVISION)  # type: ignore[arg-type]
    learnt = learn(data, job_pb2.DataSpec(standardize=STANDARDIZED), division.training_rows)
    return lay_out(data, learnt, division, folder=folder), learnt


@pytest.fixture
def folder(tmp_path: Path) -> RowFolder:
    return RowFolder(tmp_path / "rows")


@pytest.mark.parametrize("is_in_file", [False, True])
def test_a_shard_is_a_stretch_of_the_rows_and_no_copy(is_in_file: bool, folder: RowFolder) -> None:
    data = data_set()
    division = divide(row_count=len(data.target), **DIVISION)  # type: ignore[arg-type]
    rows, learnt = laid_out(data, folder if is_in_file else None)
    assert (rows.file is not None) == is_in_file
    features, targets = prepared(learnt, data)
    for shards, is_validation in ((division.training, False), (division.validation, True)):
        for number, expected in enumerate(shards):
            shard = rows.shard(number, validation=is_validation)
            assert np.array_equal(shard.numbers, expected)
            assert np.array_equal(shard.features, features[expected])
            assert np.array_equal(shard.targets, targets[expected])
            assert all(
                np.shares_memory(part, whole)
                for part, whole in ((shard.features, rows.features), (shard.targets, rows.targets))
            )
    assert np.array_equal(rows.row(7)[0], features[7])
    assert rows.row(7)[1] == targets[7]
    assert all(
        np.array_equal(found, each) for found, each in zip(rows.in_data_order(), (features, targets), strict=True)
    )


def test_the_hash_is_that_of_the_rows_in_their_own_order() -> None:
    data = data_set()
    rows, learnt = laid_out(data)
    digest = hashlib.sha256(learnt.to_json().encode())
    for array in prepared(learnt, data):
        digest.update(f"\0{array.dtype.str}\0{array.shape}\0".encode() + array.tobytes())
    assert rows.sha256 == digest.hexdigest()
    data.features[3, 1] += 1
    assert laid_out(data)[0].sha256 != rows.sha256


def bytes_of(rows: PreparedRows) -> tuple[bytes, bytes, bytes, str]:
    return rows.features.tobytes(), rows.targets.tobytes(), rows.numbers.tobytes(), rows.sha256


@pytest.mark.parametrize("window_bytes", [1, 12, 100, 1 << 20])
def test_the_rows_of_a_file_are_those_in_memory_however_small_the_windows(
    window_bytes: int, folder: RowFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_file, "WINDOW_BYTES", window_bytes)
    monkeypatch.setattr(columns, "BLOCK_ROWS", 7)
    data = data_set()
    assert bytes_of(laid_out(data, folder)[0]) == bytes_of(laid_out(data)[0])


def test_very_many_rows_have_few_spills(folder: RowFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_file, "WINDOW_BYTES", 1)
    monkeypatch.setattr(row_file, "MOST_WINDOWS", 3)
    spills = Mock(wraps=row_file.NewFile.spill)
    monkeypatch.setattr(row_file.NewFile, "spill", lambda file: spills(file))
    data = data_set()
    assert bytes_of(laid_out(data, folder)[0]) == bytes_of(laid_out(data)[0])
    assert spills.call_count == 3


def test_equal_rows_are_one_file_that_goes_with_the_last_that_has_it(tmp_path: Path) -> None:
    folder = RowFolder(tmp_path)
    first, second = laid_out(data_set(), folder)[0], laid_out(data_set(), folder)[0]
    other = laid_out(data_set(row_count=102), folder)[0]
    assert first.file is second.file
    assert len(list(tmp_path.iterdir())) == 2
    del first, other
    wait_until_there_are(1, tmp_path)
    assert second.row_count == len(second.features)
    del second
    wait_until_there_are(0, tmp_path)
    # And what was there when a server was killed goes when the next begins.
    (tmp_path / "left.rows").write_text("")
    RowFolder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def wait_until_there_are(count: int, folder: Path) -> None:
    deadline_s = time.monotonic() + 10
    while len(list(folder.iterdir())) != count:
        assert time.monotonic() < deadline_s
        gc.collect()
        time.sleep(0.01)


def test_a_file_is_mapped_when_its_first_row_is_wanted_and_once_for_all(folder: RowFolder) -> None:
    first, second = laid_out(data_set(), folder)[0], laid_out(data_set(), folder)[0]
    assert first.file is not None
    before = mapped(first.file.path)
    shard, other = first.shard(0, validation=False), second.shard(1, validation=True)
    assert (before, mapped(first.file.path)) == (0, 1)
    assert not shard.features.flags.writeable
    del first, second, shard, other
    gc.collect()


def mapped(path: Path) -> int:
    return sum(line.endswith(f" {path}") for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RowFolder(tmp_path)
    monkeypatch.setattr(row_file.NewFile, "write", full)
    with pytest.raises(StorageFull, match=r"the prepared rows can't be kept in .*: No space left on device; make room"):
        laid_out(data_set(), folder)
    assert list(tmp_path.iterdir()) == []


def full(file: row_file.NewFile, array: object) -> None:
    with row_file._on_disk(file.path.parent):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("form", ["parquet", "arrow", "csv", "npz", "folder"])
def test_many_rows_are_read_in_blocks_and_are_the_same_from_every_form(
    tmp_path: Path, form: str, folder: RowFolder
) -> None:
    row_count = 2 * BLOCK_ROWS + 17
    random = np.random.default_rng(0)
    columns = {
        "b": random.normal(size=row_count).astype(np.float32),
        "kind": np.array(["one", "two", "three"])[random.integers(0, 3, row_count)],
        "a": random.integers(0, 100, row_count).astype(np.float64),
        "y": random.integers(0, 9, row_count).astype(np.float64),
    }
    table = pa.table(columns)
    uri = f"file:rows.{form}"
    if form == "parquet":
        pq.write_table(table, tmp_path / "rows.parquet", row_group_size=BLOCK_ROWS + 5)
    elif form == "arrow":
        pyarrow.feather.write_feather(table, tmp_path / "rows.arrow", chunksize=BLOCK_ROWS + 5)
    elif form == "csv":
        table = table.set_column(0, "b", table["b"].cast(pa.float64()))
        pa.csv.write_csv(table, tmp_path / "rows.csv")
    elif form == "npz":
        np.savez(tmp_path / "rows.npz", **columns)  # type: ignore[arg-type]
    else:
        (tmp_path / "folder").mkdir()
        for number, start in enumerate(range(0, row_count, 50_000)):
            pq.write_table(table.slice(start, 50_000), tmp_path / "folder" / f"{number}.parquet")
        uri = "file:folder"
    spec = job_pb2.DataSpec(uri=uri, target="y", standardize=STANDARDIZED)
    with load(spec, data_root=tmp_path) as data:
        division = divide(row_count=row_count, **DIVISION)  # type: ignore[arg-type]
        learnt = learn(data, spec, division.training_rows)
        features, _ = lay_out(data, learnt, division, folder=folder).in_data_order()
    assert [encoding.width for encoding in learnt.features] == [1, 3, 1]
    kinds = np.array(["one", "three", "two"])
    assert np.array_equal(kinds[features[:, 1:4].argmax(axis=1)], columns["kind"])
    for place, name in ((0, "b"), (4, "a")):
        values = columns[name].astype(np.float64)
        training = values[division.training_rows]
        np.testing.assert_allclose(
            features[:, place], (values - training.mean()) / training.std(), rtol=1e-5, atol=1e-5
        )


def test_a_value_that_leaves_the_range_of_float32_is_told_with_its_row(tmp_path: Path) -> None:
    row_count = BLOCK_ROWS + 100
    column = np.zeros(row_count)
    column[BLOCK_ROWS + 7] = 1e300
    pq.write_table(pa.table({"a": column, "y": np.zeros(row_count)}), tmp_path / "rows.parquet")
    spec = job_pb2.DataSpec(uri="file:rows.parquet", target="y", standardize=job_pb2.Standardization())
    division = divide(row_count=row_count, **DIVISION)  # type: ignore[arg-type]
    with load(spec, data_root=tmp_path) as data:
        learnt = learn(data, spec, division.training_rows)
        with pytest.raises(DataError, match=rf"a is 1e\+300 in row {BLOCK_ROWS + 7} \(counted from 0\)"):
            lay_out(data, learnt, division)
