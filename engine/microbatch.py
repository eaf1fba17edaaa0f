"""What one process computes of a step: partial sums over the shards that it holds.

A worker runs it on its shards, and a plain process runs it on all of them: the bits are the same, because a microbatch
is always computed with its own shape and partial sums are added along the tree of `engine.reduction`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.finite import NotFinite as NotFinite
from engine.metrics import Measure
from engine.model import Model
from engine.parameters import Vector
from engine.plan import EvaluationPlan, TrainingPlan
from engine.reduction import PartialSum, Subtree, reduce_subtree
from engine.sharding import BatchSchedule, Rows, evaluation_blocks

EVALUATION_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class ShardRows:
    """Prepared rows of a shard. features: (rows, d) float32. targets: (rows,) float32, or int64 classes.

    numbers: (rows,) each row's number in the data set."""

    features: NDArray[np.float32]
    targets: NDArray[Any]
    numbers: Rows


@dataclass
class MicrobatchComputer:
    """The partial sums of a model over the shards at hand."""

    model: Model
    schedule: BatchSchedule
    measure: Measure
    training: Mapping[int, ShardRows]
    validation: Mapping[int, ShardRows]
    _training_plans: dict[int, TrainingPlan] = field(default_factory=dict)
    _evaluation_plans: dict[int, EvaluationPlan] = field(default_factory=dict)
    # Of each shard the rows in the order of one epoch: a step's rows are then a slice.
    _epoch_rows: dict[int, tuple[int, NDArray[np.float32], NDArray[Any], Rows]] = field(default_factory=dict)

    def gradient(self, subtree: Subtree, *, step: int, parameters: Vector) -> PartialSum | None:
        """The sum of the loss and of its gradient over a step's rows of a subtree; None where it has no rows.

        parameters: (n,) float32. step counts from 1. Raises NotFinite."""
        return reduce_subtree(subtree, lambda shard: self._microbatch_gradient(shard, step, parameters))

    def evaluate(self, subtree: Subtree, *, parameters: Vector, validation: bool) -> PartialSum | None:
        """The sums of the loss and of the measure over all rows of a subtree; None where it has none."""
        held = self.validation if validation else self.training
        return reduce_subtree(subtree, lambda shard: self._evaluate_shard(held[shard], parameters))

    def _microbatch_gradient(self, shard: int, step: int, parameters: Vector) -> PartialSum | None:
        epoch, step_in_epoch = self.schedule.position(step)
        row_count = self.schedule.row_count(shard, step_in_epoch)
        if row_count == 0:
            return None
        features, targets, numbers = self._rows_of_epoch(shard, epoch)
        rows = self.schedule.rows(step_in_epoch)
        plan = self._training_plans.get(row_count)
        if plan is None:
            plan = self._training_plans[row_count] = TrainingPlan(self.model, row_count)
        gradient = np.empty(parameters.size, dtype=np.float32)
        loss = plan.gradient(
            parameters,
            {"x": features[rows], "y": targets[rows]},
            gradient,
            randomness=(self.schedule.seed, step, shard),
        )
        if not math.isfinite(loss):
            bad = np.flatnonzero(~np.isfinite(plan.row_losses))
            raise NotFinite(shard=shard, row=int(numbers[rows][bad[0]]) if bad.size else None)
        if not np.isfinite(gradient).all():
            raise NotFinite(shard=shard, row=None)
        return PartialSum(row_count, np.array([loss]), gradient)

    def _rows_of_epoch(self, shard: int, epoch: int) -> tuple[NDArray[np.float32], NDArray[Any], Rows]:
        cached = self._epoch_rows.get(shard)
        if cached is None or cached[0] != epoch:
            order = self.schedule.order(shard, epoch)
            held = self.training[shard]
            cached = (epoch, held.features[order], held.targets[order], held.numbers[order])
            self._epoch_rows[shard] = cached
        return cached[1:]

    def _evaluate_shard(self, rows: ShardRows, parameters: Vector) -> PartialSum | None:
        total: PartialSum | None = None
        for block in evaluation_blocks(len(rows.targets), EVALUATION_BLOCK_ROWS):
            row_count = block.stop - block.start
            plan = self._evaluation_plans.get(row_count)
            if plan is None:
                plan = self._evaluation_plans[row_count] = EvaluationPlan(self.model, row_count)
            targets = rows.targets[block]
            loss, prediction = plan.evaluate(parameters, {"x": rows.features[block], "y": targets})
            measured = np.empty(0) if prediction is None else self.measure.sums(prediction, targets)
            part = PartialSum(row_count, np.concatenate([[loss], measured]))
            if total is None:
                total = part
            else:
                total.add(part)
        return total
