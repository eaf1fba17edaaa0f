"""The promise: what was acknowledged survives kill -9, and what was trained on has the bits of an undisturbed run.

CHAINRULE_KILLS says how often the server is killed (6 times where it isn't set), CHAINRULE_SEED from which seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from chainrule.client.blocking.client import Client
from chainrule.errors import ServerError, ServerUnavailable
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.data.data_set_record import CONTENT
from chainrule_server.preparation.prepare import prepare
from chainrule_server.storage.checkpoint_folder import CheckpointFolder
from tests.cluster.support import (
    COMMAND,
    RestartableServer,
    ended,
    history,
    job_spec,
    states_in,
    undisturbed,
    wait_for,
    wait_until,
)
from tests.plain_workers import train_with_plain_workers

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("marker")]

QUEUED, RUNNING = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING
SUCCEEDED, FAILED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED
EPOCHS = 250


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RestartableServer]:
    options = ["--checkpoint-every-s", "0.1", "--transport", getattr(request, "param", "auto")]
    with RestartableServer(tmp_path / "home", workers=2, options=options) as running:
        yield running


def rows_file(seed: int) -> bytes:
    """An .npz file of 20,000 random rows: 1.4 MB, so that a server may well be killed while it comes in."""
    rows = np.random.default_rng(seed).normal(size=(20_000, 9))
    content = io.BytesIO()
    np.savez(content, features=rows[:, :8], target=rows[:, 8])
    return content.getvalue()


def checkpoints_of(client: Client, job_id: str) -> list[int]:
    """The steps of the checkpoints that a job's events tell of by now; it may go on."""
    first = next(iter(client.watch_updates(job_id, after_event=0)))
    return [event.checkpoint_written.step for event in first.events if event.HasField("checkpoint_written")]


@pytest.mark.timeout(600)
def test_a_server_killed_at_any_moment_loses_nothing_that_it_acknowledged(
    server: RestartableServer, tmp_path: Path
) -> None:
    """During submissions, training and uploads, which go on for as long as it is killed."""
    seed = int(os.environ.get("CHAINRULE_SEED", random.randrange(1 << 32)))
    print(f"CHAINRULE_SEED={seed}")  # noqa: T201 - shown where the test fails
    randomness = random.Random(seed)
    kills = int(os.environ.get("CHAINRULE_KILLS", "6"))
    lengths = (60 * kills, 10, 30 * kills, 25)
    specs = [job_spec(f"job-{number}", epochs=epochs, seed=number) for number, epochs in enumerate(lengths)]
    expected = [undisturbed(spec.training.epochs, spec.training.seed) for spec in specs]
    acknowledged: dict[str, str] = {}
    updates: list[api.WatchJobResponse] = []
    # By SHA-256: the name.
    uploaded: dict[str, str] = {}
    no_more_kills = threading.Event()
    problems: list[BaseException] = []
    deadline_s = time.monotonic() + 400

    def submit_all() -> None:
        try:
            with Client(server.address) as client:
                for spec in specs:
                    while spec.name not in acknowledged:
                        try:
                            job = client.create_job(spec, request_id=f"request-{spec.name}")
                            acknowledged[spec.name] = job.job_id
                        except ServerUnavailable:
                            if time.monotonic() > deadline_s:
                                raise
                            time.sleep(0.1)
                    time.sleep(randomness.random())
                updates.extend(client.watch_updates(acknowledged["job-0"], after_event=0))
        except BaseException as error:  # noqa: BLE001 - raised again by the test itself
            problems.append(error)

    def upload_all() -> None:
        try:
            with Client(server.address) as client:
                for number in itertools.count():
                    path = tmp_path / f"rows-{number}.npz"
                    path.write_bytes(rows_file(number))
                    is_last = no_more_kills.is_set()
                    uploaded[client.upload(path).sha256] = path.name
                    if is_last:
                        return
        except BaseException as error:  # noqa: BLE001 - as above
            problems.append(error)

    threads = [
        threading.Thread(target=target, name=target.__name__, daemon=True) for target in (submit_all, upload_all)
    ]
    for thread in threads:
        thread.start()
    for _ in range(kills):
        time.sleep(randomness.uniform(0.02, 2.0))
        before, data_before = dict(acknowledged), dict(uploaded)
        server.end()
        server.start()
        with Client(server.address) as client:
            assert set(before.values()) <= {job.job_id for job in client.list_jobs()}
            there = {data_set.sha256: data_set.names for data_set in client.list_data_sets()}
            assert all(name in there.get(sha256, ()) for sha256, name in data_before.items())
    no_more_kills.set()
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    assert not problems, (problems, server.log())
    # A call that hangs is not a job that is lost: say which it is, and where the server stands.
    hanging = [thread.name for thread in threads if thread.is_alive()]
    assert not hanging, (hanging, acknowledged, uploaded, server.stacks())
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
        for sha256, name in uploaded.items():
            content = (server.home / "datasets" / sha256 / CONTENT).read_bytes()
            assert hashlib.sha256(content).hexdigest() == sha256
            assert content == (tmp_path / name).read_bytes()
        spec = job_spec("uploaded", epochs=1)
        spec.data.uri = f"file:{name}"
        result = train_with_plain_workers(prepare(spec, data_root=tmp_path), worker_count=1).result
        spec.data.uri = f"dataset:{name}"
        job = ended(client, client.create_job(spec).job_id)
        assert result is not None
        assert (job.state, job.result.parameters_sha256) == (SUCCEEDED, result.parameters_sha256)


@pytest.mark.parametrize("server", ["auto", "grpc"], indirect=True)
def test_a_job_goes_on_from_its_last_checkpoint_and_its_events_say_so(server: RestartableServer) -> None:
    spec = job_spec("resumed", epochs=EPOCHS)
    with Client(server.address) as client:
        job = client.create_job(spec)
        wait_until(client, job.job_id, step=200)
        # On a busy machine the disk may be behind the training.
        wait_for(lambda: checkpoints_of(client, job.job_id)[-1:] >= [100])
        assert client.read_metrics(job.job_id)
        server.end()
        server.start()
        final = ended(client, job.job_id)
        assert final.result.parameters_sha256 == undisturbed(EPOCHS, 0).parameters_sha256
        resumed = [event.resumed.step for event in history(client, job.job_id) if event.HasField("resumed")]
        assert len(resumed) == 1
        assert resumed[0] >= 100, "it began anew in place of going on from a checkpoint"
        rows = client.read_metrics(job.job_id)
        assert [row.epoch for row in rows if row.HasField("epoch")] == list(range(1, EPOCHS + 1))
        assert [row.step for row in rows] == sorted({row.step for row in rows})
        assert (rows[-1].step, rows[-1].validation_loss) == (final.progress.step, final.progress.validation_loss)
        assert {metric.name for metric in rows[-1].metrics} == {"validation_r2", "validation_rmse"}
        times = [row.time.ToNanoseconds() for row in rows]
        assert final.start_time.ToNanoseconds() < times[0] < times[-1] < final.end_time.ToNanoseconds()


def test_a_server_that_is_ended_kindly_loses_no_step_and_no_watcher(tmp_path: Path) -> None:
    spec = job_spec("kindly", epochs=EPOCHS)
    spec.training.checkpoint_every_steps = 1_000_000
    with RestartableServer(tmp_path / "home") as server, Client(server.address) as client:
        job = client.create_job(spec)
        command = [*COMMAND, "watch", job.job_id, "--json", "--server", server.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
            assert watch.stdout is not None
            # It watches before the first step, which waits for a worker.
            assert json.loads(watch.stdout.readline())["state"] == "QUEUED"
            for name in ("worker-0", "worker-1"):
                server.add_worker(name)
            wait_until(client, job.job_id, step=100)
            before = client.get_job(job.job_id).progress.step
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
        wait_for(lambda: len(checkpoints_of(client, job.job_id)) >= 3)
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


def test_a_backup_that_is_taken_while_jobs_run_goes_on_to_the_same_bits(
    server: RestartableServer, tmp_path: Path
) -> None:
    """As docs/operations.md says: the database by SQLite's online backup, then the files."""
    backup = tmp_path / "backup"
    backup.mkdir()
    with Client(server.address) as client:
        first = ended(client, client.create_job(job_spec("ended", epochs=2)).job_id)
        running = client.create_job(job_spec("running", epochs=EPOCHS))
        wait_until(client, running.job_id, step=200)
        with (
            contextlib.closing(sqlite3.connect(server.home / "chainrule.db")) as source,
            contextlib.closing(sqlite3.connect(backup / "chainrule.db")) as target,
        ):
            source.backup(target)
        wait_until(client, running.job_id, step=300)
        for name in ("models", "checkpoints"):
            for path in (server.home / name).rglob("*.safetensors"):
                copy = backup / path.relative_to(server.home)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # a newer checkpoint has taken its place
                    shutil.copy(path, copy)
        server.end()
        shutil.rmtree(server.home)
        backup.rename(server.home)
        server.start()
        assert ended(client, running.job_id).result.parameters_sha256 == undisturbed(EPOCHS, 0).parameters_sha256
        events = history(client, running.job_id)
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert client.get_job(first.job_id).result.parameters_sha256 == undisturbed(2, 0).parameters_sha256
        client.download_model(first.job_id, tmp_path / "model.safetensors")


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
        wait_for(lambda: checkpoints_of(client, job.job_id))
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
        command = [sys.executable, "-P", "-m", "chainrule_server", "--port", "0", "--home", str(server.home)]
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
        with pytest.raises(ServerError, match=r"the prepared rows can't be kept in .*: File too large; make room"):
            client.create_job(job_spec("refused", epochs=1))
        # Many checkpoints fail meanwhile; neither their events nor the log can be written before there is room again.
        wait_until(client, job.job_id, step=800)
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
