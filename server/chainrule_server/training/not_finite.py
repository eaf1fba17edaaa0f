"""Why a step fails whose loss or gradient isn't finite: the row, the operation and the parameters, and what may help.

The worker tells the shard, and the row where a loss isn't finite. What else is told is computed again here, of that row
or of the shard's microbatch, by the interpreter; so it is told as far as it can be seen, and nothing where it can't.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.backpropagation import Values, backward, dropout_masks, forward
from chainrule_engine.graph import Graph, Node, reachable
from chainrule_engine.synchronous_sgd import ParameterState
from chainrule_server.preparation.prepared_job import PreparedJob

SMALLER_RATE = "a smaller training.optimizer.learning_rate often helps"
FIRST_VALUES = (
    "no step has been made yet, so look at the first parameters and at the rows; standardized features often help"
)
# What has no finite value or derivative everywhere, and how to stay away from there.
DOMAINS = {
    "log": "keep what is under the logarithm above 0, such as log(a + 1e-6), or use log_softmax or softplus",
    "log1p": "keep a in log1p(a) above −1",
    "sqrt": "keep what is under the root above 0, such as sqrt(a + 1e-6)",
    "divide": "keep the divisor away from 0, such as a / (b + 1e-6)",
    "power": "a power has no value, or no finite derivative, at and below 0 for every exponent; keep its base above 0",
}
# The interpreter's values of a microbatch, all nodes together: some hundredths of a second.
MOST_VALUES = 2_000_000
MOST_NAMES = 5


def why_not_finite(bad: pb.NotFinite, state: ParameterState, job: PreparedJob, *, is_step: bool) -> str:
    """The error of a step, or of an evaluation, in which a worker found a loss or gradient that is not finite."""
    what = f"the loss of row {bad.row}" if bad.row >= 0 else "the gradient"
    where, node = _of_row(job, state, bad.row) if bad.row >= 0 else _of_gradient(job, state, bad.shard)
    advice = DOMAINS.get("" if node is None else node.operation)
    if advice is None:
        advice = FIRST_VALUES if state.step == 0 else SMALLER_RATE
    return (
        f"step {state.step + is_step}: {what} is not finite (shard {bad.shard}){where}; the last good parameters are "
        f"those of step {state.step}; {advice}"
    )


def _of_row(job: PreparedJob, state: ParameterState, row: int) -> tuple[str, Node | None]:
    """Where the loss of a row stops to be finite, in words, and that node if it was asked where it has no value."""
    graph = job.model.evaluation_loss
    x, y = job.rows.row(row)
    rows: dict[str, NDArray[Any]] = {"x": x[np.newaxis], "y": np.asarray(y)[np.newaxis]}
    statistics = job.model.statistics.views(state.statistics)
    f = forward(graph, {**rows, **job.model.layout.views(state.parameters), **statistics})
    node = _first_not_finite(graph, f)
    if node is None:
        return "", None
    operands = " and ".join(_told(f[operand]) for operand in node.operands)
    names = [each.name for each in reachable([node]) if each.operation == "parameter"]
    below = f", below it {_listed(names)}" if names else ""
    of = f" of {operands}" if operands else ""
    return f": {_name(node)}{of} is {_told(f[node])}{below}", node if _is_outside(node, f) else None


def _of_gradient(job: PreparedJob, state: ParameterState, shard: int) -> tuple[str, Node | None]:
    """Where the gradient of a shard's microbatch stops to be finite, in words, and the operation, as in `_of_row`."""
    graph, schedule = job.model.loss, job.schedule
    step = state.step + 1
    epoch, step_in_epoch = schedule.position(step)
    held = job.shard(shard, validation=False)
    chosen = schedule.order(shard, epoch)[schedule.rows(step_in_epoch)]
    if len(chosen) * sum(node.size for node in graph.nodes) > MOST_VALUES:
        return "", None
    values: Mapping[str, NDArray[Any]] = {
        "x": held.features[chosen],
        "y": held.targets[chosen],
        **job.model.layout.views(state.parameters),
        **dropout_masks(graph.nodes, row_count=len(chosen), randomness=(schedule.seed, step, shard)),
    }
    f = forward(graph, values)
    g = backward(graph, f, row_count=len(chosen))
    bad = [node for node in graph.nodes if node in g and not np.isfinite(g[node]).all()]
    if not bad:
        return "", None
    names = [node.name for node in bad if node.operation == "parameter"]
    # The highest such node got it from an operation whose own g is finite.
    top = bad[-1]
    makers = [node for node in graph.nodes if top in node.operands and node in g and node not in bad]
    maker = makers[-1] if makers else None
    told = f": that of {_listed(names)}" if names else ""
    if maker is not None:
        told += f", by the derivative of {_name(maker)}"
    if top.batched:
        (rows,) = np.nonzero(~np.isfinite(g[top].reshape(len(chosen), -1)).all(axis=1))
        told += f", at row {held.numbers[chosen[rows[0]]]}"
    return told, maker if maker is not None and _is_outside(maker, f) else None


def _is_outside(node: Node, f: Values) -> bool:
    """Whether an operation was asked where it has no value; else what it gives is only too large."""
    match node.operation:
        case "power":
            return bool((f[node.operands[0]] <= 0).any())
        case "divide":
            return bool((f[node.operands[1]] == 0).any())
    return True


def _first_not_finite(graph: Graph, f: Values) -> Node | None:
    return next((node for node in graph.nodes if not np.isfinite(f[node]).all()), None)


def _name(node: Node) -> str:
    return f"the {node.operation} {node.name}" if node.is_leaf else node.text


def _told(value: NDArray[Any]) -> str:
    """A number, or of several the first that isn't finite, else the smallest and the largest."""
    flat = np.asarray(value).reshape(-1)
    if flat.size == 1:
        return f"{flat[0]:g}"
    bad = flat[~np.isfinite(flat)]
    return f"{bad[0]:g}" if bad.size else f"{flat.min():g} … {flat.max():g}"


def _listed(names: list[str]) -> str:
    told = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    return f"the parameter{'s' if len(names) > 1 else ''} {told}"
