"""A trained model as a safetensors file: parameters by name, and all that predict needs as metadata."""

from __future__ import annotations

import numpy as np
from google.protobuf import json_format
from safetensors.numpy import save

from engine.synchronous_sgd import ParameterState
from server.prepared_job import PreparedJob


def encode(job: PreparedJob, *, job_id: str, state: ParameterState) -> bytes:
    """The file's content: the parameters in float32, and running statistics of batch normalization in float64."""
    views = job.model.layout.views(state.parameters) | job.model.statistics.views(state.statistics)
    tensors = {name: np.asarray(view, order="C") for name, view in views.items()}
    metadata = {
        "format": "chainrule-model-1",
        "job": job_id,
        "step": str(state.step),
        "spec": json_format.MessageToJson(job.spec, preserving_proto_field_name=True, indent=None),
        "preprocessing": job.preprocessing.to_json(),
        # safetensors sorts its tensors; the vector and its hash follow this order.
        "parameter_order": ",".join(parameter.name for parameter in job.model.layout.parameters),
        "parameters_sha256": state.sha256,
    }
    return save(tensors, metadata)
