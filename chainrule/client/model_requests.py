"""The requests for a job's model, and its versions: what no client writes a second time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from chainrule.cells.values import Value, add_row
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import model_pb2
from chainrule.v1 import model_service_pb2 as model_api

# Of a model: the parameters after a step, of the best epoch, or the last.
Version = int | Literal["best", "last"]
NAMED_VERSIONS = {"best": model_pb2.NAMED_VERSION_BEST, "last": model_pb2.NAMED_VERSION_LAST}


def predict_request(
    job_id: str,
    rows: Sequence[Sequence[Value]],
    columns: Sequence[str] = (),
    version: Version | None = None,
    *,
    strict: bool = False,
) -> model_api.PredictRequest:
    """The request of `Client.predict`."""
    request = model_api.PredictRequest(job_id=job_id, columns=columns, strict=strict)
    for row in rows:
        add_row(request.rows.add(), row)
    set_version(request, version)
    return request


def explain_request_of(
    job_id: str, row: int | None, shard: int | None, max_values: int | None, version: Version | None
) -> model_api.ExplainRequest:
    """The request of `Client.explain`."""
    request = model_api.ExplainRequest(job_id=job_id, row=row, shard=shard, max_values=max_values)
    set_version(request, version)
    return request


def set_version(
    request: api.DownloadModelRequest
    | model_api.PredictRequest
    | model_api.ExplainRequest
    | model_api.ExplainReductionRequest,
    version: Version | None,
) -> None:
    """Say which version of a model is meant; None: the one that the call takes where none is given."""
    if isinstance(version, int):
        request.version.step = version
    elif version is not None:
        request.version.named = NAMED_VERSIONS[version]
