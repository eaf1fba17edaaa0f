"""What can be computed, and means nothing: a job that would end well without having learnt what was meant.

Only new jobs are asked. One that was accepted before goes on after a restart.
"""

from __future__ import annotations

import numpy as np

from chainrule_engine.graph import Node
from chainrule_server.errors import InvalidSpec
from chainrule_server.preparation.prepared_job import PreparedJob

# The losses whose formula is that of targets −1 and 1.
SIGNED_LOSSES = ("hinge", "logistic")
MOST_VALUES_TOLD = 4


def check_sense(job: PreparedJob) -> None:
    """Raise InvalidSpec with every such thing."""
    violations = [*_prediction_of_target(job), *_unsigned_targets(job), *_normalized_single_rows(job)]
    if violations:
        raise InvalidSpec(violations)


def _prediction_of_target(job: PreparedJob) -> list[tuple[str, str]]:
    prediction = job.model.prediction
    if prediction is None or all(node.name == "x" for node in prediction.inputs):
        return []
    return [
        (
            "model.prediction",
            "uses y, the target itself: it would be right on every row that it is trained on, and there is no y where "
            "it is to predict; write the prediction of x alone, and use y in model.loss",
        )
    ]


def _unsigned_targets(job: PreparedJob) -> list[tuple[str, str]]:
    losses = {
        node.operation
        for node in job.model.loss.nodes
        if node.operation in SIGNED_LOSSES and any(_is_target(operand) for operand in node.operands)
    }
    targets = np.unique(job.rows.targets)
    if not losses or set(targets.tolist()) <= {-1.0, 1.0}:
        return []
    loss, preprocessing = " and ".join(sorted(losses)), job.preprocessing
    told = ", ".join(f"{value:g}" for value in targets[:MOST_VALUES_TOLD].tolist())
    told += ", …" if len(targets) > MOST_VALUES_TOLD else ""
    what = f"{loss} takes −1 and 1 for y"
    if preprocessing.labels is not None:
        return [("data.labels", f"{what}, and these are {told}; write labels = [-1, 1]")]
    own = "or, where y is 0 and 1, write 2*y - 1 in model.loss in place of y"
    if preprocessing.target_mean is not None:
        return [
            (
                "data.standardize",
                f"{what}, and standardized it is {told}; write standardize = ['features'] and −1 and 1 in the column, "
                f"{own}",
            )
        ]
    return [("model.loss", f"{what}, and here it is {told}; write −1 and 1 in the column, {own}")]


def _is_target(node: Node) -> bool:
    return node.operation == "input" and node.name == "y"


def _normalized_single_rows(job: PreparedJob) -> list[tuple[str, str]]:
    schedule = job.schedule
    if not job.model.normalized or min(schedule.microbatch_size, max(schedule.shard_sizes)) > 1:
        return []
    training = job.spec.training
    most_rows = max(schedule.shard_sizes)
    what = (
        f"batch_norm looks at the rows of a shard's microbatch, and it has 1 row (batch_size {training.batch_size} "
        f"over {training.shards} shards, the largest of {most_rows}): every value is its own mean and becomes 0, "
        "and nothing before it is learnt"
    )
    if most_rows == 1:
        return [("training.shards", f"{what}; take fewer shards")]
    return [("training.batch_size", f"{what}; take batch_size = {2 * training.shards} or more, or fewer shards")]
