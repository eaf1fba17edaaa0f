"""From a training to its checkpoint and back, to the same bits; and whether the data are still the same."""

from __future__ import annotations

from chainrule_engine.precision import FLOAT32
from chainrule_server.storage.checkpoint import Checkpoint
from chainrule_server.training.training import Training


class DataChanged(Exception):
    """The rows that a job's spec names are others than when the job was created."""


def capture(training: Training, *, spec_sha256: str, data_sha256: str) -> Checkpoint:
    """A copy of all that the next step needs; call it between two steps."""
    state, progress = training.state, training.progress
    return Checkpoint(
        job_id=training.job_id,
        step=state.step,
        parameters=state.parameters.copy(),
        optimizer={name: vector.copy() for name, vector in state.state.items()},
        statistics=state.statistics.copy(),
        plateau=state.plateau,
        stopping=training.stopping,
        # Written once and then only exchanged for others: no copy is needed.
        best=training.best,
        published=None if training.job.precision is FLOAT32 else training.published.current.copy(),
        spec_sha256=spec_sha256,
        data_sha256=data_sha256,
        epoch=progress.epoch,
        loss=progress.loss,
        validation_loss=progress.validation_loss if progress.HasField("validation_loss") else None,
        trained_s=training.trained_s,
        worker_kinds=training.roster.kinds,
    )


def restore(training: Training, checkpoint: Checkpoint) -> None:
    """Put a training that has not begun to where it was when the checkpoint was taken."""
    state, progress = training.state, training.progress
    state.parameters[...] = checkpoint.parameters
    for name, vector in state.state.items():
        vector[...] = checkpoint.optimizer[name]
    state.statistics = checkpoint.statistics.copy()
    state.plateau = checkpoint.plateau
    state.step = checkpoint.step
    if checkpoint.published is not None:
        training.published.restore(checkpoint.published)
    training.stopping, training.best = checkpoint.stopping, checkpoint.best
    training.trained_before_s = checkpoint.trained_s
    training.roster.resume(checkpoint.worker_kinds, step=checkpoint.step)
    progress.step, progress.epoch, progress.loss = checkpoint.step, checkpoint.epoch, checkpoint.loss
    if checkpoint.validation_loss is not None:
        progress.validation_loss = checkpoint.validation_loss
