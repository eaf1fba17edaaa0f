"""What is done for each column doesn't grow with their number: tables of many columns are read in linear time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pytest

from chainrule.v1 import job_pb2
from chainrule_server.data import data_set, table_files
from chainrule_server.data.formats import arrow_file

COLUMNS = 3000


class Counted(Sequence[str]):
    """Names that count how often somebody goes through them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self.times = names, 0

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: Any) -> Any:
        return self._names[place]

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        self.times += 1
        return iter(self._names)


def test_names_are_compared_by_going_through_them_once() -> None:
    first, second = (Counted([f"c{number}" for number in range(COLUMNS)]) for _ in range(2))
    table_files._check_same("a", first, "b", second)
    assert max(first.times, second.times) <= 3


@pytest.mark.parametrize("stream", [False, True])
def test_the_schema_of_an_arrow_file_is_not_read_for_every_column(
    stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(COLUMNS * 4.0).reshape(COLUMNS, 4)
    table = pa.table({f"c{number}": column for number, column in enumerate(values)})
    path = str(tmp_path / "wide.arrow")
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table)
    opened = 0
    open_reader = arrow_file._open

    def counting(*arguments: Any) -> Any:
        nonlocal opened
        opened += 1
        return open_reader(*arguments)

    monkeypatch.setattr(arrow_file, "_open", counting)
    spec = job_pb2.DataSpec(uri="file:wide.arrow", target="c2999")
    with data_set.load(spec, data_root=tmp_path) as rows:
        read = [rows.feature(place) for place in range(COLUMNS - 1)]
    assert opened < 10
    assert [each.values.tolist() for each in read] == values[:-1].tolist()


def test_large_columns_of_an_arrow_file_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_file, "TOGETHER_BYTES", 1)
    table = pa.table({name: np.arange(4.0) + place for place, name in enumerate("abcd")})
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    with data_set.load(job_pb2.DataSpec(uri="file:t.arrow", target="d"), data_root=tmp_path) as rows:
        for place in (0, 1, 0, 2):
            assert rows.feature(place).values[0] == place
        assert len(rows.table._read) == 1
