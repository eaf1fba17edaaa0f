"""A model file as exports read it: the formula, the arrays, and what raw features become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from numpy.typing import NDArray

from chainrule.errors import ModelFileError
from chainrule.v1 import job_pb2

if TYPE_CHECKING:
    from chainrule_engine.model import Model

PREPROCESSING_FORMAT = "chainrule-preprocessing-1"


@dataclass(frozen=True)
class ModelFile:
    """What a file holds. arrays: parameters (float32) and running statistics (float64) by name.

    metadata: all of it, text. preprocessing: its JSON; see `chainrule_server.preparation.preprocessing`."""

    model: Model
    spec: job_pb2.JobSpec
    arrays: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, str]
    preprocessing: dict[str, Any]

    @property
    def title(self) -> str:
        """The job's name, and where the parameters come from."""
        return f"{self.spec.name} ({self.metadata.get('job', 'no job')}): parameters of step {self.metadata['step']}"


def read_model_file(path: str | Path) -> ModelFile:
    """The model of a safetensors file that a server gave. Raises ModelFileError."""
    from safetensors import SafetensorError, safe_open

    from chainrule.bridge.model_of_spec import build_model
    from chainrule_engine.errors import EngineError

    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        preprocessing = json.loads(metadata["preprocessing"])
        if preprocessing["format"] != PREPROCESSING_FORMAT:
            raise ValueError(f"its preprocessing is of the form {preprocessing['format']!r}")
        spec = json_format.Parse(metadata["spec"], job_pb2.JobSpec())
        target = preprocessing["target"]
        class_count = len(target["classes"]) if target["classes"] and target["labels"] is None else 0
        width = sum(len(each.get("categories", ("",))) for each in preprocessing["features"])
        model = build_model(spec, feature_count=width, class_count=class_count)
        for each in (*model.layout.parameters, *model.statistics.parameters):
            if arrays[each.name].shape != each.shape:
                raise ValueError(f"{each.name} has shape {arrays[each.name].shape}, not {each.shape}")
    except FileNotFoundError:
        raise ModelFileError(f"{path}: there is no such file") from None
    except (OSError, SafetensorError, EngineError, json_format.ParseError, KeyError, ValueError, TypeError) as error:
        raise ModelFileError(f"{path} is no model file of chainrule that can be read: {error}") from None
    return ModelFile(model, spec, arrays, metadata, preprocessing)
