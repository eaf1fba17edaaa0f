"""The file of the benchmark of large data is the same whenever it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from row_file import FEATURES, ROW_GROUP_ROWS, write_file


def test_the_file_has_the_same_rows_again_in_row_groups(tmp_path: Path) -> None:
    row_count = ROW_GROUP_ROWS + 1000
    for name in ("first", "second"):
        write_file(tmp_path / name, row_count)
    first, second = (pq.read_table(tmp_path / name) for name in ("first", "second"))
    assert first.equals(second)
    assert (first.num_rows, first.num_columns) == (row_count, FEATURES + 1)
    assert pq.ParquetFile(tmp_path / "first").num_row_groups == 2
    target = first["target"].to_numpy()
    assert 0.3 < float(np.std(target)) < 1.2
