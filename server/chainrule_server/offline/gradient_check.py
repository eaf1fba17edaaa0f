"""`python -P -m chainrule_server.offline.gradient_check`: a job's gradients held against differences, on rows of its
own data.

The question is a JobSpec; `answering` says what is written. It does one of two things:

- by default, the first microbatch with the first parameters: backpropagation in float64 against central differences,
  and the compiled plan's float32 gradient against that. With --one-step, the answer also holds the spec of a job whose
  only step shows the gradient that a cluster reduces;
- with --trained MODEL, that step itself: standard input is then that spec, and the reduced gradient is read off the
  parameters before and after the step.
"""

# ruff: noqa: E402  (one BLAS thread must be set before numpy is loaded)

from __future__ import annotations

from chainrule.process.lifecycle import limit_blas_threads

limit_blas_threads()

import argparse
import base64
import functools
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from chainrule.v1 import job_pb2
from chainrule_engine.backpropagation import dropout_masks, forward
from chainrule_engine.errors import SettingError
from chainrule_engine.gradient_check import (
    GradientCheck,
    PrecisionCheck,
    compare_in_float32,
    compare_with_differences,
    float32_noise,
    in_float64,
    sum_of_gradients,
    ties_of,
)
from chainrule_engine.plan import TrainingPlan
from chainrule_server.data.data_root import default_data_root
from chainrule_server.data.object_storage import default_object_storage
from chainrule_server.errors import InvalidSpec
from chainrule_server.offline.answering import FAILED, NoAnswer, answer
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob

# Of each parameter at most so many elements are differenced, each by two forward passes or more.
MOST_ELEMENTS = 200
MOST_ELEMENTS_OF_STEP = 50
FEWEST_ELEMENTS = 5
# Multiplications of all differences together: some 20 s.
MOST_WORK = 2e10
# What a node costs besides its elements, in multiplications.
NODE_WORK = 5_000
# More training rows than this don't take part in the one step; see `one_step`.
MOST_ROWS = 4096
# Of a power of two that float32 holds with room for what is multiplied by it.
MOST_EXPONENT = 64
STEP = 1

Array = NDArray[Any]
Values = Mapping[str, Array]
Noise = Callable[[], Mapping[str, Array]]


class CheckFailed(NoAnswer):
    """There is no gradient to be checked; the message says why."""


def main() -> int:
    """Write the answer; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m chainrule_server.offline.gradient_check")
    parser.add_argument("--row-count", type=int)
    parser.add_argument("--one-step", action="store_true")
    parser.add_argument("--trained", type=Path)
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    arguments = parser.parse_args()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()

    def answer_to(spec: job_pb2.JobSpec) -> dict[str, Any]:
        # The formula is checked: the gradient of what a job keeps frozen must be right, too.
        for parameter in spec.model.parameters:
            parameter.frozen = False
        job = prepare(spec, data_root=arguments.data_root, object_storage=default_object_storage())
        if arguments.trained is not None:
            return check_step(job, _read_trained(job, arguments.trained))
        found = check_microbatch(job, row_count=arguments.row_count)
        if arguments.one_step:
            step = one_step(job, data_root=arguments.data_root)
            found["one_step"] = base64.b64encode(step.SerializeToString()).decode()
        return found

    return answer(job_pb2.JobSpec, answer_to)


def check_microbatch(job: PreparedJob, *, row_count: int | None = None) -> dict[str, Any]:
    """Hold the gradient of rows of the first shard against differences, and the plan's against it.

    row_count: else that of the job's first microbatch. Raises InvalidSpec, CheckFailed."""
    most = len(job.division.training[0])
    if row_count is None:
        row_count = job.schedule.row_count(0, 0)
    if not 1 <= row_count <= most:
        message = f"must be from 1 to {most}, the number of training rows of the first shard, got {row_count}"
        raise InvalidSpec([("--row-count", message)])
    vector = job.first_state().parameters
    parameters = job.model.layout.views(vector)
    batch = _batch(job, parameters, shard=0, row_count=row_count)
    gradient = np.empty_like(vector)
    plan = _plan(job, row_count)
    plan.gradient(vector, batch, gradient, randomness=(job.schedule.seed, STEP, 0))
    gradients = job.model.layout.views(gradient)
    graph, row_counts = job.model.loss, [row_count]
    exact = _exact_gradients(job, [batch], row_counts)
    noise = _noise_of(job, [batch], row_counts)
    ties = _ties(job, [batch])
    broken = _noise_of(job, [batch], row_counts, breaks_ties=True)
    most_elements = _elements_for_each(job, row_count, most=MOST_ELEMENTS)
    checks = compare_with_differences(graph, [batch], row_counts=row_counts, most=most_elements, seed=job.schedule.seed)
    found = []
    for check in _in_order(job, checks):
        name = check.name
        in_float32 = _compare(gradients[name], exact[name], noise, name)
        is_tie = bool(ties) and name in broken() and _is_at_tie(check, broken()[name])
        problems = [] if is_tie else _problems_of(check, exact[name].shape)
        if in_float32.mismatch is not None:
            at = in_float32.mismatch
            problems.append(
                f"{_element(exact[name].shape, at)}: the compiled plan gives {gradients[name].flat[at]:.9g}, "
                f"backpropagation in float64 gives {exact[name].flat[at]:.9g}"
            )
        found.append(_row(check, exact[name].shape, check.error, in_float32.error, problems) | {"is_tie": is_tie})
    return {"row_count": row_count, "seed": job.schedule.seed, "parameters": found, "ties": ties}


def one_step(job: PreparedJob, *, data_root: Path | None = None) -> job_pb2.JobSpec:
    """The spec of a job with one step over its training rows, whose parameters show the reduced gradient.

    The step is θ − rate · g with a rate that is a power of two, so (θ before − θ after) / rate is the mean gradient g
    as exactly as float32 can hold it. Of more than MOST_ROWS training rows the others become validation rows."""
    spec = job_pb2.JobSpec()
    spec.CopyFrom(job.spec)
    training = spec.training
    # What works on a gradient after the reduction, or rounds it on purpose.
    for name in ("early_stopping", "schedule", "penalties", "clipping", "optimizer", "precision"):
        training.ClearField(name)
    largest_shard = max(job.schedule.shard_sizes)
    if sum(job.schedule.shard_sizes) > MOST_ROWS:
        spec.data.ClearField("fold")
        spec.data.validation_fraction = 1 - MOST_ROWS / job.row_count
        largest_shard = MOST_ROWS // training.shards + 1
    training.epochs = 1
    training.batch_size = training.shards * largest_shard
    training.optimizer.name = "sgd"
    training.optimizer.learning_rate = 1.0
    step = prepare(spec, data_root=data_root, object_storage=default_object_storage())
    parameters = step.model.layout.views(step.first_state().parameters)
    batches, row_counts = _batches(step, parameters)
    exact = _exact_gradients(step, batches, row_counts)
    training.optimizer.learning_rate = 2.0 ** rate_exponent(
        parameters, {name: gradient / sum(row_counts) for name, gradient in exact.items()}
    )
    return spec


def rate_exponent(parameters: Values, gradients: Values) -> int:
    """The exponent of the least power of two, from 1 up, that moves every parameter as far as it is large.

    Then rounding the moved parameters takes no more from the gradient than float32 does anyway. It is less where the
    largest gradient would leave the range of float32."""
    exponent, limit = 0, MOST_EXPONENT
    for name, gradient in gradients.items():
        largest, size = (float(np.abs(each).max(initial=0.0)) for each in (gradient, parameters[name]))
        if largest > 0:
            limit = min(limit, math.floor(MOST_EXPONENT - math.log2(largest)))
            if size > 0:
                exponent = max(exponent, math.ceil(math.log2(size) - math.log2(largest)))
    return min(exponent, limit)


def check_step(job: PreparedJob, trained: Values) -> dict[str, Any]:
    """Hold the reduced gradient of a job's only step against differences, and all of it against float64.

    job: of `one_step`. trained: the parameters after the step. Raises CheckFailed."""
    parameters = job.model.layout.views(job.first_state().parameters)
    batches, row_counts = _batches(job, parameters)
    row_count, rate = sum(row_counts), job.spec.training.optimizer.learning_rate
    graph = job.model.loss
    exact = _exact_gradients(job, batches, row_counts)
    noise = _noise_of(job, batches, row_counts)
    ties = _ties(job, batches)
    broken = _noise_of(job, batches, row_counts, breaks_ties=True)
    most = _elements_for_each(job, row_count, most=MOST_ELEMENTS_OF_STEP)
    checks = compare_with_differences(graph, batches, row_counts=row_counts, most=most, seed=job.schedule.seed)
    found = []
    for check in _in_order(job, checks):
        name = check.name
        before, after = (each[name].astype(np.float64) for each in (parameters, trained))
        reduced = (before - after) / rate
        # What writing a moved parameter down in float32 takes.
        rounding = np.spacing(np.maximum(np.abs(before), np.abs(after)).astype(np.float32)) / rate
        mean = exact[name] / row_count
        against_float64 = _compare(reduced, mean, noise, name, rounding, row_count)
        elements = check.elements[~check.at_kink]
        differences = mean.copy()
        differences.flat[elements] = check.differences[~check.at_kink] / row_count
        against_differences = _compare(reduced, differences, noise, name, rounding, row_count)
        scale = float(np.abs(differences).max(initial=0.0)) or 1.0
        error = float(np.abs(reduced - differences).flat[elements].max(initial=0.0)) / scale
        is_tie = bool(ties) and name in broken() and _is_at_tie(check, broken()[name])
        problems = [] if is_tie else _problems_of(check, mean.shape)
        at = against_differences.mismatch if against_differences.mismatch is not None else against_float64.mismatch
        if at is not None and not is_tie:
            expected = f"differences give {differences.flat[at]:.9g}"
            if at not in elements:
                expected = f"backpropagation in float64 gives {mean.flat[at]:.9g}"
            where = _element(mean.shape, at)
            problems.append(f"{where}: the reduced gradient is {reduced.flat[at]:.9g}, {expected}")
        found.append(_row(check, mean.shape, error, against_float64.error, problems) | {"is_tie": is_tie})
    return {
        "row_count": row_count, "seed": job.schedule.seed, "learning_rate": rate, "parameters": found, "ties": ties,
    }  # fmt: skip


def _read_trained(job: PreparedJob, path: Path) -> dict[str, Array]:
    """The parameters of the model that this job has just written."""
    tensors = load_file(path)
    return {each.name: tensors[each.name].reshape(each.shape) for each in job.model.layout.parameters}


def _batch(job: PreparedJob, parameters: Values, *, shard: int, row_count: int) -> dict[str, Array]:
    """The leaves of the loss in a shard's first microbatch of step 1, or in the first rows of its first epoch."""
    held = job.shard(shard, validation=False)
    rows = job.schedule.order(shard, 0)[:row_count]
    masks = dropout_masks(job.model.loss.nodes, row_count=row_count, randomness=(job.schedule.seed, STEP, shard))
    return {**parameters, "x": held.features[rows], "y": held.targets[rows], **masks}


def _batches(job: PreparedJob, parameters: Values) -> tuple[list[dict[str, Array]], list[int]]:
    """The microbatches of step 1, of every shard, and their numbers of rows."""
    counts = {shard: job.schedule.row_count(shard, 0) for shard in range(len(job.schedule.shard_sizes))}
    with_rows = {shard: count for shard, count in counts.items() if count}
    batches = [_batch(job, parameters, shard=shard, row_count=count) for shard, count in with_rows.items()]
    return batches, list(with_rows.values())


def _exact_gradients(
    job: PreparedJob, batches: Sequence[Values], row_counts: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """The gradients in float64, of the sum over all rows. Raises CheckFailed where they aren't finite."""
    exact = [in_float64(batch) for batch in batches]
    for batch in exact:
        if not np.isfinite(forward(job.model.loss, batch)[job.model.loss.root]).all():
            raise CheckFailed("the loss is not finite with the first parameters; there is no gradient to be checked")
    return _gradients(job, exact, row_counts)


def _gradients(job: PreparedJob, batches: Sequence[Values], row_counts: Sequence[int]) -> dict[str, Array]:
    """The interpreter's gradients, of the sum over all rows, of all parameters."""
    # One that the loss doesn't use isn't in its graph.
    unused = {each.name: np.zeros(each.shape, np.float32) for each in job.model.layout.parameters}
    return unused | sum_of_gradients(job.model.loss, batches, row_counts=row_counts)


def _noise_of(
    job: PreparedJob, batches: Sequence[Values], row_counts: Sequence[int], *, breaks_ties: bool = False
) -> Noise:
    return functools.cache(
        lambda: float32_noise(
            job.model.loss, batches, row_counts=row_counts, seed=job.schedule.seed, moves_exact=breaks_ties
        )
    )


def _compare(
    gradient: Array,
    exact: Array,
    noise: Noise,
    name: str,
    rounding: Array | float = 0.0,
    row_count: int = 1,
) -> PrecisionCheck:
    """See `compare_in_float32`. What float32 can't keep is looked for only where something is off: it is dear.

    row_count: what the gradients were divided by."""
    check = compare_in_float32(gradient, exact, noise=rounding)
    if check.mismatch is None or name not in noise():
        return check
    return compare_in_float32(gradient, exact, noise=rounding + noise()[name] / row_count)


def _plan(job: PreparedJob, row_count: int) -> TrainingPlan:
    try:
        return TrainingPlan(job.model, row_count, backend=job.spec.training.backend or "numpy")
    except SettingError as error:
        raise InvalidSpec([(f"training.{error.setting}", error.reason)]) from error


def _elements_for_each(job: PreparedJob, row_count: int, *, most: int) -> int:
    """How many elements of each parameter are differenced: fewer where the model and its rows are many."""
    parameters = job.model.layout.parameters
    work_of_pass = job.model.layout.size * row_count + NODE_WORK * len(job.model.loss.nodes)
    work = 2 * work_of_pass * len(parameters)
    return max(FEWEST_ELEMENTS, min(most, int(MOST_WORK / work)))


def _in_order(job: PreparedJob, checks: Sequence[GradientCheck]) -> list[GradientCheck]:
    """A check of each parameter in the order of the spec; without elements where the loss doesn't use it."""
    by_name = {check.name: check for check in checks}
    none, no_elements = np.zeros(0), np.zeros(0, np.int64)
    return [
        by_name.get(each.name, GradientCheck(each.name, 0.0, none, none, no_elements, none.astype(bool)))
        for each in job.model.layout.parameters
    ]


def _ties(job: PreparedJob, batches: Sequence[Values]) -> list[dict[str, Any]]:
    """The ties of maxima and minima, in float32, as the job computes: their text, and the number of equal values."""
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(ties_of(job.model.loss, batch))
    return [{"text": text, "count": count} for text, count in counts.items()]


def _is_at_tie(check: GradientCheck, noise: Array) -> bool:
    """Whether elements are off by no more than breaking a tie changes. noise: of exact values too, which breaks it."""
    if check.mismatch is None:
        return check.skipped > 0
    distance = abs(check.gradient[check.mismatch] - check.differences[check.mismatch])
    return bool(distance <= noise.flat[check.elements[check.mismatch]])


def _problems_of(check: GradientCheck, shape: tuple[int, ...]) -> list[str]:
    at = check.mismatch
    if at is None:
        return []
    return [
        f"{_element(shape, int(check.elements[at]))}: backpropagation gives {check.gradient[at]:.9g}, "
        f"differences give {check.differences[at]:.9g}"
    ]


def _row(
    check: GradientCheck, shape: tuple[int, ...], difference_error: float, float64_error: float, problems: list[str]
) -> dict[str, Any]:
    """What is answered of a parameter. Errors are relative to its largest |g|."""
    return {
        "name": check.name,
        "shape": list(shape),
        "element_count": math.prod(shape),
        "checked": check.checked,
        "skipped": check.skipped,
        "difference_error": difference_error,
        "float64_error": float64_error,
        "problems": problems,
    }


def _element(shape: tuple[int, ...], flat: int) -> str:
    """'element [3, 4]' of a parameter."""
    return (
        f"element [{', '.join(str(int(index)) for index in np.unravel_index(flat, shape))}]" if shape else "the number"
    )


def _end_with_parent(parent: int) -> None:
    """End this process where its parent is gone, even by kill -9: nobody reads the answer then."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
