"""A job's checkpoints: the last few and the best are kept, a damaged one is set aside and the one before it used."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from chainrule.process.logs import log_event
from chainrule_server.storage import checkpoint as checkpoint_file
from chainrule_server.storage import durable_file
from chainrule_server.storage.checkpoint import Checkpoint, DamagedCheckpoint

log = logging.getLogger(__name__)
# One more than is needed, for the case that the last is damaged.
KEPT_LAST = 2
SUFFIX = ".safetensors"
DAMAGED_SUFFIX = ".damaged"


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint's file. validation_loss: None where none is known. time_s: Unix seconds, when it was written."""

    step: int
    validation_loss: float | None
    time_s: float
    size_bytes: int


@dataclass
class CheckpointFolder:
    """The folder of one job, which is made by the first checkpoint. All methods block on the disk."""

    path: Path
    # At least 1. The best is kept besides.
    kept_last: int = KEPT_LAST
    # By step: the last validation loss that was known, infinity without one.
    _losses: dict[int, float] = field(default_factory=dict)

    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, ascending."""
        names = [path.name.removesuffix(SUFFIX) for path in self.path.glob(f"*{SUFFIX}")]
        return sorted(int(name) for name in names if name.isdigit())

    def kept(self) -> list[KeptCheckpoint]:
        """What there is, by step, unchecked. Raises OSError."""
        found = []
        for step in self.steps():
            # One that is removed meanwhile isn't kept.
            with contextlib.suppress(FileNotFoundError):
                loss, status = checkpoint_file.read_validation_loss(self._file(step)), self._file(step).stat()
                found.append(KeptCheckpoint(step, loss, status.st_mtime, status.st_size))
        return found

    def read(self, step: int, *, spec_sha256: str) -> Checkpoint:
        """The checkpoint of a step. Raises DamagedCheckpoint, also where it is of another spec, and OSError."""
        found = checkpoint_file.read(self._file(step))
        if (found.step, found.spec_sha256) != (step, spec_sha256):
            raise DamagedCheckpoint(f"it is of step {found.step} of a job with the spec {found.spec_sha256}")
        return found

    def write(self, checkpoint: Checkpoint) -> int:
        """Write a checkpoint and remove those that need not be kept; its size in bytes. Raises OSError."""
        path = self._file(checkpoint.step)
        durable_file.write_by(path, lambda temporary: checkpoint_file.write(checkpoint, temporary))
        self._note_loss(checkpoint.step, checkpoint.validation_loss)
        self._prune()
        return path.stat().st_size

    def latest(self, *, spec_sha256: str) -> tuple[Checkpoint | None, list[tuple[str, str]]]:
        """The last checkpoint that is sound, and (new name, reason) of each that isn't and was set aside.

        spec_sha256: a checkpoint of another spec is as bad as a damaged one. Raises OSError."""
        damaged = []
        for step in reversed(self.steps()):
            path = self._file(step)
            try:
                found = self.read(step, spec_sha256=spec_sha256)
            except DamagedCheckpoint as error:
                aside = path.with_name(path.name + DAMAGED_SUFFIX)
                path.replace(aside)
                extra = log_event("checkpoint_damaged", job=self.path.name, step=step)
                log.warning("the checkpoint %s is damaged and was set aside: %s", path, error, extra=extra)
                damaged.append((aside.name, str(error)))
            else:
                return found, damaged
        return None, damaged

    def remove(self) -> None:
        """Remove the folder with all that is in it. Raises OSError."""
        if self.path.exists():
            shutil.rmtree(self.path)

    def _file(self, step: int) -> Path:
        return self.path / f"{step:012d}{SUFFIX}"

    def _note_loss(self, step: int, loss: float | None) -> None:
        self._losses[step] = math.inf if loss is None or math.isnan(loss) else loss

    def _prune(self) -> None:
        steps = self.steps()
        for step in steps:
            if step not in self._losses:
                self._note_loss(step, checkpoint_file.read_validation_loss(self._file(step)))
        kept = {*steps[-self.kept_last :], min(steps, key=lambda step: (self._losses[step], -step))}
        for step in steps:
            if step not in kept:
                self._file(step).unlink(missing_ok=True)
                del self._losses[step]
