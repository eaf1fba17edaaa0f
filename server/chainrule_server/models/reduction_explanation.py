"""The reduced gradient of a step, seen shard by shard: what the workers push, computed beside the training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chainrule.bridge.explanation_of_graph import summary_of
from chainrule.v1 import model_service_pb2 as api
from chainrule_engine.clipping import global_norm
from chainrule_engine.microbatch import MicrobatchComputer, NotFinite
from chainrule_engine.parameters import Vector
from chainrule_engine.precision import tree_rounding
from chainrule_engine.reduction import PartialSum, Subtree
from chainrule_server.errors import InvalidRequest, WrongState
from chainrule_server.models.cancellation import Stop
from chainrule_server.models.explanation import DEFAULT_VALUES, MAX_VALUES, MAX_VALUES_TOGETHER
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.prepared_job import PreparedJob

# Memory: a gradient for each level of the tree. Time: a whole step, on one thread.
MAX_PARAMETERS = 20_000_000
MAX_MULTIPLICATIONS = 50_000_000_000


def explain_reduction(
    trained: TrainedModel, request: api.ExplainReductionRequest, job: PreparedJob, stop: Stop
) -> api.ExplainReductionResponse:
    """The explanation, without the job's id. Raises InvalidRequest, WrongState, Stopped."""
    layout, step = job.model.layout, trained.step + 1
    most = request.max_values if request.HasField("max_values") else DEFAULT_VALUES
    together = sum(min(most, parameter.size) for parameter in layout.parameters)
    if most > MAX_VALUES or together > MAX_VALUES_TOGETHER:
        message = f"must be at most {MAX_VALUES}, and {MAX_VALUES_TOGETHER} for all together"
        raise InvalidRequest([("max_values", message)])
    work = 6 * layout.size * job.spec.training.batch_size
    if layout.size > MAX_PARAMETERS or work > MAX_MULTIPLICATIONS:
        raise WrongState(
            f"a step of {layout.size} parameters and {job.spec.training.batch_size} rows is too large to be computed "
            "beside the training; explain a shard, or a row"
        )
    reduction = _Reduction(job, step, trained.parameters, stop)
    try:
        total = reduction.sum_of(Subtree(0, job.spec.training.shards))
    except NotFinite as error:
        raise WrongState(f"the gradient of step {step} is not finite, from shard {error.shard} on") from error
    if total is None or total.gradient is None:
        raise WrongState(f"no shard has rows in step {step}")
    mean = total.gradient / np.float32(total.row_count)
    response = api.ExplainReductionResponse(
        step=step, row_count=total.row_count, loss=float(total.sums[0]) / total.row_count, norm=global_norm(mean)
    )
    for parameter, gradient in zip(layout.parameters, layout.views(mean).values(), strict=True):
        response.parameters.add(
            name=parameter.name,
            shape=parameter.shape,
            gradient=summary_of(gradient, most),
            norm=global_norm(np.ascontiguousarray(gradient).reshape(-1)),
            frozen=parameter.frozen,
        )
    response.tree.extend(reduction.tree)
    return response


@dataclass
class _Reduction:
    """parameters: (n,) float32, as the server holds them. tree: what was added up, in order."""

    job: PreparedJob
    step: int
    parameters: Vector
    stop: Stop

    def __post_init__(self) -> None:
        job, shards = self.job, range(self.job.spec.training.shards)
        self.tree: list[api.SubtreeGradient] = []
        self._rounding = tree_rounding(job.precision)
        self._computer = MicrobatchComputer(
            job.model,
            job.schedule,
            job.measure,
            training={shard: job.shard(shard, validation=False) for shard in shards},
            validation={},
            backend=job.spec.training.backend,
            precision=job.precision,
        )
        if self._rounding is not None and self.step > 1:
            # What workers hold: the first parameters exactly, and then rounded ones.
            rounded = np.empty_like(self.parameters)
            self._rounding(self.parameters, rounded)
            self.parameters = rounded

    def sum_of(self, subtree: Subtree) -> PartialSum | None:
        """The sum over a subtree, None where it has no rows. Raises NotFinite, Stopped."""
        self.stop.check()
        if subtree.count == 1:
            total = self._computer.gradient(subtree, step=self.step, parameters=self.parameters)
        else:
            half = subtree.count // 2
            halves = [self.sum_of(Subtree(first, half)) for first in (subtree.first, subtree.first + half)]
            there = [each for each in halves if each is not None]
            total = self._added(*there) if len(there) == 2 else there[0] if there else None
        if total is not None and total.gradient is not None:
            norm = global_norm(total.gradient) / total.row_count
            loss = float(total.sums[0]) / total.row_count
            self.tree.append(
                api.SubtreeGradient(
                    first_shard=subtree.first,
                    shard_count=subtree.count,
                    row_count=total.row_count,
                    loss=loss,
                    norm=norm if math.isfinite(norm) else math.inf,
                )
            )
        return total

    def _added(self, left: PartialSum, right: PartialSum) -> PartialSum:
        """left + right, as every node of the tree is added and rounded."""
        if left.gradient is None or right.gradient is None:
            raise TypeError("a sum without a gradient")
        np.add(left.gradient, right.gradient, out=left.gradient)
        if self._rounding is not None:
            self._rounding(left.gradient, left.gradient)
        return PartialSum(left.row_count + right.row_count, left.sums + right.sums, left.gradient)
