"""The promise: what was acknowledged survives kill -9, and what was trained on has the bits of an undisturbed run.

CHAINRULE_KILLS says how often the server is killed (8 times where it isn't set), CHAINRULE_SEED from which seed.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.client import Client
from chainrule.errors import ServerError, ServerUnavailable
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from server.checkpoint_folder import CheckpointFolder
from tests.cluster.support import (
    COMMAND,
    RestartableServer,
    ended,
    history,
    job_spec,
    states_in,
    undisturbed,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("marker")]

QUEUED, RUNNING = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING
SUCCEEDED, FAILED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED
EPOCHS = 250


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RestartableServer]:
    options = ["--checkpoint-every-s", "0.1", "--transport", getattr(request, "param", "auto")]
    with RestartableServer(tmp_path / "home", workers=2, options=options) as running:
        yield running


@pytest.mark.timeout(600)
def test_a_server_killed_at_any_moment_loses_nothing_that_it_acknowledged(server: RestartableServer) -> None:
    seed = int(os.environ.get("CHAINRULE_SEED", random.randrange(1 << 32)))
    print(f"CHAINRULE_SEED={seed}")  # noqa: T201 - shown where the test fails
    randomness = random.Random(seed)
    kills = int(os.environ.get("CHAINRULE_KILLS", "8"))
    lengths = (60 * kills, 10, 30 * kills, 25)
    specs = [job_spec(f"job-{number}", epochs=epochs, seed=number) for number, epochs in enumerate(lengths)]
    expected = [undisturbed(spec.training.epochs, spec.training.seed) for spec in specs]
    acknowledged: dict[str, str] = {}
    updates: list[api.WatchJobResponse] = []
    problems: list[BaseException] = []

    def submit_all() -> None:
        try:
            with Client(server.address) as client:
                for spec in specs:
                    for _ in range(200):
                        try:
                            job = client.create_job(spec, request_id=f"request-{spec.name}")
                        except ServerUnavailable:
                            time.sleep(0.1)
                        else:
                            acknowledged[spec.name] = job.job_id
                            break
                    time.sleep(randomness.random())
                updates.extend(client.watch_updates(acknowledged["job-0"], after_event=0))
        except BaseException as error:  # noqa: BLE001 - raised again by the test itself
            problems.append(error)

    thread = threading.Thread(target=submit_all)
    thread.start()
    for _ in range(kills):
        time.sleep(randomness.uniform(0.02, 2.0))
        before = dict(acknowledged)
        server.end()
        server.start()
        with Client(server.address) as client:
            assert set(before.values()) <= {job.job_id for job in client.list_jobs()}
    thread.join(120)
    assert not problems, (problems, server.log())
    with Client(server.address) as client:
        for spec, result in zip(specs, expected, strict=True):
            job = ended(client, acknowledged[spec.name])
            assert (job.state, job.result.parameters_sha256) == (SUCCEEDED, result.parameters_sha256), server.log()
            assert (job.result.loss, job.result.validation_loss) == (result.loss, result.validation_loss)
            assert (job.result.best_epoch, job.result.metrics) == (result.best_epoch, result.metrics)
            events = history(client, job.job_id)
            assert [event.number for event in events] == list(range(1, len(events) + 1))
            assert states_in(events) == [QUEUED, RUNNING, SUCCEEDED]
            steps = [event.checkpoint_written.step for event in events if event.HasField("checkpoint_written")]
            assert len(steps) == len(set(steps))
        assert [job.spec.name for job in reversed(client.list_jobs())] == [spec.name for spec in specs]
        watched = [event for update in updates for event in update.events]
        assert watched == history(client, acknowledged["job-0"])


@pytest.mark.parametrize("server", ["auto", "grpc"], indirect=True)
def test_a_job_goes_on_from_its_last_checkpoint_and_its_events_say_so(server: RestartableServer) -> None:
    spec = job_spec("resumed", epochs=EPOCHS)
    with Client(server.address) as client:
        job = client.create_job(spec)
        wait_until(client, job.job_id, step=200)
        assert client.read_metrics(job.job_id)
        server.end()
        server.start()
        final = ended(client, job.job_id)
        assert final.result.parameters_sha256 == undisturbed(EPOCHS, 0).parameters_sha256
        resumed = [event.resumed.step for event in history(client, job.job_id) if event.HasField("resumed")]
        assert len(resumed) == 1
        assert resumed[0] >= 100
        rows = client.read_metrics(job.job_id)
        assert [row.epoch for row in rows if row.HasField("epoch")] == list(range(1, EPOCHS + 1))
        assert [row.step for row in rows] == sorted({row.step for row in rows})
        assert (rows[-1].step, rows[-1].validation_loss) == (final.progress.step, final.progress.validation_loss)
        assert {metric.name for metric in rows[-1].metrics} == {"validation_r2", "validation_rmse"}
        times = [row.time.ToNanoseconds() for row in rows]
        assert final.start_time.ToNanoseconds() < times[0] < times[-1] < final.end_time.ToNanoseconds()


def test_a_server_that_is_ended_kindly_loses_no_step_and_no_watcher(server: RestartableServer) -> None:
    spec = job_spec("kindly", epochs=EPOCHS)
    spec.training.checkpoint_every_steps = 1_000_000
    with Client(server.address) as client:
        job = client.create_job(spec)
        wait_until(client, job.job_id, step=100)
        before = client.get_job(job.job_id).progress.step
        command = [*COMMAND, "watch", job.job_id, "--json", "--server", server.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
            assert watch.stdout is not None
            assert json.loads(watch.stdout.readline())["state"] == "RUNNING"
            assert server.end(signal.SIGTERM) == 0
            server.start()
            output, errors = watch.communicate(timeout=120)
        assert watch.returncode == 0, errors
        assert json.loads(output.splitlines()[-1])["state"] == "SUCCEEDED"
        assert "trying again" in errors
        assert "the server was started again; the job goes on after step" in errors
        assert ended(client, job.job_id).result.parameters_sha256 == undisturbed(EPOCHS, 0).parameters_sha256
        assert [e.resumed.step >= before for e in history(client, job.job_id) if e.HasField("resumed")] == [True]


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(server: RestartableServer) -> None:
    spec = job_spec("damaged", epochs=EPOCHS)
    with Client(server.address) as client:
        job = client.create_job(spec)
        wait_until(client, job.job_id, step=300)
        server.end()
        folder = CheckpointFolder(server.home / "checkpoints" / job.job_id)
        steps = folder.steps()
        last = folder.path / f"{steps[-1]:012d}.safetensors"
        content = bytearray(last.read_bytes())
        content[-5] ^= 1
        last.write_bytes(content)
        server.start()
        assert ended(client, job.job_id).result.parameters_sha256 == undisturbed(EPOCHS, 0).parameters_sha256
        events = history(client, job.job_id)
        assert [e.checkpoint_damaged.file for e in events if e.HasField("checkpoint_damaged")] == [
            last.name + ".damaged"
        ]
        assert [e.resumed.step for e in events if e.HasField("resumed")] == [steps[-2]]


def test_the_queue_stays_in_order_and_a_request_makes_one_job_across_a_restart(tmp_path: Path) -> None:
    with RestartableServer(tmp_path / "home") as server, Client(server.address) as client:
        specs = [job_spec(name, epochs=2) for name in ("first", "second", "third")]
        jobs = [client.create_job(spec, request_id=spec.name) for spec in specs]
        server.end()
        server.start()
        assert [job.job_id for job in reversed(client.list_jobs())] == [job.job_id for job in jobs]
        assert {job.state for job in client.list_jobs()} == {QUEUED}
        assert client.create_job(specs[1], request_id="second").job_id == jobs[1].job_id
        assert len(client.list_jobs()) == 3


def test_a_job_whose_data_are_gone_fails_with_a_reason_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    import numpy as np

    rows = np.random.default_rng(0).normal(size=(400, 5))
    np.savez(tmp_path / "rows.npz", features=rows[:, :4], target=rows[:, 4])
    spec = job_spec("gone", epochs=100_000)
    spec.data.uri = "file:rows.npz"
    options = ["--data-root", str(tmp_path)]
    with (
        RestartableServer(tmp_path / "home", workers=1, options=options) as server,
        Client(server.address) as client,
    ):
        job = client.create_job(spec)
        wait_until(client, job.job_id, step=100)
        server.end()
        (tmp_path / "rows.npz").unlink()
        server.start()
        final = ended(client, job.job_id)
        assert final.state == FAILED
        assert "file:rows.npz" in final.error.message
        folder = CheckpointFolder(server.home / "checkpoints" / job.job_id)
        assert f"the checkpoint of step {folder.steps()[-1]} is kept in {folder.path}" in final.error.message


def test_a_second_server_is_refused_the_home_of_the_first(tmp_path: Path) -> None:
    with RestartableServer(tmp_path / "home") as server:
        command = [sys.executable, "-P", "-m", "server", "--port", "0", "--home", str(server.home)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert "another server (process " in done.stderr
        assert "Traceback" not in done.stderr


def test_a_disk_without_room_stops_no_training_and_refuses_new_jobs(server: RestartableServer) -> None:
    spec = job_spec("room", epochs=EPOCHS)
    with Client(server.address) as client:
        job = client.create_job(spec)
        wait_until(client, job.job_id, step=100)
        # No file of the server's can become longer than this.
        resource.prlimit(server.process_id, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        with pytest.raises(ServerError, match="the job can't be stored, and wasn't"):
            client.create_job(job_spec("refused", epochs=1))
        wait_until(client, job.job_id, step=400)
        resource.prlimit(server.process_id, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert ended(client, job.job_id).result.parameters_sha256 == undisturbed(EPOCHS, 0).parameters_sha256
        assert [each.job_id for each in client.list_jobs()] == [job.job_id]
        server.end()
        server.start()
        assert [each.state for each in client.list_jobs()] == [SUCCEEDED]
        events = history(client, job.job_id)
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert states_in(events) == [QUEUED, RUNNING, SUCCEEDED]
        assert any(event.HasField("checkpoint_failed") for event in events)
        assert "the job goes on without it" in server.log()
