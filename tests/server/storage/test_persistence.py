"""What JobService promises about what it acknowledged: request ids, events, and a disk without room."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.storage.store import MetricRow, Store, StoreError, StoreFull
from tests.server.in_process import (
    TIMEOUT_S,
    RunningServer,
    add_data_sets,
    prepared,
    refusal,
    regression_spec,
    running_server,
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    add_data_sets(monkeypatch)
    with running_server(tmp_path) as running:
        yield running


def create(server: RunningServer, spec: job_pb2.JobSpec, request_id: str = "") -> job_pb2.Job:
    return server.jobs.CreateJob(api.CreateJobRequest(spec=spec, request_id=request_id), timeout=TIMEOUT_S).job


def count(server: RunningServer) -> int:
    return len(server.jobs.ListJobs(api.ListJobsRequest(), timeout=TIMEOUT_S).jobs)


def test_a_retry_with_the_same_request_id_makes_no_second_job(server: RunningServer) -> None:
    request_id = str(uuid.uuid4())
    first = create(server, regression_spec(), request_id)
    assert create(server, regression_spec(), request_id).job_id == first.job_id
    assert create(server, regression_spec(), str(uuid.uuid4())).job_id != first.job_id
    assert create(server, regression_spec()).job_id != create(server, regression_spec()).job_id
    assert count(server) == 4


def test_retries_at_the_same_time_make_one_job(server: RunningServer) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: create(server, regression_spec(), "one").job_id, range(16)))
    assert (len(set(made)), count(server)) == (1, 1)


def test_a_request_id_is_refused_for_another_spec(server: RunningServer) -> None:
    first = create(server, regression_spec(), "one")
    other = regression_spec()
    other.training.seed = 7
    code, violations, _ = refusal(lambda: create(server, other, "one"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert first.job_id in violations["request_id"]
    assert count(server) == 1


@pytest.mark.parametrize("request_id", ["x" * 129, "line\nbreak", "Grüße"])
def test_a_request_id_is_short_and_printable(server: RunningServer, request_id: str) -> None:
    code, violations, _ = refusal(lambda: create(server, regression_spec(), request_id))
    assert (code, list(violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["request_id"])


def test_a_job_that_the_disk_has_no_room_for_is_refused_and_not_there(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Store, *arguments: Any) -> None:
        raise StoreFull("there is no room for chainrule.db; free some of the disk")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", full)
        code, _, reason = refusal(lambda: create(server, regression_spec(), "one"))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
    assert count(server) == 0
    create(server, regression_spec(), "one")
    assert count(server) == 1


def test_an_end_that_cannot_be_stored_is_not_told_until_it_is(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(server, regression_spec())

    def broken(self: Store, *arguments: Any, **more: Any) -> Any:
        raise StoreError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", broken)
        with pytest.raises(grpc.RpcError) as caught:
            server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=0.5)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        now = server.jobs.GetJob(api.GetJobRequest(job_id=job.job_id), timeout=TIMEOUT_S).job
        assert now.state == job_pb2.JOB_STATE_QUEUED
        assert now.waiting_for.startswith("its end to be stored; it is tried again every 1 s: ")
        assert now.waiting.reason == job_pb2.WAITING_REASON_STORAGE
    ended = server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S).job
    assert ended.state == job_pb2.JOB_STATE_CANCELLED


def test_a_watcher_is_told_the_events_after_the_number_that_it_names(server: RunningServer) -> None:
    job = create(server, regression_spec())
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)

    def told(**after: int) -> tuple[list[int], int]:
        request = api.WatchJobRequest(job_id=job.job_id, **after)
        updates = list(server.jobs.WatchJob(request, timeout=TIMEOUT_S))
        return [event.number for update in updates for event in update.events], updates[-1].last_event

    assert told(after_event=0) == ([1, 2], 2)
    assert told(after_event=1) == ([2], 2)
    assert told(after_event=2) == ([], 2)
    assert told() == ([], 2)


def test_metrics_are_read_as_they_are_stored_in_any_number_and_after_any_step(server: RunningServer) -> None:
    job = create(server, regression_spec())
    stored = [MetricRow(step, step / 8, time_s=1.5) for step in range(1, 2500)]
    stored.append(MetricRow(2500, 0.5, 3, 0.25, {"r2": -0.125, "rmse": 2.0}, 1_700_000_000.25))
    server.run(lambda: server.scheduler.archive.journal.append_metrics(job.job_id, stored))
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (rows := read_metrics(server, job.job_id)):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    assert [(row.step, row.loss) for row in rows] == [(row.step, row.loss) for row in stored]
    assert not rows[0].HasField("epoch")
    last = api.MetricRow(step=2500, loss=0.5, epoch=3, validation_loss=0.25)
    last.metrics.add(name="validation_r2", value=-0.125)
    last.metrics.add(name="validation_rmse", value=2.0)
    last.time.FromMilliseconds(1_700_000_000_250)
    assert rows[-1] == last
    assert [row.step for row in read_metrics(server, job.job_id, after_step=2498)] == [2499, 2500]
    assert read_metrics(server, job.job_id, after_step=2**64 - 1) == []
    assert refusal(lambda: read_metrics(server, "nobody"))[0] == grpc.StatusCode.NOT_FOUND


def read_metrics(server: RunningServer, job_id: str, after_step: int = 0) -> list[api.MetricRow]:
    request = api.ReadMetricsRequest(job_id=job_id, after_step=after_step)
    return [row for response in server.jobs.ReadMetrics(request, timeout=TIMEOUT_S) for row in response.rows]


def test_a_damaged_model_is_not_handed_out(server: RunningServer) -> None:
    job = server.add_finished(prepared(regression_spec()))
    assert job.model_path is not None
    content = bytearray(job.model_path.read_bytes())
    content[-1] ^= 1
    job.model_path.write_bytes(content)
    request = api.DownloadModelRequest(job_id=job.job_id)
    code, _, reason = refusal(lambda: list(server.jobs.DownloadModel(request, timeout=TIMEOUT_S)))
    assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "DAMAGED_FILE")


def test_checkpoints_are_asked_for_every_so_many_steps_or_not_at_all(server: RunningServer) -> None:
    spec = regression_spec()
    spec.training.checkpoint_every_steps = 0
    assert list(refusal(lambda: create(server, spec))[1]) == ["training.checkpoint_every_steps"]
