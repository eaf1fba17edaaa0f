"""`chainrule wait`, `logs` and `metrics`, of a server that answers with what a test puts into it."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from chainrule.cli.app import run
from chainrule.client.job_text import event_line
from chainrule.client.metric_table import csv_text
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api

QUEUED, RUNNING = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING
SUCCEEDED, FAILED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED
CANCELLED = job_pb2.JOB_STATE_CANCELLED


@pytest.fixture
def at(fake_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The small server, which is the one that commands talk to."""
    monkeypatch.setenv("CHAINRULE_SERVER", fake_server.address)
    fake_server.job.spec.name = "net"
    return fake_server


def events(*texts: str) -> list[job_pb2.JobEvent]:
    """Events of unreadable checkpoints, for each of these reasons."""
    found = []
    for number, text in enumerate(texts, 1):
        found.append(job_pb2.JobEvent(number=number))
        found[-1].time.FromSeconds(1_700_000_000)
        found[-1].checkpoint_damaged.file, found[-1].checkpoint_damaged.reason = f"{number}.damaged", text
    return found


@pytest.mark.parametrize(("state", "code"), [(SUCCEEDED, 0), (FAILED, 1), (CANCELLED, 3)])
def test_the_exit_code_of_wait_says_how_the_job_ended(
    at: Any, state: job_pb2.JobState, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    at.states = [QUEUED, RUNNING, state]
    assert run(["wait", "abcd", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["state"] == job_pb2.JobState.Name(state).removeprefix("JOB_STATE_")


def test_wait_gives_up_after_its_time_and_says_where_the_job_is(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    at.states = [RUNNING]
    at.job.progress.step, at.job.progress.total_steps = 7, 90
    assert run(["wait", "abcd", "--timeout-s", "0.3"]) == 124
    expected = "error: job abcdef012345 has not ended within 0.3 s: it is running, at step 7 of 90\n"
    assert capsys.readouterr().err.endswith(expected)


def test_logs_print_a_line_for_each_event_that_there_is(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_pb2.Job(job_id="abcdef012345", state=RUNNING)
    at.updates = [[api.WatchJobResponse(job=job, events=events("a", "b\nforged"), last_event=2)], []]
    assert run(["logs", "abcd"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2023-11-14 22:13:20     1  warning: a checkpoint was damaged and is set aside as 1.damaged: a",
        "2023-11-14 22:13:20     2  warning: a checkpoint was damaged and is set aside as 2.damaged: b forged",
    ]
    assert [request.after_event for request in at.watched] == [0]


def test_logs_follow_to_the_end_through_a_lost_connection_and_miss_nothing(
    at: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = events("a", "b")
    job, ended = job_pb2.Job(job_id="abcdef012345"), job_pb2.Job(job_id="abcdef012345", state=SUCCEEDED)
    at.updates = [
        [api.WatchJobResponse(job=job, events=[first], last_event=1)],
        [api.WatchJobResponse(job=ended, events=[second], last_event=2)],
    ]
    assert run(["logs", "abcd", "-f", "--json"]) == 0
    told = capsys.readouterr()
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert [(line["job"], line["number"], line["checkpoint_damaged"]["reason"]) for line in lines] == [
        ("abcdef012345", 1, "a"),
        ("abcdef012345", 2, "b"),
    ]
    assert "trying again" in told.err


def test_every_kind_of_event_has_a_line() -> None:
    kinds = [field.name for field in job_pb2.JobEvent.DESCRIPTOR.oneofs_by_name["event"].fields]
    assert "state_changed" in kinds
    for kind in kinds:
        event = job_pb2.JobEvent(number=3)
        getattr(event, kind).SetInParent()
        time, _, text = event_line(event).partition("     3  ")
        assert (time, len(text) > 3) == ("1970-01-01 00:00:00", True), kind
    assert event_line(job_pb2.JobEvent(number=9)).endswith("an event that this version doesn't know")


def metric_rows() -> list[api.MetricRow]:
    rows = [api.MetricRow(step=1, loss=0.1 + 0.2), api.MetricRow(step=2, loss=1e-300, epoch=1, validation_loss=0.5)]
    rows[1].metrics.add(name="validation_r2", value=-1 / 3)
    rows[1].time.FromMilliseconds(1_700_000_000_250)
    return rows


def test_a_csv_has_every_digit_and_an_empty_cell_where_nothing_was_measured() -> None:
    text = csv_text(metric_rows())
    assert text.splitlines() == [
        "step,epoch,time,loss,validation_loss,validation_r2",
        "1,,,0.30000000000000004,,",
        "2,1,2023-11-14T22:13:20.250Z,1e-300,0.5,-0.3333333333333333",
    ]
    (_, second) = csv.DictReader(text.splitlines())
    assert float(second["validation_r2"]) == -1 / 3


def test_metrics_are_printed_as_csv_or_as_json(at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    at.metrics = metric_rows()
    assert run(["metrics", "abcd"]) == 0
    assert capsys.readouterr().out == csv_text(at.metrics)
    assert run(["metrics", "abcd", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["job"], told["row_count"]) == ("abcdef012345", 2)
    assert told["rows"][1] == {
        "step": 2,
        "epoch": 1,
        "time": "2023-11-14T22:13:20.250Z",
        "loss": 1e-300,
        "validation_loss": 0.5,
        "validation_r2": -1 / 3,
    }


def test_metrics_go_to_a_csv_file_and_to_tensorboard(
    at: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboardX")
    at.metrics = metric_rows()
    at.job.start_time.FromSeconds(1_600_000_000)
    file, runs = tmp_path / "metrics.csv", tmp_path / "runs"
    for _ in range(2):  # the second time replaces the first
        assert run(["metrics", "abcd", "-o", str(file), "--tensorboard", str(runs)]) == 0
    run_folder = runs / "net-abcdef012345"
    (events_file,) = run_folder.iterdir()
    assert capsys.readouterr().out.splitlines()[-2:] == [str(file), str(events_file)]
    assert file.read_text() == csv_text(at.metrics)
    found = [
        (event.step, event.wall_time, value.tag, value.simple_value)
        for event in read_events(events_file)
        for value in event.summary.value
    ]
    assert found == [
        (1, 1_600_000_000.0, "loss", pytest.approx(0.3)),
        (2, 1_700_000_000.25, "loss", 0.0),  # float32
        (2, 1_700_000_000.25, "validation_loss", 0.5),
        (2, 1_700_000_000.25, "validation_r2", pytest.approx(-1 / 3)),
    ]


def read_events(path: Path) -> list[Any]:
    """The records of an event file: length (8 bytes), its CRC (4), the record, its CRC (4)."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    content, found = path.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        assert int.from_bytes(content[8:12], "little") == masked_crc32c(content[:8])
        record = content[12 : 12 + length]
        assert int.from_bytes(content[12 + length : 16 + length], "little") == masked_crc32c(record)
        found.append(Event.FromString(record))
        content = content[16 + length :]
    return found


def test_a_file_that_cannot_be_written_is_named(at: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at.metrics = metric_rows()
    assert run(["metrics", "abcd", "-o", str(tmp_path / "missing" / "m.csv")]) == 2
    assert "m.csv can't be written: No such file or directory; choose another" in capsys.readouterr().err


def test_a_missing_tensorboardx_is_said(
    at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert run(["metrics", "abcd", "--tensorboard", str(tmp_path)]) == 1
    assert "pip install 'chainrule[tensorboard]'" in capsys.readouterr().err
