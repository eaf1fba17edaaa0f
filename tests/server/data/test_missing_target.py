"""Rows whose target is missing: refused, or left out where the job says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chainrule.v1 import job_pb2
from chainrule_server.data import columns
from chainrule_server.data.column_choice import violations
from chainrule_server.data.columns import Categories, Numbers
from chainrule_server.data.data_set import DataError, load

pytest.importorskip("pyarrow")
TEXT = "n,colour,y\n1,red,10\n2,blue,\n3,green,NA\n4,red,40\n5,grey,50\n"


def spec(**more: object) -> job_pb2.DataSpec:
    return job_pb2.DataSpec(uri="file:t.csv", target="y", **more)  # type: ignore[arg-type]


def test_rows_without_a_target_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TEXT)
    with pytest.raises(DataError, match=r"in row 1 .*and in 1 more; .*data.missing_target = \"leave_out\""):
        load(spec(), data_root=tmp_path)


@pytest.mark.parametrize("block_rows", [1, 2, 100])
def test_the_rows_that_are_left_are_those_of_a_file_without_the_others(
    block_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "BLOCK_ROWS", block_rows)
    (tmp_path / "t.csv").write_text(TEXT)
    with load(spec(missing_target="leave_out"), data_root=tmp_path) as rows:
        assert rows.target.tolist() == [10, 40, 50]
        number, colour = rows.feature(0), rows.feature(1)
        assert isinstance(number, Numbers)
        assert number.values.tolist() == [1, 4, 5]
        assert isinstance(colour, Categories)
        # Green was only where no target is.
        assert colour.names == ("grey", "red")
        assert colour.codes.tolist() == [1, 1, 0]
        blocks = [block[0].values for block in rows.blocks()]  # type: ignore[union-attr]
        assert np.concatenate(blocks).tolist() == [1, 4, 5]


def test_a_class_that_is_missing_is_left_out_too(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n,y\n1,cat\n2,\n3,dog\n")
    with load(spec(missing_target="leave_out"), data_root=tmp_path) as rows:
        assert (rows.classes, rows.target.tolist()) == (("cat", "dog"), [0, 1])


def test_a_target_without_any_value_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n,y\n1,\n2,\n")
    with pytest.raises(DataError, match="'y' is the target, but has no value in any row"):
        load(spec(missing_target="leave_out"), data_root=tmp_path)


def test_another_word_is_refused() -> None:
    found = violations(spec(missing_target="drop"))
    assert found == [("data.missing_target", 'must be "refuse" or "leave_out", got \'drop\'')]
