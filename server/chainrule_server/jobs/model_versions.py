"""Which parameters of a job are meant, and where they are: in a running training, in a checkpoint, or in a model file.

What runs is copied on the event loop, where no step can be committed meanwhile; files are read by whoever calls the
functions of a `Source`, in a thread.
"""

from __future__ import annotations

import asyncio
import mmap
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from chainrule.v1 import job_pb2, model_pb2
from chainrule.v1 import model_service_pb2 as api
from chainrule_engine.parameters import Vector
from chainrule_server.errors import DamagedFile, InvalidRequest, NotFound, StorageFull, WrongState
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.job import Job
from chainrule_server.models.model_file import Provenance, encode
from chainrule_server.models.trained_model import TrainedModel, read_model
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.spec_check import spec_sha256
from chainrule_server.storage.checkpoint import Checkpoint, DamagedCheckpoint
from chainrule_server.storage.checkpoint_folder import KeptCheckpoint

LAST, BEST = model_pb2.NAMED_VERSION_LAST, model_pb2.NAMED_VERSION_BEST


@dataclass(frozen=True)
class Source:
    """Parameters that are there. model: reads them. content: the bytes of the safetensors file, mapped.

    Both block, and raise DamagedFile, NotFound and StorageFull."""

    model: Callable[[], TrainedModel]
    content: Callable[[], mmap.mmap]


@dataclass(frozen=True)
class ModelVersions:
    """What there is of every job of an archive."""

    archive: Archive

    async def find(self, job: Job, version: model_pb2.ModelVersion) -> Source:
        """Where the parameters are. Raises NotFound, WrongState, InvalidRequest, DamagedFile."""
        which = version.WhichOneof("version")
        if which == "named" and version.named not in (LAST, BEST):
            raise InvalidRequest([("version.named", "must be NAMED_VERSION_LAST or NAMED_VERSION_BEST")])
        if which == "step":
            return await self._of_step(job, version.step)
        return await (self._best(job) if which == "named" and version.named == BEST else self._last(job))

    async def listed(self, job: Job) -> api.ListCheckpointsResponse:
        """Everything that `find` finds."""
        kept = await self._kept(job)
        response = api.ListCheckpointsResponse(job_id=job.job_id)
        for each in kept:
            added = response.checkpoints.add(
                step=each.step, validation_loss=each.validation_loss, size_bytes=each.size_bytes
            )
            added.time.FromMilliseconds(int(each.time_s * 1000))
        last, best = self._last_step(job, kept), await self._best_step(job, kept)
        if last:
            response.last_step = last
        if best:
            response.best_step = best
        return response

    async def _last(self, job: Job) -> Source:
        if job.model_path is not None:
            return _of_file(job.model_path)
        if job.is_final:
            raise WrongState(f"job {job.job_id} made no step, so there is no model of it")
        training, prepared = job.training, job.prepared
        if training is None or prepared is None:
            kept = await self._kept(job)
            if kept:
                return await self._of_checkpoint(job, kept[-1].step)
        elif training.state.step:
            return self._of_copy(job, TrainedModel.of(prepared, training.state, step=training.parameters_step))
        raise WrongState(f"job {job.job_id} has made no step yet; wait for it ('chainrule watch {job.job_id}')")

    async def _best(self, job: Job) -> Source:
        training, prepared = job.training, job.prepared
        if not job.is_final and training is not None and prepared is not None and training.best is not None:
            # Exchanged for others at an epoch's end, and never changed: no copy is needed.
            best = _trained(prepared, training.best, training.best_step)
            return self._of_copy(job, best)
        kept = await self._kept(job)
        step = await self._best_step(job, kept)
        if not step:
            raise WrongState(
                f"job {job.job_id}: no validation loss is known of any parameters that are kept; take the last ones"
            )
        if step not in {each.step for each in kept} and not _is_result(job, step):
            return await self._of_checkpoint(job, kept[-1].step, takes_best=True)
        return await self._of_step(job, step)

    async def _of_step(self, job: Job, step: int) -> Source:
        training, prepared = job.training, job.prepared
        if _is_result(job, step) and job.model_path is not None:
            return _of_file(job.model_path)
        if not job.is_final and training is not None and prepared is not None:
            if training.state.step and step == training.parameters_step:
                return self._of_copy(job, TrainedModel.of(prepared, training.state, step=step))
            if training.best is not None and step == training.best_step:
                return self._of_copy(job, _trained(prepared, training.best, step))
        kept = await self._kept(job)
        if step in {each.step for each in kept}:
            return await self._of_checkpoint(job, step)
        steps = sorted({each.step for each in kept} | {each for each in [self._last_step(job, kept)] if each})
        there = f"there are those of {', '.join(map(str, steps))}" if steps else "there are none yet"
        raise NotFound(f"job {job.job_id} has no parameters of step {step}; {there}")

    async def _of_checkpoint(self, job: Job, step: int, *, takes_best: bool = False) -> Source:
        """The parameters of a checkpoint that is kept, or of the best epoch that it knows."""
        folder, path = self.archive.checkpoints(job), job.model_path
        if folder is None:
            raise TypeError("this server writes no checkpoints")
        # An ended job's model file knows all that is needed besides, without the rows.
        prepared = job.prepared if job.prepared is not None or path is not None else await self.archive.with_rows(job)

        def read() -> TrainedModel:
            try:
                found = folder.read(step, spec_sha256=spec_sha256(job.spec))
            except DamagedCheckpoint as error:
                raise DamagedFile(f"job {job.job_id}: the checkpoint of step {step} is damaged: {error}") from error
            except FileNotFoundError:
                raise NotFound(f"job {job.job_id}: the checkpoint of step {step} is not kept any more") from None
            except OSError as error:
                raise DamagedFile(f"job {job.job_id}: the checkpoint of step {step} can't be read: {error}") from error
            vectors, of_step = (found.parameters, found.statistics), step
            if takes_best and found.best is not None:
                vectors, of_step = found.best, (found.stopping.best_epoch or 0) * _steps_per_epoch(job)
            known = prepared if prepared is not None or path is None else read_model(path)
            if known is None:
                raise TypeError("neither rows nor a model file")
            return _trained(known, vectors, of_step)

        def content() -> mmap.mmap:
            trained = read()
            written_s = next((each.time_s for each in folder.kept() if each.step == step), time.time())
            return self._laid_down(trained, Provenance(job.job_id, job.data_sha256, written_s, job.worker_kinds))

        return Source(read, content)

    def _of_copy(self, job: Job, trained: TrainedModel) -> Source:
        provenance = Provenance(job.job_id, job.data_sha256, time.time(), job.worker_kinds)
        return Source(lambda: trained, lambda: self._laid_down(trained, provenance))

    def _laid_down(self, trained: TrainedModel, provenance: Provenance) -> mmap.mmap:
        """A model that is in no file, in one without a name. Raises StorageFull."""
        try:
            # Without a name it is gone with its last reader, also where the server is killed.
            with tempfile.TemporaryFile(dir=self.archive.models_folder) as file:
                file.write(encode(trained, provenance))
                file.flush()
                return _mapped(file)
        except OSError as error:
            raise StorageFull(f"the model of job {provenance.job_id} can't be laid down: {error.strerror}") from error

    async def _kept(self, job: Job) -> list[KeptCheckpoint]:
        folder = self.archive.checkpoints(job)
        return [] if folder is None else await asyncio.to_thread(folder.kept)

    def _last_step(self, job: Job, kept: list[KeptCheckpoint]) -> int:
        """The step of the last parameters; 0 without any."""
        if job.model_path is not None:
            return _result_step(job)
        if job.is_final:
            return 0
        if job.training is not None and job.prepared is not None:
            return job.training.parameters_step
        return kept[-1].step if kept else 0

    async def _best_step(self, job: Job, kept: list[KeptCheckpoint]) -> int:
        """The step of the best parameters; 0 where no validation loss is known."""
        if job.spec.training.HasField("early_stopping"):
            if job.state == job_pb2.JOB_STATE_SUCCEEDED:
                return _result_step(job)
            if not job.is_final and job.training is not None and job.prepared is not None:
                return job.training.best_step
            if kept:
                last = await asyncio.to_thread(self._read, job, kept[-1].step)
                return 0 if last is None else (last.stopping.best_epoch or 0) * _steps_per_epoch(job)
            return 0
        losses = {each.step: each.validation_loss for each in kept if each.validation_loss is not None}
        if job.model_path is not None and job.result is not None and job.result.HasField("validation_loss"):
            losses[_result_step(job)] = job.result.validation_loss
        return min(losses, key=lambda step: (losses[step], -step), default=0)

    def _read(self, job: Job, step: int) -> Checkpoint | None:
        folder = self.archive.checkpoints(job)
        try:
            return None if folder is None else folder.read(step, spec_sha256=spec_sha256(job.spec))
        except (DamagedCheckpoint, OSError):
            return None


def _of_file(path: Path) -> Source:
    def content() -> mmap.mmap:
        # A damaged file is refused, and not handed on.
        read_model(path)
        with path.open("rb") as file:
            return _mapped(file)

    return Source(lambda: read_model(path), content)


def _mapped(file: IO[bytes]) -> mmap.mmap:
    # Not read: whoever is slow to take a model, or never does, holds none of the server's memory.
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _trained(known: PreparedJob | TrainedModel, vectors: tuple[Vector, NDArray[np.float64]], step: int) -> TrainedModel:
    """vectors: parameters and running statistics."""
    return TrainedModel(known.spec, known.model, known.preprocessing, *vectors, step)


def _steps_per_epoch(job: Job) -> int:
    return job.progress.total_steps // job.spec.training.epochs


def _result_step(job: Job) -> int:
    """The step after which the parameters of an ended job's model were these."""
    best_epoch = job.result.best_epoch if job.result is not None else 0
    return best_epoch * _steps_per_epoch(job) if best_epoch else job.progress.step


def _is_result(job: Job, step: int) -> bool:
    return job.model_path is not None and step == _result_step(job)
