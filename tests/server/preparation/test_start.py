"""Jobs that start from the parameters of others, and parameters that are frozen: the same bits everywhere."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.errors import InvalidSpec
from chainrule_server.jobs.archive import Archive
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.storage.checkpoint import Checkpoint
from chainrule_server.storage.journal import Journal
from chainrule_server.storage.store import Store
from chainrule_server.training.resume import capture, restore
from chainrule_server.training.training import Training
from tests.plain_workers import train_with_plain_workers
from tests.server.in_process import RunningServer, add_data_sets, prepared, refusal, regression_spec

TIMEOUT_S = 60.0


@pytest.fixture(autouse=True)
def data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    add_data_sets(monkeypatch)


def network(epochs: int = 3, **training: Any) -> job_pb2.JobSpec:
    """A network over test:regression."""
    spec = regression_spec()
    spec.model.prediction = "w @ tanh(V @ x) + b"
    del spec.model.parameters[:]
    for name, shape in (("V", ["4", "d"]), ("w", ["4"]), ("b", [])):
        spec.model.parameters.add(name=name, shape=shape)
    spec.training.epochs, spec.training.shards = epochs, 4
    spec.training.MergeFrom(job_pb2.TrainingSpec(**training))
    return spec


def model_file(folder: Path, **tensors: Any) -> str:
    """A file of these tensors below the data root, its name."""
    save_file({name: np.asarray(value) for name, value in tensors.items()}, folder / "start.safetensors")
    return "start.safetensors"


def violations(spec: job_pb2.JobSpec, folder: Path) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        prepare(spec, data_root=folder)
    return dict(caught.value.violations)


def first(job: PreparedJob) -> dict[str, Any]:
    return job.model.layout.views(job.first_state().parameters)


def test_a_job_starts_from_a_files_parameters_and_draws_the_others(tmp_path: Path) -> None:
    V = np.arange(12, dtype=np.float32).reshape(4, 3)
    spec = network()
    spec.model.start.model = model_file(tmp_path, V=V, other=np.zeros(7, np.float32))
    job = prepare(spec, data_root=tmp_path)
    assert np.array_equal(first(job)["V"], V)
    assert np.array_equal(first(job)["w"], first(prepare(network()))["w"])
    content = (tmp_path / "start.safetensors").read_bytes()
    assert job.spec.model.start.sha256 == hashlib.sha256(content).hexdigest()


def test_what_a_start_takes_can_be_named(tmp_path: Path) -> None:
    spec = network()
    tensors = {"V": np.ones((4, 3), np.float64), "w": np.ones(9, np.float32), "b": np.float32(2)}
    spec.model.start.model = model_file(tmp_path, **tensors)
    spec.model.start.parameters.extend(["b", "V"])
    values = first(prepare(spec, data_root=tmp_path))
    assert (values["V"] == 1).all()
    assert values["b"] == 2
    assert np.array_equal(values["w"], first(prepare(network()))["w"])


def test_what_cannot_be_taken_is_told_with_both_shapes(tmp_path: Path) -> None:
    spec = network()
    spec.model.start.model = model_file(tmp_path, w=np.ones(9, np.float32))
    assert violations(spec, tmp_path) == {
        "model.parameters.w": "has shape (4,), but (9,) in what it starts from; give it that shape, or name those to "
        "take in model.start.parameters"
    }
    spec.model.start.parameters.append("W")
    assert "no parameter 'W'; it has V, w, b" in violations(spec, tmp_path)["model.start.parameters[0]"]
    spec.model.start.parameters[0] = "V"
    assert "no 'V' in what it starts from, which holds w" in violations(spec, tmp_path)["model.start.parameters[0]"]
    del spec.model.start.parameters[:]
    model_file(tmp_path, other=np.ones(3, np.float32))
    assert "holds none of the parameters V, w, b, but other" in violations(spec, tmp_path)["model.start.model"]
    model_file(tmp_path, b=np.float32("nan"))
    assert "NaN" in violations(spec, tmp_path)["model.parameters.b"]
    model_file(tmp_path, b=np.int64(1))
    assert "int64" in violations(spec, tmp_path)["model.parameters.b"]
    (tmp_path / "start.safetensors").write_bytes(b"nothing of the kind")
    assert "no safetensors file" in violations(spec, tmp_path)["model.start.model"]
    spec.model.start.sha256 = "00"
    assert "SHA-256" in violations(spec, tmp_path)["model.start.sha256"]


def test_a_start_is_looked_for_below_the_data_root_alone(tmp_path: Path) -> None:
    spec = network()
    (tmp_path / "root").mkdir()
    model_file(tmp_path, b=np.float32(1))
    spec.model.start.model = "../start.safetensors"
    assert "leads out of the data folder" in violations(spec, tmp_path / "root")["model.start.model"]
    spec.model.start.job = "abcd"
    assert "no server here" in violations(spec, tmp_path)["model.start.job"]
    spec.model.start.ClearField("source")
    assert "job or a model" in violations(spec, tmp_path)["model.start"]


def test_running_statistics_come_along(tmp_path: Path) -> None:
    spec = network()
    spec.model.prediction = "w @ tanh(batch_norm(V @ x)) + b"
    names = ("batch_norm 1 mean", "batch_norm 1 variance")
    statistics = {name: np.array([1.0, 2, 3, 4]) for name in names}
    spec.model.start.model = model_file(tmp_path, b=np.float32(1), **statistics)
    state = prepare(spec, data_root=tmp_path).first_state()
    assert state.statistics.tolist() == [1, 2, 3, 4] * 2


SETTINGS: list[dict[str, Any]] = [
    {},
    {"optimizer": job_pb2.Optimizer(name="adamw", learning_rate=0.05, weight_decay=0.5)},
    {"optimizer": job_pb2.Optimizer(name="momentum", learning_rate=0.05), "precision": "bfloat16"},
    {
        "optimizer": job_pb2.Optimizer(name="rmsprop"),
        "early_stopping": job_pb2.EarlyStopping(patience_epochs=2),
        "clipping": job_pb2.Clipping(value=0.5, global_norm=0.3),
        "penalties": job_pb2.Penalties(l1=0.01, l2=0.1),
    },
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["sgd", "adamw", "bfloat16", "all limits"])
def test_frozen_parameters_stay_and_the_rest_has_the_same_bits_on_1_2_and_3_workers(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    spec = network(**settings)
    spec.model.start.model = model_file(tmp_path, V=np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))
    spec.model.parameters[0].frozen = True
    job = prepare(spec, data_root=tmp_path)
    before = first(job)
    trained = [train_with_plain_workers(job, worker_count=count) for count in (1, 2, 3)]
    assert len({each.state.sha256 for each in trained}) == 1
    after = job.model.layout.views(trained[0].state.parameters)
    assert after["V"].tobytes() == before["V"].tobytes()
    assert not np.array_equal(after["w"], before["w"])


def test_a_restart_in_mid_job_gives_the_same_bits(tmp_path: Path) -> None:
    spec = network(**SETTINGS[3])
    spec.model.start.model = model_file(tmp_path, V=np.ones((4, 3), np.float32))
    spec.model.parameters[0].frozen = True
    job = prepare(spec, data_root=tmp_path)
    taken: list[Checkpoint] = []

    def keep(training: Training, evaluation: Any) -> None:
        taken.append(capture(training, spec_sha256="", data_sha256=""))

    undisturbed = train_with_plain_workers(job, worker_count=2, step_ended=keep)
    for checkpoint in (taken[0], taken[len(taken) // 2]):
        again = prepare(job.spec, data_root=tmp_path)
        resumed = train_with_plain_workers(
            again, worker_count=3, restore=functools.partial(restore, checkpoint=checkpoint)
        )
        assert resumed.state.sha256 == undisturbed.state.sha256


def test_a_model_of_which_everything_is_frozen_is_refused(tmp_path: Path) -> None:
    spec = network()
    for parameter in spec.model.parameters:
        parameter.frozen = True
    assert violations(spec, tmp_path) == {
        "model.parameters": "every one is frozen, so nothing would be trained; leave one free"
    }


def test_a_job_starts_from_another_jobs_result(server: RunningServer) -> None:
    source = server.add_finished(prepared(network()))
    spec = network()
    spec.model.start.job = source.job_id[:6]
    request = api.CreateJobRequest(spec=spec, request_id="once")
    created = server.jobs.CreateJob(request, timeout=TIMEOUT_S).job
    assert created.spec.model.start.job == source.job_id
    assert server.jobs.CreateJob(request, timeout=TIMEOUT_S).job.job_id == created.job_id
    assert source.model_path is not None
    job = server.scheduler.jobs.find(created.job_id)
    assert job.prepared is not None
    expected = load_file(source.model_path)
    assert all(np.array_equal(value, expected[name]) for name, value in first(job.prepared).items())
    # It has a copy of its own, so that the source may be deleted.
    copy = server.folder / f"{job.job_id}.start.safetensors"
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == created.spec.model.start.sha256
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    assert copy.exists()
    server.jobs.DeleteJob(api.DeleteJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    assert not copy.exists()


def test_a_job_to_start_from_must_be_there_and_have_ended(server: RunningServer) -> None:
    spec = network()
    spec.model.start.job = "nosuch"
    request = api.CreateJobRequest(spec=spec)
    assert "there is no job" in refusal(lambda: server.jobs.CreateJob(request))[1]["model.start.job"]
    spec.model.start.job = server.submit(prepared(network())).job_id
    request = api.CreateJobRequest(spec=spec, validate_only=True)
    assert "has not ended" in refusal(lambda: server.jobs.CreateJob(request))[1]["model.start.job"]


def test_a_restarted_server_prepares_a_job_from_its_own_copy(tmp_path: Path) -> None:
    import asyncio

    async def submitted() -> tuple[str, str]:
        from chainrule_server.jobs.registry import JobRegistry
        from chainrule_server.jobs.scheduler import Scheduler

        archive = Archive(tmp_path / "models", tmp_path / "checkpoints", 0.0, Journal(Store(tmp_path / "db")))
        scheduler = Scheduler(JobRegistry(lambda: "abcdef012345"), archive)
        spec = network()
        spec.model.start.model = model_file(tmp_path, V=np.ones((4, 3), np.float32))
        job = await scheduler.submit(prepare(spec, data_root=tmp_path))
        await archive.journal.close()
        archive.journal.store.close()
        return job.job_id, job.spec.model.start.sha256

    job_id, digest = asyncio.run(submitted())
    (tmp_path / "start.safetensors").unlink()
    (tmp_path / "models" / "aaaa.start.safetensors").write_bytes(b"of a job that never was")

    async def read_again() -> PreparedJob:
        archive = Archive(tmp_path / "models", tmp_path / "checkpoints", 0.0, Journal(Store(tmp_path / "db")))
        (job,) = archive.jobs()
        found, _ = await archive.read_again(job)
        await archive.journal.close()
        archive.journal.store.close()
        return found

    again = asyncio.run(read_again())
    assert again.spec.model.start.sha256 == digest
    assert (first(again)["V"] == 1).all()
    assert [path.name for path in (tmp_path / "models").iterdir()] == [f"{job_id}.start.safetensors"]
