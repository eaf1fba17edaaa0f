"""How the processes that answer one question do so: what they write, and their exit codes."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from chainrule.v1 import job_pb2
from chainrule_server.data.columns import ColumnError
from chainrule_server.data.data_root import DataFileError
from chainrule_server.errors import InvalidSpec, WrongState
from chainrule_server.offline.answering import NoAnswer, answer


def raising(error: Exception) -> Any:
    def answer_to(spec: job_pb2.JobSpec) -> dict[str, Any]:
        raise error

    return answer_to


@pytest.mark.parametrize(
    ("answer_to", "code", "written"),
    [
        (lambda spec: {"name": spec.name}, 0, {"name": "line"}),
        (raising(InvalidSpec([("a", "b"), ("c", "d")])), 2, {"violations": [["a", "b"], ["c", "d"]]}),
        (raising(ColumnError("no y", field="data.target")), 2, {"violations": [["data.target", "no y"]]}),
        (raising(DataFileError("no file")), 2, {"violations": [["data.uri", "no file"]]}),
        (raising(NoAnswer("too steep")), 1, {"failure": "too steep"}),
        (raising(WrongState("no step")), 1, {"failure": "no step"}),
    ],
)
def test_an_answer_is_one_line_and_its_kind_an_exit_code(
    answer_to: Any, code: int, written: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = job_pb2.JobSpec(name="line").SerializeToString()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(question)))
    assert answer(job_pb2.JobSpec, answer_to) == code
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [written]


def test_a_question_that_is_no_message_is_wrong_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\xff")))
    assert answer(job_pb2.JobSpec, raising(NoAnswer("never asked"))) == 2
    [[path, message]] = json.loads(capsys.readouterr().out)["violations"]
    assert path == ""
    assert message.startswith("standard input is no JobSpec: ")
