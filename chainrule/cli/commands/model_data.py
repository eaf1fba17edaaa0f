"""What a model file says of the data that it was trained with, without the engine."""

from __future__ import annotations

import json
from pathlib import Path

from chainrule.v1 import job_pb2


def data_of(model_file: Path) -> job_pb2.DataSpec:
    """The `data` of a model file's job; `features` are those that the model takes, as far as the file says so.

    Nothing where it can't be read: whoever predicts with it says what is wrong with the file."""
    from google.protobuf import json_format
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(model_file, framework="numpy") as file:
            metadata = file.metadata() or {}
        spec = json.loads(metadata["spec"])
        data = json_format.ParseDict(spec.get("data", {}), job_pb2.DataSpec(), ignore_unknown_fields=True)
        names = [str(each["name"]) for each in json.loads(metadata["preprocessing"])["features"]]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, json_format.ParseError):
        return job_pb2.DataSpec()
    data.features[:] = names
    return data
