"""The parameters of any version of a job's model: the last, the best, or those of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from safetensors import safe_open

from chainrule.v1 import job_pb2, model_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import model_service_pb2 as model_api
from chainrule_server.jobs.job import Job
from chainrule_server.models.trained_model import read_model
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.spec_check import spec_sha256
from chainrule_server.storage.checkpoint import Checkpoint
from chainrule_server.storage.checkpoint_folder import CheckpointFolder
from chainrule_server.training.resume import capture
from chainrule_server.training.training import Training
from tests.plain_workers import train_with_plain_workers
from tests.server.in_process import RunningServer, prepared, refusal, regression_spec

TIMEOUT_S = 60.0
BEST = model_pb2.ModelVersion(named=model_pb2.NAMED_VERSION_BEST)
LAST = model_pb2.ModelVersion(named=model_pb2.NAMED_VERSION_LAST)


def of_step(step: int) -> model_pb2.ModelVersion:
    return model_pb2.ModelVersion(step=step)


class Kept:
    """A job whose checkpoints are all kept; `training` as it was when it ended."""

    def __init__(self, server: RunningServer, job: PreparedJob) -> None:
        self.server, self.prepared, self.captured = server, job, {}
        self.folder = server.folder / "checkpoints"
        server.scheduler.archive.checkpoints_folder = self.folder
        digest = spec_sha256(job.spec)

        def keep(training: Training, evaluation: Any) -> None:
            found = capture(training, spec_sha256=digest, data_sha256="rows")
            self.captured[found.step] = found

        self.training = train_with_plain_workers(job, worker_count=2, step_ended=keep)

    def add(self, state: job_pb2.JobState, *steps: int, training: Training | None = None) -> Job:
        """The job, in this state, with the checkpoints of these steps."""
        job_id = self.server.run(self.server.scheduler.jobs.new_id)
        job = Job(job_id, self.prepared.spec, 0.0, self.prepared, data_sha256="rows", state=state, training=training)
        job.progress.total_steps, job.progress.step = self.prepared.total_steps, max(steps, default=0)
        folder = CheckpointFolder(self.folder / job_id)
        for step in steps:
            folder.write(self.captured[step])
        self.server.run(lambda: self.server.scheduler.jobs.add(job))
        return job

    def download(self, job: Job, version: model_pb2.ModelVersion | None, path: Path) -> Path:
        request = api.DownloadModelRequest(job_id=job.job_id, version=version)
        parts = self.server.jobs.DownloadModel(request, timeout=TIMEOUT_S)
        path.write_bytes(b"".join(part.content for part in parts))
        return path


@pytest.fixture
def stopping(server: RunningServer) -> Kept:
    spec = regression_spec()
    spec.training.epochs, spec.training.optimizer.learning_rate = 12, 0.9
    spec.training.early_stopping.patience_epochs = 3
    return Kept(server, prepared(spec))


@pytest.fixture
def kept(server: RunningServer) -> Kept:
    spec = regression_spec()
    spec.training.epochs = 3
    return Kept(server, prepared(spec))


def test_the_model_of_a_kept_checkpoint_is_that_of_its_step_with_its_provenance(kept: Kept, tmp_path: Path) -> None:
    job = kept.add(job_pb2.JOB_STATE_RUNNING, 3, 5)
    path = kept.download(job, of_step(3), tmp_path / "three.safetensors")
    model = read_model(path)
    assert model.step == 3
    assert np.array_equal(model.parameters, kept.captured[3].parameters)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    spec = kept.prepared.spec
    known = {"job": job.job_id, "step": "3", "spec_sha256": spec_sha256(spec), "data_sha256": "rows"}
    assert metadata | known == metadata
    assert (metadata["prediction"], metadata["loss"]) == (spec.model.prediction, spec.model.loss)
    assert metadata["chainrule_version"]
    assert metadata["time"].endswith("+00:00")


def test_a_step_that_is_not_kept_is_not_found_and_told_which_are(kept: Kept) -> None:
    job = kept.add(job_pb2.JOB_STATE_RUNNING, 3, 5)
    request = api.DownloadModelRequest(job_id=job.job_id, version=of_step(4))
    with pytest.raises(grpc.RpcError, match=r"no parameters of step 4; there are those of 3, 5"):
        list(kept.server.jobs.DownloadModel(request, timeout=TIMEOUT_S))


def test_a_running_job_has_last_and_best_parameters(stopping: Kept, tmp_path: Path) -> None:
    training = stopping.training
    # As it was before the end, when it hadn't gone back to the best epoch yet.
    step = max(stopping.captured)
    training.state.parameters[...], training._is_best_restored = stopping.captured[step].parameters, False
    job = stopping.add(job_pb2.JOB_STATE_RUNNING, training=training)
    last = read_model(stopping.download(job, LAST, tmp_path / "last"))
    best = read_model(stopping.download(job, BEST, tmp_path / "best"))
    assert (last.step, best.step) == (step, training.best_step)
    assert np.array_equal(last.parameters, stopping.captured[step].parameters)
    assert np.array_equal(best.parameters, stopping.captured[best.step].parameters)
    assert read_model(stopping.download(job, of_step(best.step), tmp_path / "step")).sha256 == best.sha256
    listed = stopping.server.models.ListCheckpoints(model_api.ListCheckpointsRequest(job_id=job.job_id))
    assert (listed.last_step, listed.best_step, list(listed.checkpoints)) == (step, best.step, [])


def test_the_result_with_early_stopping_is_of_the_best_epochs_step(stopping: Kept, tmp_path: Path) -> None:
    job = stopping.server.add_finished(stopping.prepared)
    job.progress = stopping.training.progress
    best_step = stopping.training.best_step
    assert 0 < best_step < max(stopping.captured)
    for version in (None, LAST, BEST, of_step(best_step)):
        model = read_model(stopping.download(job, version, tmp_path / "model"))
        assert model.step == best_step
        assert np.array_equal(model.parameters, stopping.captured[best_step].parameters)


def test_a_job_that_waits_to_go_on_has_the_versions_of_its_checkpoints(stopping: Kept, tmp_path: Path) -> None:
    job = stopping.add(job_pb2.JOB_STATE_RUNNING, max(stopping.captured))
    last = read_model(stopping.download(job, LAST, tmp_path / "last"))
    best = read_model(stopping.download(job, BEST, tmp_path / "best"))
    assert (last.step, best.step) == (max(stopping.captured), stopping.training.best_step)
    assert np.array_equal(best.parameters, stopping.captured[best.step].parameters)


def test_without_early_stopping_the_best_is_the_kept_checkpoint_with_the_lowest_validation_loss(
    kept: Kept, tmp_path: Path
) -> None:
    job = kept.add(job_pb2.JOB_STATE_FAILED, 4, 8, 12)
    listed = kept.server.models.ListCheckpoints(model_api.ListCheckpointsRequest(job_id=job.job_id))
    losses = {each.step: each.validation_loss for each in listed.checkpoints}
    assert listed.best_step == min(losses, key=lambda step: losses[step])
    assert read_model(kept.download(job, BEST, tmp_path / "best")).step == listed.best_step
    assert all(each.size_bytes and each.time.seconds for each in listed.checkpoints)


def test_a_damaged_checkpoint_is_refused_by_every_call(kept: Kept) -> None:
    job = kept.add(job_pb2.JOB_STATE_RUNNING, 3)
    file = next((kept.folder / job.job_id).iterdir())
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    server, version = kept.server, of_step(3)
    row = model_api.PredictRequest(job_id=job.job_id, version=version)
    row.rows.add().extend([1, 2, 3])
    for call in (
        lambda: list(server.jobs.DownloadModel(api.DownloadModelRequest(job_id=job.job_id, version=version))),
        lambda: server.models.Predict(row, timeout=TIMEOUT_S),
        lambda: server.models.Explain(model_api.ExplainRequest(job_id=job.job_id, row=0, version=version)),
    ):
        code, _, reason = refusal(call)
        assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "DAMAGED_FILE")


def test_predictions_and_explanations_are_of_the_version_that_is_named(kept: Kept) -> None:
    job = kept.add(job_pb2.JOB_STATE_RUNNING, 3, 5)
    for step in (3, 5):
        request = model_api.PredictRequest(job_id=job.job_id, version=of_step(step))
        request.rows.add().extend([5.0, 5.0, 5.0])
        predicted = kept.server.models.Predict(request, timeout=TIMEOUT_S)
        checkpoint: Checkpoint = kept.captured[step]
        x = kept.prepared.preprocessing.transform({name: [5.0] for name in "abc"})[0]
        assert predicted.step == step
        assert predicted.predictions[0].outputs[0] == pytest.approx(
            float(x @ checkpoint.parameters[:3] + checkpoint.parameters[3]), rel=1e-5
        )
        explained = kept.server.models.Explain(
            model_api.ExplainRequest(job_id=job.job_id, row=0, version=of_step(step)), timeout=TIMEOUT_S
        )
        weights = next(node for node in explained.nodes if node.name == "w")
        assert list(weights.forward.values) == checkpoint.parameters[:3].tolist()


def test_a_version_without_a_name_and_a_best_without_validation_are_refused(server: RunningServer) -> None:
    spec = regression_spec()
    spec.data.validation_fraction = 0.0
    job = server.add_finished(prepared(spec))
    for version, code in (
        (BEST, grpc.StatusCode.FAILED_PRECONDITION),
        (model_pb2.ModelVersion(named=0), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        request = api.DownloadModelRequest(job_id=job.job_id, version=version)
        assert refusal(lambda request=request: list(server.jobs.DownloadModel(request)))[0] == code


def test_a_running_jobs_result_is_refused_until_a_version_is_named(kept: Kept) -> None:
    job = kept.add(job_pb2.JOB_STATE_RUNNING, 3)
    with pytest.raises(grpc.RpcError, match="name a version"):
        list(kept.server.jobs.DownloadModel(api.DownloadModelRequest(job_id=job.job_id)))
