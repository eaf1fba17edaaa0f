"""A first step whose gradient is exactly 0: nothing moves, now or later, and the job would end as if it had learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.v1 import job_pb2
from chainrule_engine.backpropagation import Values, dropout_masks, forward
from chainrule_engine.gradient_check import tied_nodes
from chainrule_engine.graph import Graph
from chainrule_engine.synchronous_sgd import ParameterState
from chainrule_server.preparation.prepared_job import PreparedJob

# The interpreter's values of a microbatch, all nodes together: some hundredths of a second.
MOST_VALUES = 2_000_000
MOST_TEXTS = 3
UNKNOWN = "look at what the loss multiplies by 0, and at operations that are constant for these rows"


def zero_gradient_event(job: PreparedJob, state: ParameterState) -> job_pb2.JobEvent:
    """The event, with the reasons as far as they can be seen. state: the parameters that didn't move."""
    parameters = job.model.layout.views(state.parameters)
    moved = [each.name for each in job.model.layout.parameters if not each.frozen]
    reasons = _reasons(job, parameters)
    zeros = [name for name in moved if not parameters[name].any()]
    if zeros:
        reasons.append(f"{_listed(zeros)} {'begins' if len(zeros) == 1 else 'begin'} at 0; draw first values instead")
    return job_pb2.JobEvent(
        gradient_is_zero=job_pb2.GradientIsZero(parameters=moved, reason="; ".join(reasons) or UNKNOWN)
    )


def _reasons(job: PreparedJob, parameters: Mapping[str, NDArray[Any]]) -> list[str]:
    """What can be seen in the first microbatch that has rows."""
    graph, schedule = job.model.loss, job.schedule
    shard = next(number for number, size in enumerate(schedule.shard_sizes) if size)
    chosen = schedule.order(shard, 0)[schedule.rows(0)]
    if len(chosen) * sum(node.size for node in graph.nodes) > MOST_VALUES:
        return []
    held = job.shard(shard, validation=False)
    masks = dropout_masks(graph.nodes, row_count=len(chosen), randomness=(schedule.seed, 1, shard))
    f = forward(graph, {"x": held.features[chosen], "y": held.targets[chosen], **parameters, **masks})
    found = []
    if not f[graph.root].any():
        found.append("the loss itself is 0 in every row: there is nothing to learn")
    ties = [node.text for node, count in tied_nodes(graph, f).items() if count == f[node].size]
    if ties:
        found.append(f"a tie: both sides of {_listed(ties)} are equal, and then both derivatives are 0")
    dead = _dead(graph, f)
    if dead:
        found.append(f"dead units: {_listed(dead)} is 0 in every row, and so is its derivative")
    if len(chosen) == 1 and job.model.normalized:
        found.append("batch_norm over one row: every value is its own mean")
    return found


def _dead(graph: Graph, f: Values) -> list[str]:
    return [node.text for node in graph.nodes if node.operation == "relu" and not np.asarray(f[node]).any()]


def _listed(texts: list[str]) -> str:
    return ", ".join(texts[:MOST_TEXTS]) + (", …" if len(texts) > MOST_TEXTS else "")
