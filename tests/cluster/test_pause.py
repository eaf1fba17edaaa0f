"""A paused job holds no workers and loses nothing, and resumed it has the bits of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chainrule.client.blocking.client import Client
from chainrule.client.blocking.job import Job
from chainrule.errors import PreconditionFailed, ServerUnavailable
from chainrule.v1 import job_pb2
from chainrule_server.preparation.prepare import prepare
from chainrule_server.storage.store import JobRecord, NamedEvent, Store
from tests.cluster.support import RestartableServer, ended, history, job_spec, states_in, undisturbed, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("marker")]

QUEUED, RUNNING, PAUSED = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_PAUSED
SUCCEEDED, CANCELLED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_CANCELLED
EPOCHS = 250


def spec(name: str, *, epochs: int = EPOCHS) -> job_pb2.JobSpec:
    """A job that has a checkpoint from its pauses alone."""
    found = job_spec(name, epochs=epochs)
    found.training.ClearField("checkpoint_every_steps")
    return found


def test_a_job_that_was_paused_and_resumed_has_the_bits_of_an_undisturbed_run(tmp_path: Path) -> None:
    with RestartableServer(tmp_path / "home", workers=2) as server, Client(server.address) as client:
        job_id = client.create_job(spec("paused")).job_id
        steps = []
        for step in (50, 200, 400):
            wait_until(client, job_id, step=step)
            paused = client.pause_job(job_id)
            assert (paused.state, paused.progress.workers, paused.waiting_for) == (PAUSED, 0, "")
            assert not paused.HasField("time_left")
            assert client.pause_job(job_id).state == PAUSED
            steps.append(paused.progress.step)
            time.sleep(0.2)
            assert client.get_job(job_id).progress.step == steps[-1]
            # Another job has its workers meanwhile.
            other = ended(client, client.create_job(spec("other", epochs=2)).job_id)
            assert other.state == SUCCEEDED
            assert client.resume_job(job_id).state in (QUEUED, RUNNING)
            client.resume_job(job_id)
        final = ended(client, job_id)
        assert final.result.parameters_sha256 == undisturbed(EPOCHS, 0).parameters_sha256, server.log()
        events = history(client, job_id)
        assert states_in(events) == [QUEUED, RUNNING, *[PAUSED, QUEUED, RUNNING] * 3, SUCCEEDED]
        resumed = [(e.resumed.step, e.resumed.was_paused) for e in events if e.HasField("resumed")]
        assert resumed == [(step, True) for step in steps]
        for change in (client.pause_job, client.resume_job):
            with pytest.raises(PreconditionFailed, match="has ended"):
                change(job_id)


def test_a_paused_job_survives_kill_9_and_stays_paused(tmp_path: Path) -> None:
    with RestartableServer(tmp_path / "home", workers=2) as server, Client(server.address) as client:
        job_id = client.create_job(spec("paused")).job_id
        wait_until(client, job_id, step=100)
        paused = client.pause_job(job_id)
        queued = client.create_job(spec("later"))
        client.pause_job(queued.job_id)
        for _ in range(2):
            server.end()
            server.start()
            assert client.get_job(job_id).state == client.get_job(queued.job_id).state == PAUSED
            assert client.get_job(job_id).progress.step == paused.progress.step
        client.resume_job(job_id)
        server.end()
        server.start()
        final = ended(client, job_id)
        assert final.result.parameters_sha256 == undisturbed(EPOCHS, 0).parameters_sha256, server.log()
        resumed = [event.resumed.step for event in history(client, job_id) if event.HasField("resumed")]
        assert resumed[0] == paused.progress.step
        assert client.get_job(queued.job_id).state == PAUSED


def test_a_paused_job_that_is_cancelled_leaves_its_last_parameters_as_the_model(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    with RestartableServer(tmp_path / "home", workers=2) as server, Client(server.address) as client:
        jobs = {name: client.create_job(spec(name)).job_id for name in ("here", "restarted")}
        large = spec("queued")
        large.training.min_workers = 3
        jobs["queued"] = client.create_job(large).job_id
        wait_until(client, jobs["here"], step=60)
        wait_until(client, jobs["restarted"], step=60)
        for job_id in jobs.values():
            client.pause_job(job_id)
        tensors = {}
        for name in ("here", "restarted"):
            if name == "restarted":
                server.end()
                server.start()
            assert client.cancel_job(jobs[name]).state == CANCELLED
            tensors[name] = load_file(client.download_model(jobs[name], tmp_path / f"{name}.safetensors"))
            assert tensors[name]["V"].shape == (16, 10)
        queued = Job(client, client.get_job(jobs["queued"]))
        assert (queued.state, queued.resume().state, queued.pause().state) == ("PAUSED", "QUEUED", "PAUSED")
        assert client.cancel_job(jobs["queued"]).state == CANCELLED
        with pytest.raises(PreconditionFailed, match="made no step"):
            client.download_model(jobs["queued"], tmp_path / "queued.safetensors")


def test_a_job_that_a_version_without_max_workers_stored_is_trained(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    prepared = prepare(spec("old", epochs=2))
    prepared.spec.training.ClearField("max_workers")
    with contextlib.closing(Store(home / "chainrule.db")) as store:
        record = JobRecord("0123456789ab", prepared.spec, QUEUED, 1.0, data_sha256=prepared.rows.sha256)
        store.add(record, [NamedEvent(job_pb2.JobEvent(state_changed=job_pb2.StateChanged(state=QUEUED)))])
    with RestartableServer(home, workers=2) as server, Client(server.address) as client:
        final = ended(client, "0123456789ab")
        assert final.result.parameters_sha256 == undisturbed(2, 0).parameters_sha256, server.log()


def test_a_server_killed_while_jobs_pause_keeps_every_pause_that_it_acknowledged(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAINRULE_SEED", random.randrange(1 << 32)))
    print(f"CHAINRULE_SEED={seed}")  # noqa: T201 - shown where the test fails
    chance = random.Random(seed)
    with (
        RestartableServer(tmp_path / "home", workers=2) as server,
        Client(server.address) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        jobs = [client.create_job(spec(name)).job_id for name in ("first", "second")]
        for _ in range(3):
            time.sleep(chance.uniform(0.0, 0.5))
            pauses = {job_id: threads.submit(client.pause_job, job_id) for job_id in jobs}
            time.sleep(chance.uniform(0.0, 0.1))
            server.end()
            server.start()
            for job_id, pause in pauses.items():
                with contextlib.suppress(PreconditionFailed, ServerUnavailable):
                    step = pause.result().progress.step
                    now = client.get_job(job_id)
                    assert (now.state, now.progress.step) == (PAUSED, step), server.log()
            for job_id in jobs:
                with contextlib.suppress(PreconditionFailed):
                    client.resume_job(job_id)
        for job_id in jobs:
            assert ended(client, job_id).result.parameters_sha256 == undisturbed(EPOCHS, 0).parameters_sha256
