# Generated from chainrule/client/aio/model.py by tools/generate_blocking_client.py: change it there.
"""A job's model for people: predictions for arrays and data frames, explanations, and the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.blocking.client import Client
from chainrule.client.explanation import Explanation, explain_request, explanation_title
from chainrule.client.rows import batches, outputs_of, predictions_of, rows_of
from chainrule.client.unknown_categories import warn_of_unknown
from chainrule.v1 import model_service_pb2 as api


class Model:
    """The model of a job: that of its end, or while it runs its current parameters. All methods ask the server."""

    def __init__(self, client: Client, job_id: str, name: str) -> None:
        self.job_id = job_id
        self.name = name
        self._client = client

    def __repr__(self) -> str:
        return f"<Model of job {self.job_id} ({self.name}) at {self._client.address}>"

    def predict(self, data: Any, *, strict: bool = False) -> NDArray[Any]:
        """A prediction for each row: numbers in the target's own unit, names of classes, or what the formula gives.

        data: raw features, not standardized: an array, a list of rows, a dict of columns, a data frame of pandas or
        polars, or a table of Arrow; columns are found by their names. A category that no training row had is an
        UnknownCategoryWarning, and with `strict` refused. Raises RowsError, InvalidJob with every wrong value, and
        PreconditionFailed where there is no model."""
        return predictions_of(self._predict(data, strict=strict))

    def outputs(self, data: Any, *, strict: bool = False) -> NDArray[np.float64]:
        """What the formula gives for each row, before anything is scaled back. data, errors: as in `predict`."""
        return outputs_of(self._predict(data, strict=strict))

    def explain(self, x: Any, y: Any = None) -> Explanation:
        """Every node's forward and backward value for one example; in a notebook it is drawn.

        x: the number of a row of the job's data; or, with the target y, an example's features: by their names, or in
        the model's order where they have none.
        Raises RowsError, InvalidJob, PreconditionFailed without a model."""
        answer = self._client.explain_example(explain_request(self.job_id, x, y))
        warn_of_unknown([answer], level=2)
        return Explanation(answer, explanation_title(self.name, answer))

    def save(self, path: str | Path) -> Path:
        """Write the model to a safetensors file, whole or not at all. Raises PreconditionFailed, ModelFileError."""
        return self._client.download_model(self.job_id, path)

    def _predict(self, data: Any, *, strict: bool) -> list[api.PredictResponse]:
        rows, columns = rows_of(data)
        answers = [self._client.predict(self.job_id, batch, columns, strict=strict) for batch in batches(rows)]
        warn_of_unknown(answers, level=3)
        return answers
