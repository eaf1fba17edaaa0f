"""A trained model as a safetensors file: parameters by name, and all that predict needs as metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from google.protobuf import json_format
from safetensors.numpy import save

from chainrule.version import installed_version
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.spec_check import spec_sha256


@dataclass(frozen=True)
class Provenance:
    """Where parameters come from. data_sha256: of the prepared rows; empty where it isn't known. time_s: Unix seconds,
    when the parameters were these. worker_kinds: what computed them."""

    job_id: str
    data_sha256: str
    time_s: float
    worker_kinds: tuple[str, ...] = ()


def encode(trained: TrainedModel, provenance: Provenance) -> bytes:
    """The file's content: the parameters in float32, and running statistics of batch normalization in float64."""
    model = trained.model
    views = model.layout.views(trained.parameters) | model.statistics.views(trained.statistics)
    tensors = {name: np.asarray(view, order="C") for name, view in views.items()}
    metadata = {
        "format": "chainrule-model-1",
        "chainrule_version": installed_version(),
        "job": provenance.job_id,
        "step": str(trained.step),
        "time": datetime.fromtimestamp(provenance.time_s, UTC).isoformat(timespec="milliseconds"),
        "prediction": trained.spec.model.prediction,
        "loss": trained.spec.model.loss,
        "spec": json_format.MessageToJson(trained.spec, preserving_proto_field_name=True, indent=None),
        "spec_sha256": spec_sha256(trained.spec),
        "data_sha256": provenance.data_sha256,
        "worker_kinds": json.dumps(provenance.worker_kinds) if provenance.worker_kinds else "",
        "preprocessing": trained.preprocessing.to_json(),
        # safetensors sorts its tensors; the vector and its hash follow this order.
        "parameter_order": ",".join(parameter.name for parameter in model.layout.parameters),
        "parameters_sha256": trained.sha256,
    }
    # What isn't known, or a job doesn't have, isn't there.
    return save(tensors, {name: value for name, value in metadata.items() if value})
