"""A job that is only checked."""

from __future__ import annotations

from unittest.mock import Mock

import grpc
import pytest

from chainrule.v1 import job_service_pb2 as api
from chainrule_server.preparation import job_memory, prepared_job
from chainrule_server.preparation.estimate import estimate
from tests.server.in_process import RunningServer, prepared, refusal, regression_spec

TIMEOUT_S = 60.0


def test_a_job_that_is_only_checked_is_answered_whole_and_never_started(server: RunningServer) -> None:
    request = api.CreateJobRequest(spec=regression_spec(), validate_only=True)
    answer = server.jobs.CreateJob(request, timeout=TIMEOUT_S)
    assert answer.job.spec == prepared(regression_spec()).spec
    assert (answer.job.job_id, answer.job.state, answer.job.progress.total_steps) == ("", 0, 8)
    counts = answer.estimate
    assert (counts.parameter_count, counts.feature_count, counts.class_count) == (4, 3, 0)
    assert (counts.row_count, counts.validation_row_count, counts.total_steps) == (32, 8, 8)
    assert server.run(server.scheduler.jobs.all) == []


def test_what_is_wrong_is_found_down_to_shapes(server: RunningServer) -> None:
    spec = regression_spec()
    spec.model.prediction = "w @ V @ x + b"
    spec.model.parameters.add(name="V", shape=["4", "4"])
    request = api.CreateJobRequest(spec=spec, validate_only=True)
    code, violations, reason = refusal(lambda: server.jobs.CreateJob(request, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC")
    assert list(violations) == ["model.prediction"]


def test_the_estimate_grows_with_what_is_held(server: RunningServer) -> None:
    small = estimate(prepared(regression_spec()))
    spec = regression_spec()
    spec.model.prediction = "w @ V @ x + b"
    spec.model.parameters[0].shape[0] = "1000"
    spec.model.parameters.add(name="V", shape=["1000", "d"])
    spec.training.optimizer.name = "adam"
    large = estimate(prepared(spec))
    size = large.parameter_count
    assert size == 4001
    # Parameters and two moments twice, and the sum of the one worker.
    assert large.server_bytes - small.server_bytes == 4 * (7 * size - 3 * small.parameter_count)
    assert large.worker_bytes - small.worker_bytes >= 4 * 3 * (size - small.parameter_count)
    spec.training.min_workers = 2
    shared = estimate(prepared(spec))
    assert shared.server_bytes == large.server_bytes + 4 * size
    assert shared.worker_bytes < large.worker_bytes


@pytest.mark.parametrize("validate_only", [False, True])
def test_more_vectors_than_there_is_memory_are_refused_before_any_is_made(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, validate_only: bool
) -> None:
    spec = regression_spec()
    spec.training.optimizer.name = "adam"
    # Parameters and two moments twice, and the sum of the one worker.
    wanted_bytes = 4 * 4 * 7
    monkeypatch.setattr(job_memory, "available_memory_bytes", lambda: wanted_bytes)
    request = api.CreateJobRequest(spec=spec, validate_only=validate_only)
    server.jobs.CreateJob(request, timeout=TIMEOUT_S)
    monkeypatch.setattr(job_memory, "available_memory_bytes", lambda: wanted_bytes - 1)
    draw = Mock()
    monkeypatch.setattr(prepared_job, "initialize", draw)
    with pytest.raises(
        grpc.RpcError, match=r"the 4 parameters, .* take 112 B in the server, which has 111 B"
    ) as caught:
        server.jobs.CreateJob(request, timeout=TIMEOUT_S)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    draw.assert_not_called()
