"""A process that answers in parts: each is had as it comes, and whatever goes wrong is said and leaves no process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chainrule.errors import InvalidJob, OfflineError
from chainrule.local.offline import ask_for_parts
from chainrule.v1 import job_pb2
from chainrule.v1 import model_service_pb2 as api
from tests.cluster.support import processes_with, wait_for

MODULE = "chainrule_server.offline.rows"


def parts(*options: str, timeout_s: float = 60.0) -> list[api.PredictRequest]:
    found = ask_for_parts(MODULE, job_pb2.DataSpec(), options, timeout_s=timeout_s, timeout_message="no rows")
    return [api.PredictRequest.FromString(each) for each in found]


def test_rows_come_in_their_order_in_as_many_parts_as_they_need(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="reads CSV files")
    (tmp_path / "rows.csv").write_text("a\n" + "".join(f"{row}\n" for row in range(7)))
    found = parts(str(tmp_path / "rows.csv"), "--most-rows=3")
    assert [len(each.rows) for each in found] == [3, 3, 1]
    values = [row.values[0].string_value for each in found for row in each.rows]
    assert values == [str(row) for row in range(7)]


def test_a_file_that_is_none_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidJob) as error:
        parts(str(tmp_path / "none.csv"))
    assert error.value.problems == [("none.csv", "can't be read: No such file or directory")]


def test_a_process_that_ends_without_an_answer_says_its_last_words() -> None:
    with pytest.raises(OfflineError, match="the following arguments are required: file"):
        parts()


def test_a_process_that_gives_nothing_is_ended_at_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_TEST_MARKER", str(tmp_path))
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(OfflineError, match="no rows within 2 s"):
        parts(str(pipe), timeout_s=2.0)
    wait_for(lambda: not processes_with(str(tmp_path)))
