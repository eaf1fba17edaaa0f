"""Rows that a worker reads where the server has them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from chainrule.transport.local_link.segment import SegmentError
from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.sharding import divide
from chainrule_server.data.data_set import DataSet
from chainrule_server.preparation import prepared_rows
from chainrule_server.preparation.prepared_rows import PreparedRows, lay_out
from chainrule_server.preparation.preprocessing import learn
from chainrule_server.preparation.row_file import RowFolder
from chainrule_worker.shared_rows import SharedRows, rows_of


@pytest.fixture(params=["numbers", "classes"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PreparedRows:
    monkeypatch.setattr(prepared_rows, "SHARED_BYTES", 0)
    random = np.random.default_rng(0)
    target, classes = random.normal(size=101), None
    if request.param == "classes":
        target, classes = random.integers(0, 2, 101), ("no", "yes")
    data = DataSet("test:rows", random.normal(size=(101, 3)), target, ("a", "b", "c"), classes)
    division = divide(row_count=101, shard_count=4, validation_fraction=0.3, seed=1)
    learnt = learn(data, job_pb2.DataSpec(), division.training_rows)
    return lay_out(data, learnt, division, folder=RowFolder(tmp_path / "rows"))


def assigned(rows: PreparedRows) -> tuple[pb.Assignment, tuple[int, ...]]:
    sizes = [len(each) for each in rows.division.training]
    classes = 2 if rows.targets.dtype == np.int64 else 0
    assignment = pb.Assignment(feature_count=3, class_count=classes, shard_sizes=sizes)
    return assignment, rows.describe_memory(assignment)


def test_a_worker_reads_the_shards_that_the_server_has_and_can_not_write_them(rows: PreparedRows) -> None:
    assignment, (descriptor,) = assigned(rows)
    shared = SharedRows(assignment, descriptor)
    for shard in range(4):
        for validation in (False, True):
            found, expected = shared.shard(shard, validation), rows.shard(shard, validation=validation)
            assert np.array_equal(found.features, expected.features)
            assert np.array_equal(found.targets, expected.targets)
            assert np.array_equal(found.numbers, expected.numbers)
            assert found.targets.dtype == expected.targets.dtype
            with pytest.raises(ValueError, match="read-only"):
                found.features[0] = 0
    # Nor by a mapping of its own.
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptor, b"x")


def test_rows_that_are_not_as_promised_are_refused(rows: PreparedRows) -> None:
    assignment, (descriptor,) = assigned(rows)
    for change in (
        {"size_bytes": 64},
        {"numbers_offset_bytes": assignment.shared_memory.rows.size_bytes},
        {"targets_offset_bytes": 3},
        {"validation_shard_sizes": [1 << 40]},
    ):
        wrong = pb.Assignment()
        wrong.CopyFrom(assignment)
        wrong.shared_memory.rows.MergeFrom(pb.SharedRows(**change))  # type: ignore[arg-type]
        with pytest.raises(SegmentError):
            SharedRows(wrong, descriptor)
    with pytest.raises(SegmentError, match="1 segments came"):
        rows_of(assignment, (descriptor,))
    assert rows_of(pb.Assignment(), ()) is None
