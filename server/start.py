"""The parameters that a job starts from: another job's, or a safetensors file's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from chainrule.text import shortened_list
from chainrule.v1 import job_pb2
from engine.model import Model
from engine.parameters import Parameter
from server.data_root import DataFileError, open_below

MAX_FILE_BYTES = 4 << 30


class StartError(ValueError):
    """A start that can't be made. field: the path in the job's spec that is wrong."""

    def __init__(self, message: str, *, field: str = "model.start") -> None:
        self.field = field
        super().__init__(message)


@dataclass(frozen=True)
class Start:
    """What is taken of a file. content: all of the file, to be kept with the job. names: the parameters that are taken.

    takes_statistics: whether batch_norm's running statistics are, too."""

    content: bytes
    names: tuple[str, ...]
    takes_statistics: bool

    def fill(self, model: Model, parameters: NDArray[np.float32], statistics: NDArray[np.float64]) -> None:
        """Write what is taken into the model's vectors."""
        tensors = load(self.content)
        views = model.layout.views(parameters)
        for name in self.names:
            views[name][...] = tensors[name]
        if self.takes_statistics:
            for name, view in model.statistics.views(statistics).items():
                view[...] = tensors[name]


def read_start(spec: job_pb2.ModelStart, model: Model, *, data_root: Path | None, path: Path | None) -> Start:
    """The start that a spec names; its `sha256` is filled in.

    path: the file, where it is known already; else it is looked up below data_root. Raises StartError."""
    content = _content(spec, data_root=data_root, path=path)
    digest = hashlib.sha256(content).hexdigest()
    if spec.sha256 and spec.sha256 != digest:
        raise StartError(f"the file has the SHA-256 {digest}, not this one", field="model.start.sha256")
    spec.sha256 = digest
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StartError(f"is no safetensors file that can be read: {error}", field=_field(spec)) from None
    names = _names(spec, model, tensors)
    for name in names:
        _check(model, name, tensors[name], by_name=bool(spec.parameters))
    statistics = model.statistics.parameters
    takes_statistics = not spec.parameters and bool(statistics) and all(_fits(each, tensors) for each in statistics)
    return Start(content, names, takes_statistics)


def _content(spec: job_pb2.ModelStart, *, data_root: Path | None, path: Path | None) -> bytes:
    if path is not None:
        try:
            with path.open("rb") as file:
                return _read(file, _field(spec))
        except OSError as error:
            raise StartError(f"its file can't be read: {error.strerror}", field=_field(spec)) from None
    match spec.WhichOneof("source"):
        case "model":
            try:
                with open_below(data_root, spec.model) as file:
                    return _read(file, "model.start.model")
            except DataFileError as error:
                raise StartError(str(error), field="model.start.model") from None
        case "job":
            message = "there is no server here whose job it is; 'chainrule download' its model, and name the file"
            raise StartError(f"{message} (model.start.model)", field="model.start.job")
    raise StartError("needs a job or a model; name the one to start from")


def _read(file: BinaryIO, field: str) -> bytes:
    content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise StartError(f"is larger than {MAX_FILE_BYTES} bytes, the most that a job can start from", field=field)
    return content


def _names(spec: job_pb2.ModelStart, model: Model, tensors: dict[str, NDArray[Any]]) -> tuple[str, ...]:
    own = [parameter.name for parameter in model.layout.parameters]
    found = shortened_list(sorted(tensors)) or "nothing"
    for number, name in enumerate(spec.parameters):
        field = f"model.start.parameters[{number}]"
        if name not in own:
            raise StartError(f"the model has no parameter {name!r:.80}; it has {shortened_list(own)}", field=field)
        if name not in tensors:
            raise StartError(f"there is no {name!r:.80} in what it starts from, which holds {found}", field=field)
    names = tuple(name for name in own if name in (spec.parameters or tensors))
    if not names:
        raise StartError(f"holds none of the parameters {shortened_list(own)}, but {found}", field=_field(spec))
    return names


def _check(model: Model, name: str, values: NDArray[Any], *, by_name: bool) -> None:
    parameter = next(each for each in model.layout.parameters if each.name == name)
    field = f"model.parameters.{name}"
    if values.shape != parameter.shape:
        hint = (
            "give it that shape" if by_name else "give it that shape, or name those to take in model.start.parameters"
        )
        raise StartError(f"has shape {parameter.shape}, but {values.shape} in what it starts from; {hint}", field=field)
    if values.dtype.kind != "f":
        raise StartError(f"is of {values.dtype} in what it starts from, which is no type of numbers here", field=field)
    with np.errstate(over="ignore"):
        is_finite = bool(np.isfinite(values.astype(np.float32)).all())
    if not is_finite:
        raise StartError("has NaN, infinity or what float32 can't hold in what it starts from", field=field)


def _fits(parameter: Parameter, tensors: dict[str, NDArray[Any]]) -> bool:
    values = tensors.get(parameter.name)
    return values is not None and values.shape == parameter.shape and bool(np.isfinite(values).all())


def _field(spec: job_pb2.ModelStart) -> str:
    return f"model.start.{spec.WhichOneof('source')}"
