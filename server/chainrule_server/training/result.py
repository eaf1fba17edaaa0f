"""What is told of a job's training: its result, and why it failed."""

from __future__ import annotations

from chainrule.v1 import job_pb2
from chainrule_engine.reduction import PartialSum
from chainrule_engine.synchronous_sgd import ParameterState
from chainrule_server.preparation.prepared_job import PreparedJob

ADVICE = "a smaller training.optimizer.learning_rate"


class TrainingFailed(Exception):
    """The job can't go on; the message says at which step and why."""


def measures_of(job: PreparedJob, evaluation: PartialSum) -> dict[str, float]:
    """The metrics of an evaluation, by name."""
    scale = job.preprocessing.target_scale
    return job.measure.values(evaluation.sums[1:], evaluation.row_count, target_scale=1.0 if scale is None else scale)


def result_of(
    job: PreparedJob, state: ParameterState, *, training: PartialSum, validation: PartialSum | None
) -> job_pb2.Result:
    """The result as far as parameters and evaluations decide it; times and the best epoch are the caller's."""
    result = job_pb2.Result(
        loss=float(training.sums[0]) / training.row_count,
        parameters_sha256=state.sha256,
        parameter_count=job.model.layout.size,
        row_count=training.row_count,
    )
    for prefix, total in (("", training), ("validation_", validation)):
        if total is not None:
            for name, value in measures_of(job, total).items():
                result.metrics.add(name=prefix + name, value=value)
    if validation is not None:
        result.validation_loss = float(validation.sums[0]) / validation.row_count
        result.validation_row_count = validation.row_count
    return result


def why_parameters_not_finite(state: ParameterState) -> str:
    """Why a step fails whose gradient is finite, and whose parameters are not."""
    return (
        f"step {state.step + 1}: the parameters would not be finite; the last good ones are those of step "
        f"{state.step}; {ADVICE} often helps"
    )
