"""What one process computes of a step: partial sums over the shards that it holds.

A worker runs it on its shards, and a plain process runs it on all of them: the bits are the same, because a microbatch
is always computed with its own shape and partial sums are added along the tree of `chainrule_engine.reduction`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.blocks import BLOCK
from chainrule_engine.finite import NotFinite as NotFinite
from chainrule_engine.finite import is_finite, without_warnings
from chainrule_engine.metrics import Measure
from chainrule_engine.model import Model
from chainrule_engine.parameters import Vector
from chainrule_engine.plan import EvaluationPlan, TrainingPlan, check_backend
from chainrule_engine.precision import FLOAT32, Precision, Rounding, tree_rounding
from chainrule_engine.reduction import PartialSum, Subtree, Turn, reduce_subtree, turns
from chainrule_engine.sharding import BatchSchedule, Rows, evaluation_blocks

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
    """The partial sums of a model over the shards at hand; for one thread at a time.

    backend: 'numpy' or 'numba', see `chainrule_engine.plan.TrainingPlan`. precision: what gradients and their sums are
    rounded to. worked: called after each microbatch and each block of an evaluation, for who watches. Memory: of
    gradients at most log2 of the number of shards besides the caller's, the rows of one microbatch, and what the plans
    hold. Raises SettingError."""

    model: Model
    schedule: BatchSchedule
    measure: Measure
    training: Mapping[int, ShardRows]
    validation: Mapping[int, ShardRows]
    backend: str = "numpy"
    precision: Precision = FLOAT32
    worked: Callable[[], None] | None = None
    _batches: dict[int, _Batch] = field(default_factory=dict)
    _evaluation_plans: dict[int, EvaluationPlan] = field(default_factory=dict)
    # Of each shard the order of its rows in one epoch.
    _orders: dict[int, tuple[int, Rows]] = field(default_factory=dict)
    # Vectors for sums that wait for their sibling's.
    _waiting: list[Vector] = field(default_factory=list)
    _turns: dict[tuple[Subtree, int], list[Turn]] = field(default_factory=dict)
    _enter: Callable[..., Any] = field(default_factory=without_warnings)

    def __post_init__(self) -> None:
        check_backend(self.backend)
        self._rounding: Rounding | None = tree_rounding(self.precision)

    def gradient(
        self,
        subtree: Subtree,
        *,
        step: int,
        parameters: Vector,
        out: Vector | None = None,
        final: Callable[[int, int], None] | None = None,
        is_checked: bool = True,
    ) -> PartialSum | None:
        """The sum of the loss and of its gradient over a step's rows of a subtree; None where it has no rows.

        sums: the loss, then with batch_norm Σ a and Σ a² as `chainrule_engine.evaluation.updated_statistics` takes
        them. parameters: (n,) float32. step counts from 1. out: (n,) float32, where the gradient's sum is left; a new
        vector if None. Give the same array objects again, in turn if there are several: plans remember their views.
        final(start, stop) is called as soon as these elements of `out` are complete, and known to be finite if that is
        checked, the last layer's first, while the last microbatch's earlier layers are still being computed: each
        element once. is_checked: False leaves it to whoever uses the sum to see whether the gradient is finite. Raises
        NotFinite, after which `out` is worth nothing, even where it was announced."""
        epoch, step_in_epoch = self.schedule.position(step)
        order = self._turns_of(subtree, step_in_epoch)
        if not order:
            return None
        if out is None:
            out = np.empty(parameters.size, dtype=np.float32)
        vectors = self._vectors(out, 1 + max(turn.place for turn in order))
        sums: list[NDArray[np.float64]] = [np.empty(0)] * len(vectors)
        row_count = 0
        for turn in order:
            batch = self._gathered(turn.shard, epoch, step_in_epoch)
            row_count += batch.plan.row_count
            own = vectors[turn.place - turn.additions : turn.place + 1][::-1]
            adding = _Adding(own, final if turn is order[-1] else None, self._rounding, is_checked)
            loss = self._added_gradient(batch, turn.shard, step, parameters, adding)
            if self.worked is not None:
                self.worked()
            sums[turn.place] = batch.sums(loss)
            for place in range(turn.place, turn.place - turn.additions, -1):
                sums[place - 1] += sums[place]
        return PartialSum(row_count, sums[0], out)

    def evaluate(
        self,
        subtree: Subtree,
        *,
        parameters: Vector,
        validation: bool,
        statistics: NDArray[np.float64] | None = None,
    ) -> PartialSum | None:
        """The sums of the loss and of the measure over all rows of a subtree; None where it has none.

        statistics: batch_norm's running statistics, (model.statistics.size,) float64, needed with it."""
        held = self.validation if validation else self.training
        return reduce_subtree(subtree, lambda shard: self._evaluate_shard(held[shard], parameters, statistics))

    def forget_vectors(self, shard_count: int) -> None:
        """Let go of the memory that no subtree of at most so many shards needs; more of it is taken when needed."""
        del self._waiting[max(shard_count - 1, 0).bit_length() :]

    def _added_gradient(
        self,
        batch: _Batch,
        shard: int,
        step: int,
        parameters: Vector,
        adding: _Adding,
    ) -> float:
        """Compute a microbatch's gradient, and add it to the sums that wait for it."""
        own, final = adding.own, adding.final
        loss = batch.plan.gradient(
            parameters,
            batch.inputs,
            own[0],
            randomness=(self.schedule.seed, step, shard),
            final=None if final is None else adding.add_range,
        )
        if not math.isfinite(loss):
            bad = np.flatnonzero(~np.isfinite(batch.plan.row_losses))
            raise NotFinite(shard=shard, row=int(batch.numbers()[bad[0]]) if bad.size else None)
        if final is None and adding.has_work:
            self._enter(adding.add_range, 0, own[0].size)
        if not adding.is_finite:
            raise NotFinite(shard=shard, row=None)
        return loss

    def _gathered(self, shard: int, epoch: int, step_in_epoch: int) -> _Batch:
        """The plan for a shard's rows of a step, with these rows."""
        known = self._orders.get(shard)
        if known is None or known[0] != epoch:
            known = self._orders[shard] = (epoch, self.schedule.order(shard, epoch))
        chosen = known[1][self.schedule.rows(step_in_epoch)]
        batch = self._batches.get(len(chosen))
        if batch is None:
            plan = TrainingPlan(self.model, len(chosen), backend=self.backend)
            batch = self._batches[len(chosen)] = _Batch.of(plan, self.training[shard])
        batch.gather(self.training[shard], chosen)
        return batch

    def _turns_of(self, subtree: Subtree, step_in_epoch: int) -> list[Turn]:
        # Steps that find rows in every shard are alike; only an epoch's last ones don't.
        every = min(self.schedule.shard_sizes) // self.schedule.microbatch_size
        key = (subtree, -1 if step_in_epoch < every else step_in_epoch)
        known = self._turns.get(key)
        if known is None:
            known = turns(subtree, lambda shard: self.schedule.row_count(shard, step_in_epoch) > 0)
            self._turns[key] = known
        return known

    def _vectors(self, out: Vector, count: int) -> list[Vector]:
        while len(self._waiting) < count - 1:
            self._waiting.append(np.empty(out.size, dtype=np.float32))
        return [out, *self._waiting[: count - 1]]

    def _evaluate_shard(
        self, rows: ShardRows, parameters: Vector, statistics: NDArray[np.float64] | None
    ) -> PartialSum | None:
        total: PartialSum | None = None
        for block in evaluation_blocks(len(rows.targets), EVALUATION_BLOCK_ROWS):
            row_count = block.stop - block.start
            plan = self._evaluation_plans.get(row_count)
            if plan is None:
                plan = EvaluationPlan(self.model, row_count, backend=self.backend)
                self._evaluation_plans[row_count] = plan
            targets = rows.targets[block]
            loss, prediction = plan.evaluate(parameters, {"x": rows.features[block], "y": targets}, statistics)
            measured = np.empty(0) if prediction is None else self.measure.sums(prediction, targets)
            part = PartialSum(row_count, np.concatenate([[loss], measured]))
            if self.worked is not None:
                self.worked()
            if total is None:
                total = part
            else:
                total.add(part)
        return total


@dataclass
class _Batch:
    """A plan with memory for its rows: gathered for each step, so that no shard is copied as a whole.

    inputs: 'x', (rows, d) float32, and 'y', (rows,) float32 or int64 classes."""

    plan: TrainingPlan
    inputs: dict[str, NDArray[Any]]
    _held: ShardRows
    _chosen: Rows

    @classmethod
    def of(cls, plan: TrainingPlan, held: ShardRows) -> _Batch:
        """Memory for rows like those held."""
        inputs = {
            name: np.empty((plan.row_count, *rows.shape[1:]), dtype=rows.dtype)
            for name, rows in (("x", held.features), ("y", held.targets))
        }
        return cls(plan, inputs, held, np.empty(0, dtype=np.int64))

    def gather(self, held: ShardRows, chosen: Rows) -> None:
        """Take these rows of a shard. chosen: (rows,), positions in the shard."""
        self._held, self._chosen = held, chosen
        # The default mode would fill a copy first; no position is out of range.
        held.features.take(chosen, 0, self.inputs["x"], "clip")
        held.targets.take(chosen, 0, self.inputs["y"], "clip")

    def numbers(self) -> Rows:
        """(rows,) each row's number in the data set."""
        return self._held.numbers[self._chosen]

    def sums(self, loss: float) -> NDArray[np.float64]:
        """The loss, then the statistics of the plan's last rows: (1 + statistics.size,)."""
        statistics = self.plan.statistics_sums
        return np.array([loss]) if statistics.size == 0 else np.concatenate([[loss], statistics])


@dataclass
class _Adding:
    """A microbatch's gradient, own[0], on its way: each range of it is added to own[1], that to own[2], and so on.

    The last of them then holds what `final` announces."""

    own: list[Vector]
    final: Callable[[int, int], None] | None
    rounding: Rounding | None = None
    is_checked: bool = True
    is_finite: bool = True

    @property
    def has_work(self) -> bool:
        """Whether a range is more than announced."""
        return self.is_checked or self.rounding is not None or len(self.own) > 1

    def add_range(self, start: int, stop: int) -> None:
        """Add up the elements start … stop - 1, see whether the result is finite if asked to, and announce it if so."""
        if not self.is_finite:
            return
        if stop - start <= BLOCK:
            self._add(start, stop)
        else:
            for first in range(start, stop, BLOCK):
                self._add(first, min(first + BLOCK, stop))
        if self.final is not None and self.is_finite:
            self.final(start, stop)

    def _add(self, start: int, stop: int) -> None:
        total = self.own[0][start:stop]
        if self.rounding is not None:
            self.rounding(total, total)
        for left in self.own[1:]:
            waiting = left[start:stop]
            total = np.add(waiting, total, out=waiting)
            if self.rounding is not None:
                self.rounding(total, total)
        if self.is_checked and not is_finite(total):
            self.is_finite = False
