"""Checkpoints: the same bits after a restart, nothing damaged is ever read, and what is kept of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.v1 import job_pb2
from chainrule_engine.early_stopping import EarlyStoppingState
from chainrule_engine.reduction import PartialSum
from chainrule_engine.schedules import PlateauState
from chainrule_server.data import data_set
from chainrule_server.data.data_set import DataSet
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.spec_check import spec_sha256
from chainrule_server.storage import checkpoint as checkpoint_file
from chainrule_server.storage.checkpoint import Checkpoint, DamagedCheckpoint
from chainrule_server.storage.checkpoint_folder import CheckpointFolder
from chainrule_server.storage.journal import Journal
from chainrule_server.storage.store import IN_MEMORY, JobRecord, Store
from chainrule_server.training.recorder import Recorder
from chainrule_server.training.resume import capture, restore
from chainrule_server.training.training import Training
from tests.plain_workers import train_with_plain_workers


def checkpoint(step: int = 7, *, validation_loss: float | None = 0.1, size: int = 5) -> Checkpoint:
    vector = np.random.default_rng(step).normal(size=size).astype(np.float32)
    return Checkpoint(
        job_id="job",
        step=step,
        parameters=vector,
        optimizer={"moment": 2 * vector, "square": vector * vector},
        statistics=np.array([0.1, 0.2]),
        plateau=PlateauState(0.5, 1 / 3, 2),
        stopping=EarlyStoppingState(1 / 7, 3, False),
        best=(3 * vector, np.array([0.3, 0.4])),
        published=None,
        spec_sha256="spec",
        data_sha256="data",
        epoch=3,
        loss=1 / 11,
        validation_loss=validation_loss,
        trained_s=1.25,
    )


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = checkpoint()
    checkpoint_file.write(written, tmp_path / "c")
    read = checkpoint_file.read(tmp_path / "c")
    assert read.tensors().keys() == written.tensors().keys()
    for name, tensor in written.tensors().items():
        assert np.array_equal(read.tensors()[name], tensor)
        assert read.tensors()[name].dtype == tensor.dtype
    for name in ("step", "plateau", "stopping", "spec_sha256", "epoch", "loss", "validation_loss", "trained_s"):
        assert getattr(read, name) == getattr(written, name), name


def test_a_checkpoint_with_any_bit_changed_or_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint_file.write(checkpoint(), path)
    whole = path.read_bytes()
    randomness = random.Random(5)
    for place in {*range(24), *randomness.sample(range(len(whole)), 400)}:
        changed = bytearray(whole)
        changed[place] ^= 1 << randomness.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(DamagedCheckpoint):
            checkpoint_file.read(path)
    for length in (0, 1, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpoint):
            checkpoint_file.read(path)
    path.write_bytes(whole)
    checkpoint_file.read(path)


def test_the_last_two_and_the_best_are_kept_also_across_a_restart(tmp_path: Path) -> None:
    losses = {1: 0.9, 2: 0.2, 3: 0.5, 4: None, 5: 0.3}
    folder = CheckpointFolder(tmp_path / "job")
    for step, loss in losses.items():
        folder.write(checkpoint(step, validation_loss=loss))
    assert folder.steps() == [2, 4, 5]
    again = CheckpointFolder(tmp_path / "job")
    again.write(checkpoint(6, validation_loss=0.8))
    assert again.steps() == [2, 5, 6]
    assert sorted(path.name for path in again.path.iterdir()) == [f"{step:012d}.safetensors" for step in (2, 5, 6)]


def test_as_many_checkpoints_are_kept_as_the_operator_says_besides_the_best(tmp_path: Path) -> None:
    folders = {kept: CheckpointFolder(tmp_path / str(kept), kept) for kept in (1, 3)}
    for folder in folders.values():
        for step, loss in {1: 0.2, 2: 0.9, 3: 0.5, 4: 0.7, 5: 0.3}.items():
            folder.write(checkpoint(step, validation_loss=loss))
    assert {kept: folder.steps() for kept, folder in folders.items()} == {1: [1, 5], 3: [1, 3, 4, 5]}


def test_a_damaged_checkpoint_and_one_of_another_job_are_set_aside(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "job")
    for step in (1, 2):
        folder.write(checkpoint(step))
    (folder.path / f"{3:012d}.safetensors").write_bytes(b"half")
    found, damaged = folder.latest(spec_sha256="spec")
    assert found is not None
    assert found.step == 2
    assert [name for name, _ in damaged] == [f"{3:012d}.safetensors.damaged"]
    found, damaged = folder.latest(spec_sha256="another")
    assert (found, len(damaged), folder.steps()) == (None, 2, [])


def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path / "job")
    folder.write(checkpoint(1))

    def half(checkpoint: Checkpoint, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_file, "write", half)
    with pytest.raises(OSError, match="No space left"):
        folder.write(checkpoint(2))
    assert [path.name for path in folder.path.iterdir()] == [f"{1:012d}.safetensors"]


IS_QUEUED = job_pb2.JobEvent(state_changed=job_pb2.StateChanged(state=job_pb2.JOB_STATE_QUEUED))
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")


@pytest.fixture
def make_job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PreparedJob]:
    randomness = np.random.default_rng(0)
    features = randomness.normal(size=(60, 3))
    data = DataSet("test:rows", features, features @ [1.0, -2.0, 0.5] + randomness.normal(size=60), ("a", "b", "c"))
    monkeypatch.setitem(data_set.LOADERS, "test:rows", lambda: data)

    def make(*, optimizer: str = "adam", precision: str = "float32") -> PreparedJob:
        spec = job_pb2.JobSpec(name="resumed")
        spec.model.prediction = "w @ tanh(scale * batch_norm(V @ dropout(x, 0.2)))"
        spec.model.loss = "(prediction - y)**2"
        for name, shape in (("V", ["4", "d"]), ("scale", ["4"]), ("w", ["4"])):
            spec.model.parameters.add(name=name, shape=shape)
        spec.data.uri = "test:rows"
        training = spec.training
        training.epochs, training.batch_size, training.shards = 12, 16, 4
        training.optimizer.name, training.optimizer.learning_rate = optimizer, 0.05
        training.schedule.name, training.schedule.patience_epochs = "reduce_on_plateau", 1
        training.early_stopping.patience_epochs = 4
        training.precision = precision
        return prepare(spec)

    return make


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [*((name, "float32") for name in OPTIMIZERS), ("adam", "bfloat16"), ("adam", "float16")],
)
def test_a_training_goes_on_from_any_step_to_the_same_bits(
    make_job: Callable[..., PreparedJob], tmp_path: Path, optimizer: str, precision: str
) -> None:
    job = make_job(optimizer=optimizer, precision=precision)
    taken: list[Checkpoint] = []

    def take(training: Training, evaluation: PartialSum | None) -> None:
        taken.append(capture(training, spec_sha256="", data_sha256=""))

    whole = train_with_plain_workers(job, worker_count=2, step_ended=take)
    assert whole.result is not None
    assert len(taken) > 5
    for number, found in enumerate(taken):
        checkpoint_file.write(found, tmp_path / "c")
        read = checkpoint_file.read(tmp_path / "c")
        resumed = train_with_plain_workers(
            job, worker_count=1 + number % 3, restore=lambda training, read=read: restore(training, read)
        )
        assert resumed.result is not None
        assert resumed.result.parameters_sha256 == whole.result.parameters_sha256, found.step
        for name in ("loss", "validation_loss", "best_epoch", "metrics"):
            assert getattr(resumed.result, name) == getattr(whole.result, name), (found.step, name)
        assert (resumed.progress.step, resumed.progress.epoch) == (whole.progress.step, whole.progress.epoch)


def test_another_spec_has_another_hash(make_job: Callable[..., PreparedJob]) -> None:
    job = make_job()
    assert spec_sha256(job.spec) == spec_sha256(make_job().spec)
    assert spec_sha256(job.spec) != spec_sha256(make_job(optimizer="sgd").spec)


def test_a_job_goes_on_while_its_checkpoints_cannot_be_written_and_says_so_once(
    make_job: Callable[..., PreparedJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    write, is_full = CheckpointFolder.write, True

    def failing(self: CheckpointFolder, checkpoint: Checkpoint) -> int:
        if is_full:
            raise OSError(28, "No space left on device")
        return write(self, checkpoint)

    monkeypatch.setattr(CheckpointFolder, "write", failing)
    store = Store(IN_MEMORY)

    async def run() -> None:
        nonlocal is_full
        journal = Journal(store)
        await journal.add(JobRecord("job", job.spec, job_pb2.JOB_STATE_QUEUED, 0.0), IS_QUEUED)
        recorder = Recorder(journal, CheckpointFolder(tmp_path / "job"), "spec", "data", every_s=0, every_steps=1)
        training = Training("job", job, clock_ns=lambda: 0)
        for step in (1, 2, 3):
            training.state.step = step
            is_full = step < 3
            recorder.step_ended(training, None)
            await recorder.finish()
        await journal.close()

    asyncio.run(run())
    events = store.events("job", after=1)
    assert [event.WhichOneof("event") for event in events] == ["checkpoint_failed", "checkpoint_written"]
    assert (events[0].checkpoint_failed.step, events[0].checkpoint_failed.reason) == (1, "No space left on device")
    assert events[1].checkpoint_written.step == 3
    store.close()


def test_a_checkpoint_that_comes_due_while_another_is_written_is_left_out(
    make_job: Callable[..., PreparedJob], tmp_path: Path
) -> None:
    job, store = make_job(), Store(IN_MEMORY)
    folder = CheckpointFolder(tmp_path / "job")

    async def run() -> None:
        journal = Journal(store)
        await journal.add(JobRecord("job", job.spec, job_pb2.JOB_STATE_QUEUED, 0.0), IS_QUEUED)
        recorder = Recorder(journal, folder, "spec", "data", every_s=0, every_steps=1)
        training = Training("job", job, clock_ns=lambda: 0)
        for step in (1, 2, 3):
            training.state.step = step
            # Nothing else has had its turn meanwhile.
            recorder.step_ended(training, None)
        await recorder.finish()
        await journal.close()

    asyncio.run(run())
    assert folder.steps() == [1]
    store.close()


def test_the_metrics_of_a_job_are_kept_by_epoch(make_job: Callable[..., PreparedJob], tmp_path: Path) -> None:
    job, store = make_job(), Store(IN_MEMORY)

    async def run() -> Any:
        journal = Journal(store)
        await journal.add(JobRecord("job", job.spec, job_pb2.JOB_STATE_QUEUED, 0.0), IS_QUEUED)
        recorder = Recorder(journal, CheckpointFolder(tmp_path / "job"), "spec", "data", every_s=0)
        training = train_with_plain_workers(job, worker_count=1, step_ended=recorder.step_ended)
        await recorder.finish()
        await journal.close()
        return training

    training = asyncio.run(run())
    rows = store.metrics("job")
    assert [row.step for row in rows] == list(range(1, training.progress.step + 1))
    epochs = [row for row in rows if row.epoch is not None]
    assert [row.epoch for row in epochs] == list(range(1, training.progress.epoch + 1))
    assert epochs[-1].validation_loss == training.progress.validation_loss
    assert {"r2", "rmse"} <= epochs[0].values.keys()
    store.close()
