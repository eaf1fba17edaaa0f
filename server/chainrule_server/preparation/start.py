"""The parameters that a job starts from: another job's, or a safetensors file's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from chainrule.text import shortened_list
from chainrule.v1 import job_pb2
from chainrule_engine.model import Model
from chainrule_engine.parameters import Parameter
from chainrule_server.preparation.start_file import StartError, StartFile


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


def read_start(spec: job_pb2.ModelStart, model: Model, file: StartFile) -> Start:
    """What a spec takes of a file's parameters. Raises StartError."""
    try:
        tensors = load(file.content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StartError(f"is no safetensors file that can be read: {error}", field=file.field) from None
    names = _names(spec, model, tensors, file.field)
    for name in names:
        _check(model, name, tensors[name], by_name=bool(spec.parameters))
    statistics = model.statistics.parameters
    takes_statistics = not spec.parameters and bool(statistics) and all(_fits(each, tensors) for each in statistics)
    return Start(file.content, names, takes_statistics)


def _names(spec: job_pb2.ModelStart, model: Model, tensors: dict[str, NDArray[Any]], where: str) -> tuple[str, ...]:
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
        raise StartError(f"holds none of the parameters {shortened_list(own)}, but {found}", field=where)
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
