"""One example's way through a model's graph, forward and backward: of the job's data, or of a client."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.bridge.explanation_of_graph import explanation_of
from chainrule.v1 import model_service_pb2 as api
from chainrule_engine.backpropagation import dropout_masks, forward
from chainrule_engine.graph import Graph
from chainrule_engine.plan import row_values
from chainrule_server.errors import InvalidRequest, WrongState
from chainrule_server.models.cancellation import Stop
from chainrule_server.models.raw_rows import kind_of_value, number_of, read_features
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.preprocessing import Preprocessing

DEFAULT_VALUES = 16
MAX_VALUES = 100_000
# An answer stays below the 4 MiB that a stock client takes.
MAX_VALUES_TOGETHER = 250_000
MAX_NODES = 3_000
# f, g, and the partial derivatives of two operands.
TENSORS_OF_NODE = 4
# Of all nodes of a microbatch together: each is held twice, as f and as g, and its partial derivatives for a while.
MAX_MICROBATCH_ELEMENTS = 20_000_000


def explain(
    trained: TrainedModel, request: api.ExplainRequest, job: PreparedJob | None, stop: Stop
) -> api.ExplainResponse:
    """The explanation, without the job's id. job: where `row` and `shard` are looked up; None where none is asked for.

    Raises InvalidRequest, WrongState where the graph is too large, Stopped."""
    if request.WhichOneof("example") == "shard":
        if job is None:
            raise TypeError("a shard is asked for without the job's rows")
        return explain_microbatch(trained, request, job, stop)
    graph = trained.model.evaluation_loss
    max_values = _max_values(request, graph)
    unknown: tuple[api.UnknownCategories, ...] = ()
    match request.WhichOneof("example"):
        case "row":
            if job is None:
                raise TypeError("a row is asked for without the job's rows")
            if request.row >= job.row_count:
                last = job.row_count - 1
                raise InvalidRequest([("row", f"there is no row {request.row}; the job's data has rows 0 to {last}")])
            x, y = job.rows.row(request.row)
        case "own":
            x, y, unknown = _own_example(request.own, trained)
        case _:
            message = "is missing; give a row of the job's data, a shard, or an example of your own"
            raise InvalidRequest([("example", message)])
    model = trained.model
    inputs: dict[str, NDArray[Any]] = {"x": x[np.newaxis], "y": np.asarray(y)[np.newaxis]}
    stop.check()
    prediction = None if model.prediction is None else model.prediction.root
    f = row_values(model, trained.parameters, inputs, trained.statistics)
    response = explanation_of(graph, f, prediction=prediction, max_values=max_values)
    response.step = trained.step
    response.unknown_categories.extend(unknown)
    return response


def explain_microbatch(
    trained: TrainedModel, request: api.ExplainRequest, job: PreparedJob, stop: Stop
) -> api.ExplainResponse:
    """As `explain`, for the rows of a shard in the step after the parameters."""
    model, graph = trained.model, trained.model.loss
    shard, step = request.shard, trained.step + 1
    shard_count = job.spec.training.shards
    if shard >= shard_count:
        raise InvalidRequest([("shard", f"there is no shard {shard}; the job has shards 0 to {shard_count - 1}")])
    epoch, step_in_epoch = job.schedule.position(step)
    held = job.shard(shard, validation=False)
    chosen = job.schedule.order(shard, epoch)[job.schedule.rows(step_in_epoch)]
    if not len(chosen):
        raise WrongState(f"shard {shard} has no rows left in step {step}; take another shard")
    max_values = _max_values(request, graph, row_count=len(chosen))
    elements = len(chosen) * sum(math.prod(node.shape) for node in graph.nodes if node.batched)
    if elements > MAX_MICROBATCH_ELEMENTS:
        raise WrongState(
            f"the microbatch has {elements} values in all nodes, and at most {MAX_MICROBATCH_ELEMENTS} are looked at; "
            "explain a row"
        )
    stop.check()
    values: dict[str, NDArray[Any]] = {"x": held.features[chosen], "y": held.targets[chosen]}
    values |= model.layout.views(trained.parameters)
    values |= dropout_masks(graph.nodes, row_count=len(chosen), randomness=(job.schedule.seed, step, shard))
    prediction = None if model.prediction is None else model.prediction.root
    f = forward(graph, values)
    response = explanation_of(graph, f, prediction=prediction, max_values=max_values, all_rows=True)
    response.step = trained.step
    response.rows.extend(held.numbers[chosen].tolist())
    return response


def _max_values(request: api.ExplainRequest, graph: Graph, *, row_count: int = 1) -> int:
    count = len(graph.nodes)
    if count > MAX_NODES:
        raise WrongState(f"the graph has {count} nodes, and at most {MAX_NODES} can be explained in one answer")
    most = request.max_values if request.HasField("max_values") else DEFAULT_VALUES
    if most > MAX_VALUES:
        raise InvalidRequest([("max_values", f"must be at most {MAX_VALUES}, got {most}")])
    together = TENSORS_OF_NODE * sum(min(most, row_count * math.prod(node.shape)) for node in graph.nodes)
    if most > DEFAULT_VALUES and together > MAX_VALUES_TOGETHER:
        raise InvalidRequest(
            [("max_values", f"the answer could hold {together} values, more than {MAX_VALUES_TOGETHER}; ask for fewer")]
        )
    return most


def _own_example(
    example: api.Example, trained: TrainedModel
) -> tuple[NDArray[np.float32], NDArray[Any], tuple[api.UnknownCategories, ...]]:
    """(x, y) of one example, prepared, and its categories that no training row had."""
    preprocessing, violations = trained.preprocessing, []
    try:
        rows = read_features(
            [example.features], example.columns, preprocessing, trained.cell_rules, paths=["own.features"]
        )
    except InvalidRequest as error:
        violations += [(f"own.{path}".replace("own.own.", "own."), text) for path, text in error.violations]
    target, problem = _target(example, preprocessing)
    if problem:
        violations.append(("own.target", problem))
    if violations:
        raise InvalidRequest(violations)
    with np.errstate(over="ignore"):
        y = np.asarray(target, np.int64 if preprocessing.class_count else np.float32)
    if not np.isfinite(y):
        raise InvalidRequest([("own.target", "is out of the range of float32")])
    return rows.features[0], y, rows.unknown


def _target(example: api.Example, preprocessing: Preprocessing) -> tuple[float, str]:
    """The target as the model sees it and '', or 0 and what is wrong with it."""
    value = example.target
    if preprocessing.classes is None:
        number, problem = number_of(value)
        if preprocessing.target_mean is None or preprocessing.target_scale is None:
            return number, problem
        return (number - preprocessing.target_mean) / preprocessing.target_scale, problem
    known = f"must be the name of a class, one of {', '.join(preprocessing.classes[:20])}"
    if value.WhichOneof("kind") != "string_value":
        return 0.0, f"{known}; got {kind_of_value(value)}"
    if value.string_value not in preprocessing.classes:
        return 0.0, f"{known}; got {value.string_value[:80]!r}"
    number = preprocessing.classes.index(value.string_value)
    return (number if preprocessing.labels is None else preprocessing.labels[number]), ""
