"""Models and explanations of a job that trains with real processes, pauses and goes on: no bit of it changes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from chainrule.client.blocking.client import Client
from chainrule.v1 import job_pb2
from chainrule_server.preparation.prepare import prepare
from tests.cluster.support import RestartableServer
from tests.plain_workers import train_with_plain_workers

pytest.importorskip("sklearn")
pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("marker")]
TIMEOUT_S = 120.0


def job_spec() -> job_pb2.JobSpec:
    """A job of some seconds, whose best parameters aren't its last."""
    spec = job_pb2.JobSpec(name="running")
    spec.model.prediction = "w @ tanh(batch_norm(V @ x)) + b"
    spec.model.loss = "(prediction - y)**2"
    for name, shape in (("V", ["8", "d"]), ("w", ["8"]), ("b", [])):
        spec.model.parameters.add(name=name, shape=shape)
    spec.data.uri = "sklearn:diabetes"
    training = spec.training
    training.epochs, training.batch_size, training.shards = 400, 64, 4
    training.optimizer.name, training.optimizer.learning_rate = "adam", 0.01
    training.early_stopping.patience_epochs = 400
    training.checkpoint_every_steps = 500
    return spec


def test_looking_at_a_job_while_it_trains_and_pauses_changes_no_bit_of_it(tmp_path: Path) -> None:
    expected = train_with_plain_workers(prepare(job_spec()), worker_count=1).result
    assert expected is not None
    with RestartableServer(tmp_path / "home", workers=2) as server, Client(server.address) as client:
        job_id = client.create_job(job_spec()).job_id
        deadline_s = time.monotonic() + TIMEOUT_S
        while client.get_job(job_id).progress.step < 60:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        looks = 0
        while looks < 2 and client.get_job(job_id).state == job_pb2.JOB_STATE_RUNNING:
            looks += 1
            reduction = client.explain_reduction(job_id)
            assert client.explain(job_id, shard=looks % 4).step >= reduction.step - 1
            client.download_model(job_id, tmp_path / "last.safetensors", version="last")
            client.download_model(job_id, tmp_path / "best.safetensors", version="best")
        assert looks
        client.pause_job(job_id)
        while client.get_job(job_id).state == job_pb2.JOB_STATE_RUNNING:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        listed = client.list_checkpoints(job_id)
        if client.get_job(job_id).state == job_pb2.JOB_STATE_PAUSED:
            assert listed.last_step == listed.checkpoints[-1].step
            paused = client.download_model(job_id, tmp_path / "paused.safetensors", version="last")
            same = client.download_model(job_id, tmp_path / "step.safetensors", version=listed.last_step)
            for name, value in load_file(paused).items():
                assert np.array_equal(value, load_file(same)[name])
            assert client.explain_reduction(job_id).step == listed.last_step + 1
            assert client.predict(job_id, [[0.0] * 10], version="best").step == listed.best_step
            client.resume_job(job_id)
        *_, ended = client.watch_job(job_id)
        assert ended.state == job_pb2.JOB_STATE_SUCCEEDED
        assert ended.result.parameters_sha256 == expected.parameters_sha256
