"""Small files that unpack to much cost what was reserved for them, and no more than a server gives all of them."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.v1 import job_pb2
from chainrule_server.data import columns, data_set
from chainrule_server.data.columns import Categories
from chainrule_server.data.memory_budget import MemoryBudget
from chainrule_server.data.size_checks import table_bytes
from chainrule_server.errors import LimitExceeded, OutOfMemory
from chainrule_server.limits import Limits
from chainrule_server.preparation.prepare import prepare

TIMEOUT_S = 60.0
ROWS, COLUMNS = 5000, 3
MIB = 1 << 20
LARGE = 1 << 40


def budget(most_bytes: int, *, wait_timeout_s: float = TIMEOUT_S, free_bytes: int | None = None) -> MemoryBudget:
    return MemoryBudget(most_bytes, wait_timeout_s=wait_timeout_s, free_bytes=lambda: free_bytes)


# The budget


def test_what_never_fits_is_refused_at_once_with_the_setting() -> None:
    memory = budget(100)
    with pytest.raises(LimitExceeded, match="--max-preparation-bytes"), memory.reserved(101, "file:x"):
        pass
    with pytest.raises(OutOfMemory, match="has 50 B left"), budget(LARGE, free_bytes=50).reserved(51, "file:x"):
        pass


def test_who_waits_too_long_is_told_for_what() -> None:
    memory = budget(100, wait_timeout_s=0.01)
    with memory.reserved(60, "file:a"):
        words = r"waited 0.01 s for 41 B .*60 B are reserved for 1 others"
        with pytest.raises(LimitExceeded, match=words), memory.reserved(41, "file:b"):
            pass
        with memory.reserved(40, "file:c"):
            assert memory.reserved_bytes == 100
    assert memory.reserved_bytes == 0


def test_who_waits_gets_its_turn_in_order_when_others_are_done() -> None:
    memory, began, order = budget(100), threading.Event(), []

    def take(size_bytes: int, name: str) -> None:
        with memory.reserved(size_bytes, name):
            order.append(name)

    with ThreadPoolExecutor(2) as threads:
        with memory.reserved(60, "first"):
            large = threads.submit(take, 90, "large")
            while not memory._waiting:
                began.wait(0.001)
            # It would fit, but comes after one that doesn't: else that one might wait for ever.
            small = threads.submit(take, 10, "small")
            while len(memory._waiting) < 2:
                began.wait(0.001)
            assert order == []
        large.result(TIMEOUT_S)
        small.result(TIMEOUT_S)
    assert order == ["large", "small"]


def test_memory_is_given_back_whatever_happens() -> None:
    memory = budget(100)
    with pytest.raises(KeyError), memory.reserved(60, "file:a"):
        raise KeyError
    assert memory.reserved_bytes == 0


# Files


def zeros() -> dict[str, np.ndarray[Any, Any]]:
    """Columns of one byte a value, which take 8 when they are numbers of ours."""
    return {f"c{number}": np.arange(ROWS, dtype=np.int8) % (2 + number) for number in range(COLUMNS)}


def write_parquet(path: Path) -> str:
    pq.write_table(pa.table(zeros()), path / "t.parquet")
    return "t.parquet"


def write_arrow(path: Path) -> str:
    table = pa.table(zeros())
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(path / "t.arrow"), table.schema, options=options) as writer:
        writer.write_table(table)
    return "t.arrow"


def write_csv(path: Path) -> str:
    rows = zip(*zeros().values(), strict=True)
    lines = [",".join(zeros()), *(",".join(map(str, row)) for row in rows)]
    (path / "t.csv").write_text("\n".join(lines) + "\n")
    return "t.csv"


def write_npz(path: Path) -> str:
    np.savez_compressed(path / "t.npz", **zeros())  # type: ignore[arg-type]
    return "t.npz"


def write_matrix(path: Path) -> str:
    columns = [*zeros().values()]
    np.savez_compressed(path / "m.npz", features=np.stack(columns, axis=1), target=columns[0])
    return "m.npz"


def write_npy(path: Path) -> str:
    np.save(path / "t.npy", np.stack([*zeros().values()], axis=1))
    return "t.npy"


FORMS = [write_parquet, write_arrow, write_csv, write_npz, write_matrix, write_npy]


def data_of(name: str) -> job_pb2.DataSpec:
    target = {"m.npz": "", "t.npy": "x[2]"}.get(name, "c2")
    return job_pb2.DataSpec(uri=f"file:{name}", target=target)


@pytest.mark.parametrize("write", FORMS)
def test_our_own_copies_are_reserved_before_a_file_is_read(write: Callable[[Path], str], tmp_path: Path) -> None:
    data = data_of(write(tmp_path))
    least_bytes = table_bytes(ROWS - ROWS // 10, COLUMNS)  # the rows of a CSV file are estimated
    with pytest.raises(LimitExceeded, match=f"{data.uri} takes about"):
        data_set.load(data, data_root=tmp_path, memory=budget(least_bytes - 1))
    memory = budget(LARGE)
    with data_set.load(data, data_root=tmp_path, memory=memory) as rows:
        assert memory.reserved_bytes >= least_bytes
        assert len(rows.target) == ROWS
    assert memory.reserved_bytes == 0


@pytest.mark.parametrize("write", FORMS)
def test_a_file_that_is_refused_gives_back_what_was_reserved_for_it(
    write: Callable[[Path], str], tmp_path: Path
) -> None:
    data = data_of(write(tmp_path))
    data.features.append("nothing")
    memory = budget(LARGE)
    with pytest.raises(data_set.DataError):
        data_set.load(data, data_root=tmp_path, memory=memory)
    assert memory.reserved_bytes == 0


def test_a_text_that_a_parquet_file_repeats_is_in_memory_once(tmp_path: Path) -> None:
    row_count = 4000
    text = pa.array(["x" * MIB])
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(row_count, np.int32)), text)
    table = pa.table({"text": column, "y": np.arange(row_count) % 3})
    # Without Arrow's own schema a reader takes it for plain texts, 4 GB of them.
    pq.write_table(table, tmp_path / "bomb.parquet", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < MIB
    memory = budget(64 * MIB)
    with data_set.load(
        job_pb2.DataSpec(uri="file:bomb.parquet", target="y"), data_root=tmp_path, memory=memory
    ) as rows:
        found = rows.feature(0)
        assert isinstance(found, Categories)
        assert found.names == ("x" * MIB,)
        assert [block[0].codes.sum() for block in rows.blocks() if isinstance(block[0], Categories)] == [0]
    assert pa.default_memory_pool().max_memory() < 1 << 30


@pytest.mark.parametrize("value", [b"x" * MIB, ["x"], {"a": 1}])
def test_a_column_that_can_t_be_one_is_refused_before_it_is_read(value: object, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [value] * 8, "y": range(8)}), tmp_path / "t.parquet", store_schema=False)
    with (
        data_set.load(job_pb2.DataSpec(uri="file:t.parquet", target="y"), data_root=tmp_path) as rows,
        data_set.data_errors("t"),
        pytest.raises(Exception, match="a column is numbers, texts or true and false"),
    ):
        rows.feature(0)


def test_six_jobs_of_which_each_fits_alone_are_prepared_one_after_the_other(tmp_path: Path) -> None:
    spec = job_pb2.JobSpec(name="six", data=data_of(write_parquet(tmp_path)))
    spec.model.loss = "(w @ x - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.training.epochs, spec.training.batch_size, spec.training.shards = 1, 8, 8
    memory = budget(table_bytes(ROWS, COLUMNS) * 3 // 2)
    most = 0
    reserve = memory._acquire

    def acquire(*arguments: Any) -> None:
        nonlocal most
        reserve(*arguments)
        most = max(most, len(memory._reserved))

    memory._acquire = acquire  # type: ignore[method-assign]
    with ThreadPoolExecutor(6) as threads:
        calls = [threads.submit(prepare, spec, data_root=tmp_path, limits=Limits(), memory=memory) for _ in range(6)]
        assert len({call.result(TIMEOUT_S).rows.sha256 for call in calls}) == 1
    assert most == 1
    assert memory.reserved_bytes == 0


@given(st.integers(1, 200_000), st.integers(0, 300_000))
def test_a_block_of_many_columns_has_few_rows(column_count: int, row_count: int) -> None:
    blocks = columns.block_slices(row_count, column_count)
    assert [row for block in blocks for row in (block.start, block.stop)] == [
        row for start, block in zip([0, *(b.stop for b in blocks)], blocks, strict=False) for row in (start, block.stop)
    ]
    assert (blocks[-1].stop if blocks else 0) == row_count
    for block in blocks:
        rows = block.stop - block.start
        assert rows <= columns.LEAST_BLOCK_ROWS or rows * column_count <= columns.BLOCK_VALUES


def test_a_table_of_many_columns_costs_no_more_than_was_reserved(tmp_path: Path) -> None:
    row_count, column_count = 20_000, 700
    values = np.arange(row_count, dtype=np.int8) % 3
    table = pa.table({f"c{number}": values for number in range(column_count)})
    pq.write_table(table, tmp_path / "wide.parquet")
    assert (tmp_path / "wide.parquet").stat().st_size < 2 * MIB
    data = job_pb2.DataSpec(uri="file:wide.parquet", target="c0")
    memory = budget(LARGE)
    tracemalloc.start()
    try:
        with data_set.load(data, data_root=tmp_path, memory=memory) as rows:
            reserved_bytes = memory.reserved_bytes
            for block in rows.blocks():
                assert len(block) == column_count - 1
                del block
            _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < reserved_bytes
