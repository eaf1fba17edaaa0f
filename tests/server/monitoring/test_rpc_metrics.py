"""What is counted of calls, and what a caller can't do to the labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from chainrule.v1 import job_service_pb2 as api
from chainrule_server.monitoring.rpc_metrics import RpcMetrics
from tests.server.in_process import TIMEOUT_S, RunningServer, add_data_sets, regression_spec, running_server

JOBS = "chainrule.v1.JobService"
Value = Callable[..., float | None]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def server(tmp_path: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    add_data_sets(monkeypatch)
    with running_server(tmp_path, interceptors=[RpcMetrics(registry)]) as running:
        yield running


@pytest.fixture
def calls(registry: CollectorRegistry) -> Callable[[str, str], float]:
    """How many calls of a method ended with a code; the server counts after it has answered."""

    def count(method: str, code: str) -> float:
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            found = registry.get_sample_value("chainrule_rpcs_total", {"method": method, "code": code})
            if found is not None or time.monotonic() > deadline_s:
                return found or 0.0
            time.sleep(0.01)

    return count


def test_a_call_is_counted_by_its_method_and_its_code(
    server: RunningServer, registry: CollectorRegistry, calls: Callable[[str, str], float]
) -> None:
    server.jobs.ListJobs(api.ListJobsRequest(), timeout=TIMEOUT_S)
    for _ in range(2):
        with pytest.raises(grpc.RpcError):
            server.jobs.GetJob(api.GetJobRequest(job_id="nobody"), timeout=TIMEOUT_S)
    # Refused by the interceptor behind this one.
    broken = server.channel.unary_unary(f"/{JOBS}/CreateJob")
    with pytest.raises(grpc.RpcError):
        broken(b"\xff", timeout=TIMEOUT_S)
    assert calls(f"{JOBS}/ListJobs", "OK") == 1
    assert calls(f"{JOBS}/CreateJob", "INVALID_ARGUMENT") == 1
    assert calls(f"{JOBS}/GetJob", "NOT_FOUND") == 2
    labels = {"method": f"{JOBS}/ListJobs"}
    assert registry.get_sample_value("chainrule_rpc_seconds_count", labels) == 1
    assert registry.get_sample_value("chainrule_rpcs_open", labels) == 0


def test_a_stream_is_open_until_its_reader_leaves(
    server: RunningServer, registry: CollectorRegistry, calls: Callable[[str, str], float]
) -> None:
    request = api.CreateJobRequest(spec=regression_spec())
    job = server.jobs.CreateJob(request, timeout=TIMEOUT_S).job
    labels = {"method": f"{JOBS}/WatchJob"}
    watch = server.jobs.WatchJob(api.WatchJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    next(watch)
    assert registry.get_sample_value("chainrule_rpcs_open", labels) == 1
    watch.cancel()
    assert calls(f"{JOBS}/WatchJob", "CANCELLED") == 1
    assert registry.get_sample_value("chainrule_rpcs_open", labels) == 0
    assert registry.get_sample_value("chainrule_rpc_seconds_count", labels) is None


def test_methods_that_are_not_there_make_no_labels(
    server: RunningServer, registry: CollectorRegistry, calls: Callable[[str, str], float]
) -> None:
    for number in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            server.channel.unary_unary(f"/{JOBS}/MadeUp{number}")(b"", timeout=TIMEOUT_S)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert calls("unknown", "UNIMPLEMENTED") == 3
    methods = {sample.labels.get("method") for family in registry.collect() for sample in family.samples}
    assert not {method for method in methods if method is not None and "MadeUp" in method}
