"""One checkpoint: all that the next step needs, as a safetensors file whose content is held by a hash.

A file that isn't what was written, in any bit, is refused: `decode` never gives half a truth.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from chainrule_engine.early_stopping import EarlyStoppingState
from chainrule_engine.parameters import Vector
from chainrule_engine.schedules import PlateauState

FORMAT = "chainrule-checkpoint-1"
_STATE = "optimizer."


class DamagedCheckpoint(ValueError):
    """A file that isn't a checkpoint as it was written; the message says in what."""


@dataclass(frozen=True)
class Checkpoint:
    """A job after `step`, with nothing of the step after it. Vectors: (n,) float32; statistics: float64.

    spec_sha256, data_sha256: of the complete spec and of the prepared rows. best: the parameters and statistics that
    early stopping would go back to. published: what workers held, where the job's precision rounds that. trained_s: the
    time from the first step on, without pauses between servers. worker_kinds: what has computed for the job."""

    job_id: str
    step: int
    parameters: Vector
    optimizer: Mapping[str, Vector]
    statistics: NDArray[np.float64]
    plateau: PlateauState
    stopping: EarlyStoppingState
    best: tuple[Vector, NDArray[np.float64]] | None
    published: Vector | None
    spec_sha256: str
    data_sha256: str
    epoch: int = 0
    loss: float = 0.0
    validation_loss: float | None = None
    trained_s: float = 0.0
    worker_kinds: tuple[str, ...] = ()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Every array by its name in the file."""
        tensors: dict[str, NDArray[Any]] = {"parameters": self.parameters, "statistics": self.statistics}
        tensors |= {_STATE + name: vector for name, vector in self.optimizer.items()}
        if self.published is not None:
            tensors["published"] = self.published
        if self.best is not None:
            tensors["best.parameters"], tensors["best.statistics"] = self.best
        return tensors


@dataclass(frozen=True)
class _Numbers:
    """What a checkpoint holds besides arrays, in JSON, which holds float64 exactly."""

    job_id: str
    step: int
    epoch: int
    loss: float
    validation_loss: float | None
    trained_s: float
    spec_sha256: str
    data_sha256: str
    worker_kinds: Sequence[str] = ()
    plateau: dict[str, Any] = field(default_factory=dict)
    stopping: dict[str, Any] = field(default_factory=dict)


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint to a file of that name. Raises OSError."""
    numbers = json.dumps(
        dataclasses.asdict(
            _Numbers(
                **{name: getattr(checkpoint, name) for name in _SHARED},
                plateau=dataclasses.asdict(checkpoint.plateau),
                stopping=dataclasses.asdict(checkpoint.stopping),
            )
        ),
        sort_keys=True,
    )
    tensors = checkpoint.tensors()
    metadata = {"format": FORMAT, "numbers": numbers, "sha256": _content_sha256(numbers, tensors)}
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        # It has no number of its own for a full disk; the text names it.
        raise OSError(str(error)) from error


def read(path: Path) -> Checkpoint:
    """The checkpoint of a file. Raises DamagedCheckpoint where it isn't what was written, OSError without the file."""
    path.open("rb").close()
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, ValueError) as error:
        raise DamagedCheckpoint(f"it is no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise DamagedCheckpoint(f"its format is {metadata.get('format', 'unnamed')!r}, not {FORMAT!r}")
    numbers = metadata.get("numbers", "")
    if metadata.get("sha256") != _content_sha256(numbers, tensors):
        raise DamagedCheckpoint("its content doesn't have the SHA-256 that it was written with")
    try:
        return _checkpoint(_Numbers(**json.loads(numbers)), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"another version of chainrule wrote it: {error}") from error


def _checkpoint(known: _Numbers, tensors: Mapping[str, NDArray[Any]]) -> Checkpoint:
    best = None
    if "best.parameters" in tensors:
        best = tensors["best.parameters"], tensors["best.statistics"]
    return Checkpoint(
        **{name: getattr(known, name) for name in _SHARED},
        parameters=tensors["parameters"],
        optimizer={name.removeprefix(_STATE): vector for name, vector in tensors.items() if name.startswith(_STATE)},
        statistics=tensors["statistics"],
        plateau=PlateauState(**known.plateau),
        stopping=EarlyStoppingState(**known.stopping),
        best=best,
        published=tensors.get("published"),
    )


def read_validation_loss(path: Path) -> float | None:
    """The validation loss in a checkpoint, unchecked; None without one, or where it can't be read. Raises OSError."""
    path.open("rb").close()
    try:
        with safe_open(path, framework="numpy") as file:
            loss = json.loads((file.metadata() or {})["numbers"])["validation_loss"]
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
    return loss if isinstance(loss, float) else None


_SHARED = tuple(each.name for each in dataclasses.fields(_Numbers) if each.name not in ("plateau", "stopping"))


def _content_sha256(numbers: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    """Of the numbers and, by name, of every array with its type and shape."""
    digest = hashlib.sha256(numbers.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()
