"""Workers that are stopped, hang, fail, leave or are killed: the shards move, it is said why, and the bits stay."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info

from chainrule.client.blocking.client import Client
from chainrule.v1 import job_pb2
from tests.cluster.jobs import Reference, disturbed, last, small
from tests.cluster.support import Processes, wait_for

pytestmark = pytest.mark.cluster
LEASE_S = 2.5
HANGING = Path(__file__).with_name("hanging_worker.py")


def is_openblas() -> bool:
    return any(library.get("internal_api") == "openblas" for library in threadpool_info())


def events(client: Client, job_id: str) -> list[job_pb2.JobEvent]:
    """All of a job that has ended."""
    return [event for update in client.watch_updates(job_id, after_event=0) for event in update.events]


def losses(client: Client, job_id: str) -> dict[str, list[job_pb2.WorkerLost]]:
    """The events of lost workers, by their names; the job has ended."""
    found: dict[str, list[job_pb2.WorkerLost]] = {}
    for event in events(client, job_id):
        if event.HasField("worker_lost"):
            found.setdefault(event.worker_lost.worker, []).append(event.worker_lost)
    return found


def endless() -> job_pb2.JobSpec:
    """A job that is long enough for whatever a test does meanwhile."""
    spec = disturbed(small)
    spec.training.epochs = 300
    return spec


def steps_after(client: Client, job_id: str, step: int) -> bool:
    return client.get_job(job_id).progress.step > step


@pytest.mark.parametrize("transport", ["grpc", "auto"])
def test_a_stopped_worker_loses_its_shards_after_the_lease_and_joins_again(
    transport: str, processes: Processes, reference: Reference
) -> None:
    address = processes.server("--lease-s", str(LEASE_S))
    stopped = processes.worker("stopped", address, "--transport", transport)
    processes.worker("stays", address, "--transport", transport)
    spec = endless()
    # By default another computes its part until then.
    is_waited_for = transport == "grpc"
    if is_waited_for:
        spec.training.stragglers.factor = 0
    with Client(address) as client:
        wait_for(lambda: processes.joined("stopped", 1) and processes.joined("stays", 1))
        job_id = client.create_job(spec).job_id
        wait_for(lambda: steps_after(client, job_id, 10))
        stopped.send_signal(signal.SIGSTOP)
        if is_waited_for:
            wait_for(lambda: client.get_job(job_id).waiting.HasField("next_time"))
            waiting = client.get_job(job_id).waiting_for
            assert re.search(r"stopped is silent for \d\.\d s; in \d\.\d s its shards go to stays$", waiting), waiting
        wait_for(lambda: [worker.name for worker in client.list_workers()] == ["stays"])
        step = client.get_job(job_id).progress.step
        wait_for(lambda: steps_after(client, job_id, step))
        stopped.send_signal(signal.SIGCONT)
        wait_for(lambda: "stopped" in [worker.name for worker in client.list_workers()])
        job = last(client, job_id)
        assert job.result.parameters_sha256 == reference(spec)
        # Where the machine is so busy that it falls silent again, more follow.
        loss, *_ = losses(client, job_id)["stopped"]
        helped = [event for event in events(client, job_id) if event.HasField("late_worker_helped")]
    assert not (is_waited_for and helped)
    assert loss.reason == job_pb2.LOSS_REASON_LEASE_EXPIRED
    assert "silent for" in loss.details
    # It is told why, and where the job is.
    assert f"its lease of {LEASE_S:g} s is over; job {job_id} is at step" in processes.log("stopped")


def test_a_worker_that_hangs_in_python_loses_its_shards_although_its_threads_live(
    processes: Processes, reference: Reference, tmp_path: Path
) -> None:
    address = processes.server("--lease-s", str(LEASE_S))
    file = tmp_path / "hang"
    options = ("--server", address, "--name", "hangs")
    processes.start_program("hangs", sys.executable, "-P", str(HANGING), str(file), *options)
    processes.worker("stays", address)
    spec = endless()
    # Nobody else computes its part, and the job can't be over before it is lost.
    spec.training.stragglers.factor = 0
    with Client(address) as client:
        wait_for(lambda: processes.joined("hangs", 1) and processes.joined("stays", 1))
        job_id = client.create_job(spec).job_id
        wait_for(lambda: steps_after(client, job_id, 10))
        file.touch()
        wait_for(lambda: "hangs" not in [worker.name for worker in client.list_workers()])
        file.unlink()
        wait_for(lambda: processes.joined("hangs", 2))
        job = last(client, job_id)
        assert job.result.parameters_sha256 == reference(spec)
        loss, *_ = losses(client, job_id)["hangs"]
    assert loss.reason == job_pb2.LOSS_REASON_LEASE_EXPIRED
    assert "alive, but its work has stood still" in loss.details


@pytest.mark.parametrize("transport", ["grpc", "auto"])
def test_a_killed_worker_and_one_that_is_asked_to_leave_are_told_apart(
    transport: str, processes: Processes, reference: Reference
) -> None:
    address = processes.server("--lease-s", "600")
    for name in ("killed", "leaves", "stays"):
        processes.worker(name, address, "--transport", transport)
    spec = endless()
    with Client(address) as client:
        wait_for(lambda: all(processes.joined(name, 1) for name in ("killed", "leaves", "stays")))
        job_id = client.create_job(spec).job_id
        wait_for(lambda: steps_after(client, job_id, 10))
        processes.started["killed"].kill()
        # At once, and not after the lease.
        wait_for(lambda: len(client.list_workers()) == 2)
        client.report_worker_end("killed", "killed by SIGKILL")
        processes.started["leaves"].terminate()
        assert processes.started["leaves"].wait(60) == 0
        job = last(client, job_id)
        assert job.result.parameters_sha256 == reference(spec)
        found = losses(client, job_id)
    assert [loss.reason for loss in found["killed"]] == [
        job_pb2.LOSS_REASON_CONNECTION_LOST,
        job_pb2.LOSS_REASON_PROCESS_ENDED,
    ]
    assert found["killed"][1].details == "killed by SIGKILL"
    assert [(loss.reason, loss.details) for loss in found["leaves"]] == [(job_pb2.LOSS_REASON_STOPPED, "SIGTERM")]


def test_without_any_worker_the_job_waits_and_goes_on_with_the_first_that_comes(
    processes: Processes, reference: Reference
) -> None:
    address = processes.server()
    for name in ("a", "b"):
        processes.worker(name, address)
    spec = endless()
    with Client(address) as client:
        wait_for(lambda: processes.joined("a", 1) and processes.joined("b", 1))
        job_id = client.create_job(spec).job_id
        wait_for(lambda: steps_after(client, job_id, 10))
        for name in ("a", "b"):
            processes.started[name].kill()
        wait_for(lambda: client.get_job(job_id).waiting.reason == job_pb2.WAITING_REASON_WORKERS)
        job = client.get_job(job_id)
        assert job.waiting_for.startswith("workers: none is connected")
        assert job.waiting.next == "the job goes on with the first that joins"
        assert job.waiting.HasField("since")
        processes.worker("c", address)
        assert last(client, job_id).result.parameters_sha256 == reference(spec)


def test_what_a_failing_worker_says_is_an_event_and_its_shards_go_to_others(
    processes: Processes, reference: Reference, tmp_path: Path
) -> None:
    address = processes.server()
    file = tmp_path / "fault"
    options = ("--server", address, "--name", "fails")
    processes.start_program("fails", sys.executable, "-P", str(HANGING), str(file), *options)
    processes.worker("stays", address)
    spec = endless()
    with Client(address) as client:
        wait_for(lambda: processes.joined("fails", 1) and processes.joined("stays", 1))
        job_id = client.create_job(spec).job_id
        wait_for(lambda: steps_after(client, job_id, 10))
        processes.may_log_tracebacks = True
        file.write_text("MemoryError no room for 12 GB")
        wait_for(lambda: "MemoryError" in processes.log("server"))
        file.unlink()
        assert last(client, job_id).result.parameters_sha256 == reference(spec)
        loss = losses(client, job_id)["fails"][0]
    assert loss.reason == job_pb2.LOSS_REASON_FAILED
    assert loss.details.startswith("MemoryError: no room for 12 GB (step ")


def test_a_job_that_every_worker_fails_at_fails_after_three_times_and_says_so(
    processes: Processes, tmp_path: Path
) -> None:
    address = processes.server()
    file = tmp_path / "fault"
    processes.may_log_tracebacks = True
    processes.start_program(
        "fails", sys.executable, "-P", str(HANGING), str(file), "--server", address, "--name", "fails"
    )
    file.write_text("ValueError a bug of ours")
    with Client(address) as client:
        spec = endless()
        spec.training.min_workers = 1
        job_id = client.create_job(spec).job_id
        job = job_pb2.Job()
        for job in client.watch_job(job_id):  # noqa: B007 - the last is wanted
            pass
        assert job.state == job_pb2.JOB_STATE_FAILED
    assert "step 1: 3 times in a row a worker failed: fails: ValueError: a bug of ours;" in job.error.message


def test_list_workers_tells_who_they_are_and_what_they_do(processes: Processes) -> None:
    import numpy as np

    address = processes.server()
    processes.worker("remote", address, "--transport", "grpc")
    processes.worker("local", address)
    with Client(address) as client:
        wait_for(lambda: processes.joined("remote", 1) and processes.joined("local", 1))
        assert {worker.job_id for worker in client.list_workers()} == {""}
        spec = endless()
        # Each keeps its half of the shards, also where one is slower for a while.
        spec.training.stragglers.factor = 0
        job_id = client.create_job(spec).job_id
        wait_for(lambda: steps_after(client, job_id, 50))
        found = {worker.name: worker for worker in client.list_workers()}
        client.cancel_job(job_id)
    assert {name: worker.transport for name, worker in found.items()} == {"remote": "grpc", "local": "shared-memory"}
    for name, worker in found.items():
        assert worker.process_id == processes.started[name].pid
        assert worker.address.startswith("ipv4:127.0.0.1:")
        assert (worker.numpy_version, worker.job_id, worker.shard_count) == (np.__version__, job_id, 4)
        assert worker.rows_per_second > 0
        assert worker.silent_s < worker.lease_s == 10.0
        assert worker.blas
        assert worker.instructions
        assert worker.host
        assert abs(worker.connect_time.seconds - time.time()) < 600


@pytest.mark.skipif(not is_openblas(), reason="numpy's BLAS here is not OpenBLAS, whose kernel can be chosen")
def test_a_worker_with_another_blas_kernel_gets_no_shards_and_changes_no_bit(
    processes: Processes, reference: Reference, tmp_path: Path
) -> None:
    from safetensors import safe_open

    address = processes.server()
    worker = ("-P", "-m", "chainrule_worker", "--server", address)
    processes.worker("first", address)
    spec = endless()
    spec.training.min_workers = 1
    with Client(address) as client:
        wait_for(lambda: processes.joined("first", 1))
        job_id = client.create_job(spec).job_id
        processes.start_program("odd", sys.executable, *worker, "--name", "odd", OPENBLAS_CORETYPE="Nehalem")
        processes.worker("like", address)
        wait_for(lambda: processes.joined("odd", 1) and processes.joined("like", 1))
        wait_for(lambda: client.get_job(job_id).progress.workers == 2)
        job = last(client, job_id)
        assert job.result.parameters_sha256 == reference(spec)
        (differs,) = [
            event.worker_differs
            for update in client.watch_updates(job_id, after_event=0)
            for event in update.events
            if event.HasField("worker_differs")
        ]
        assert (differs.worker, differs.is_refused) == ("odd", True)
        assert "Nehalem" in differs.kind
        assert list(job.worker_kinds) == [differs.job_kind]
        with safe_open(client.download_model(job_id, tmp_path / "model.safetensors"), framework="numpy") as file:
            assert json.loads(file.metadata()["worker_kinds"]) == [differs.job_kind]
        # Where they need not be identical it computes, and the job says so.
        spec.training.require_identical_workers = False
        spec.training.min_workers = 3
        spec.training.epochs = 3
        job = last(client, client.create_job(spec).job_id)
        assert len(job.worker_kinds) == 2
        assert job.reproducibility == "float32: the workers differ, so the bits depend on who computed what"


@pytest.mark.skipif(not is_openblas(), reason="as above")
def test_a_job_whose_like_are_gone_waits_for_them_and_says_so(processes: Processes, reference: Reference) -> None:
    address = processes.server()
    processes.worker("first", address)
    spec = endless()
    spec.training.min_workers = 1
    with Client(address) as client:
        wait_for(lambda: processes.joined("first", 1))
        job_id = client.create_job(spec).job_id
        wait_for(lambda: steps_after(client, job_id, 10))
        options = ("-P", "-m", "chainrule_worker", "--server", address, "--name", "odd")
        processes.start_program("odd", sys.executable, *options, OPENBLAS_CORETYPE="Nehalem")
        wait_for(lambda: processes.joined("odd", 1))
        processes.started["first"].kill()
        wait_for(lambda: "odd may compute other bits" in client.get_job(job_id).waiting_for)
        processes.worker("like", address)
        assert last(client, job_id).result.parameters_sha256 == reference(spec)
