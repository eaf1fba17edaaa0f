"""Predictions for rows of raw features: from the request's values to the target's own unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chainrule.v1 import model_service_pb2 as api
from chainrule_engine.plan import PredictionPlan
from chainrule_server.errors import InvalidRequest, WrongState
from chainrule_server.models.cancellation import Stop
from chainrule_server.models.raw_rows import read_features
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.preprocessing import Preprocessing

MAX_ROWS = 10_000


def predict(trained: TrainedModel, request: api.PredictRequest, stop: Stop) -> api.PredictResponse:
    """The predictions, without the job's id.

    Raises InvalidRequest with every wrong value, WrongState without a prediction formula, Stopped."""
    prediction = trained.model.prediction
    if prediction is None:
        raise WrongState("the job has a loss and no prediction; give it model.prediction and train it again")
    if any(node.name != "x" for node in prediction.inputs):
        raise WrongState("the prediction uses y, the target itself; give the job one that needs only x")
    row_count = len(request.rows)
    if not row_count:
        raise InvalidRequest([("rows", "is missing; give at least one row")])
    if row_count > MAX_ROWS:
        raise InvalidRequest([("rows", f"must be at most {MAX_ROWS}, got {row_count}; send the others in more calls")])
    paths = [f"rows[{row}]" for row in range(row_count)]
    rows = read_features(
        request.rows, request.columns, trained.preprocessing, trained.cell_rules, paths=paths, strict=request.strict
    )
    # Between two blocks a caller that has gone is noticed.
    plan = PredictionPlan(trained.model)
    outputs = plan.predict(trained.parameters, {"x": rows.features}, trained.statistics, look=stop.check)
    response = api.PredictResponse(
        step=trained.step, classes=trained.preprocessing.classes or (), unknown_categories=rows.unknown
    )
    meaning = _meaning(trained.preprocessing, outputs)
    for row in range(row_count):
        answer = response.predictions.add(outputs=outputs[row].ravel().tolist())
        if meaning is None:
            continue
        if trained.preprocessing.classes is None:
            answer.value = float(meaning[row])
        else:
            answer.class_name = trained.preprocessing.classes[int(meaning[row])]
    return response


def _meaning(preprocessing: Preprocessing, outputs: NDArray[np.float32]) -> NDArray[np.floating] | None:
    """Each prediction in the target's unit, or the place of its class; None where the outputs have another shape."""
    wanted = (preprocessing.class_count,) if preprocessing.class_count else ()
    return preprocessing.target_of(outputs) if outputs.shape[1:] == wanted else None
