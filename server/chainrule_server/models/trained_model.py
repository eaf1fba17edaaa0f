"""A model that can be computed: of a file, without its job's data, or of a job that runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from chainrule.bridge.model_of_spec import build_model
from chainrule.cells.texts import CellRules
from chainrule.v1 import job_pb2
from chainrule_engine.errors import EngineError
from chainrule_engine.model import Model
from chainrule_engine.parameters import ParameterLayout, Vector, sha256_of
from chainrule_engine.synchronous_sgd import ParameterState
from chainrule_server.data.column_choice import cell_rules
from chainrule_server.errors import DamagedFile, NotFound
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.preprocessing import Preprocessing


@dataclass(frozen=True)
class TrainedModel:
    """spec: complete. parameters: (model.layout.size,) float32. statistics: (model.statistics.size,) float64.

    step: the parameters are those after it."""

    spec: job_pb2.JobSpec
    model: Model
    preprocessing: Preprocessing
    parameters: Vector
    statistics: NDArray[np.float64]
    step: int

    @classmethod
    def of(cls, job: PreparedJob, state: ParameterState, *, step: int | None = None) -> TrainedModel:
        """The current parameters of a job, copied. step: where they are not those of the state's last."""
        parameters, statistics = state.parameters.copy(), state.statistics.copy()
        step = state.step if step is None else step
        return cls(job.spec, job.model, job.preprocessing, parameters, statistics, step)

    @property
    def cell_rules(self) -> CellRules:
        """How a cell of a table is read, as in training."""
        return cell_rules(self.spec.data)

    @property
    def sha256(self) -> str:
        """The SHA-256, in hexadecimal, of all that was trained."""
        return sha256_of(self.parameters, *([self.statistics] if self.statistics.size else []))


def read_model(path: Path) -> TrainedModel:
    """The model of a file that chainrule_server.models.model_file wrote.

    Raises DamagedFile where it isn't what was written, NotFound where it isn't there."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            preprocessing = Preprocessing.from_json(metadata["preprocessing"])
            spec = json_format.Parse(metadata["spec"], job_pb2.JobSpec())
            model = build_model(spec, feature_count=preprocessing.width, class_count=preprocessing.class_count)
            parameters = _read(file, model.layout, np.dtype(np.float32))
            statistics = _read(file, model.statistics, np.dtype(np.float64))
        trained = TrainedModel(spec, model, preprocessing, parameters, statistics, int(metadata["step"]))
        if trained.sha256 != metadata["parameters_sha256"]:
            raise DamagedFile(f"the model file {path.name} is damaged: the hash of its parameters is another one")
        return trained
    except FileNotFoundError:
        raise NotFound(f"the model file {path.name} is gone; was its job deleted?") from None
    except (OSError, SafetensorError, EngineError, json_format.ParseError, KeyError, ValueError, TypeError) as error:
        raise DamagedFile(f"the model file {path.name} can't be read: {error}") from error


def _read(file: Any, layout: ParameterLayout, dtype: np.dtype[Any]) -> NDArray[Any]:
    vector = np.empty(layout.size, dtype)
    for name, view in layout.views(vector).items():
        value = file.get_tensor(name)
        if value.dtype != dtype or value.shape != view.shape:
            raise ValueError(f"{name} is {value.dtype} of shape {value.shape}")
        view[...] = value
    return vector
