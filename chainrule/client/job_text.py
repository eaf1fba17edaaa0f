"""Jobs and their events in words and as JSON values, for whoever shows them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from chainrule.errors import ArgumentError
from chainrule.text import duration, enum_names, number, one_line, size, table_lines, workers
from chainrule.v1 import job_pb2

FINAL_STATES = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)


def state_name(state: int) -> str:
    """'RUNNING' for JOB_STATE_RUNNING; the number where this version doesn't know the state."""
    return enum_names(job_pb2.JobState.DESCRIPTOR).get(state, str(state))


def state_number(name: str) -> job_pb2.JobState:
    """The state that 'running' or 'RUNNING' names. Raises ArgumentError."""
    known = {state_name(state): state for state in job_pb2.JobState.values() if state}
    if not isinstance(name, str) or name.upper() not in known:
        raise ArgumentError(f"must be one of {', '.join(known).lower()}, got {name!r:.40}")
    return cast(job_pb2.JobState, known[name.upper()])


def state_numbers(names: Sequence[str]) -> list[job_pb2.JobState]:
    """The states that the argument `states` of a call names. Raises ArgumentError."""
    try:
        return [state_number(name) for name in ([names] if isinstance(names, str) else names)]
    except ArgumentError as error:
        raise ArgumentError(f"states: {error}") from None


def fields_of(message: Message) -> dict[str, Any]:
    """A message as JSON values: the proto's field names, enums without prefix, times as ISO 8601, durations as '4.2s'.

    Fields that know whether they are set are left out where they aren't."""
    found: dict[str, Any] = {}
    # A cast: the stubs name two classes, of which every one has the same attributes.
    for each in cast(Sequence[FieldDescriptor], message.DESCRIPTOR.fields):
        value = getattr(message, each.name)
        if each.message_type is not None and each.message_type.GetOptions().map_entry:
            of_value = each.message_type.fields_by_name["value"]
            found[each.name] = {key: _json_value(of_value, item) for key, item in value.items()}
        elif each.is_repeated:
            found[each.name] = [_json_value(each, item) for item in value]
        elif not each.has_presence or message.HasField(each.name):
            found[each.name] = _json_value(each, value)
    return found


def _json_value(field: FieldDescriptor, value: Any) -> Any:
    """One value of a field as JSON has it."""
    if field.enum_type is not None:
        return enum_names(field.enum_type).get(value, str(value))
    match value:
        case Timestamp() | Duration():
            return value.ToJsonString()
        case Struct() | ListValue() | Value():
            return json_format.MessageToDict(value)
        case status_pb2.Status():
            return {"code": value.code, "message": value.message}
        case Message():
            return fields_of(value)
        case bytes():
            return base64.b64encode(value).decode()
    return value


def event_text(event: job_pb2.JobEvent) -> str:
    """What is worth a word of an event besides the states, which are shown anyway; empty for the rest."""
    match event.WhichOneof("event"):
        case "checkpoint_failed":
            failed = event.checkpoint_failed
            return f"warning: the checkpoint of step {failed.step} can't be written, the job goes on: {failed.reason}"
        case "checkpoint_damaged":
            damaged = event.checkpoint_damaged
            return f"warning: a checkpoint was damaged and is set aside as {damaged.file}: {damaged.reason}"
        case "worker_lost":
            return f"worker {event.worker_lost.worker} is lost: {event.worker_lost.details}"
        case "shards_moved":
            return _moved_text(event.shards_moved)
        case "late_worker_helped":
            helped = event.late_worker_helped
            return (
                f"{helped.late_worker} is late with step {helped.step} ({helped.late_s:.1f} s; others took "
                f"{helped.others_s:.1f} s): {' and '.join(helped.helpers)} compute its part too"
            )
        case "worker_differs":
            differs = event.worker_differs
            then = "it gets no shards" if differs.is_refused else "the bits depend on who computes what"
            return (
                f"warning: worker {differs.worker} computes with {differs.kind}, "
                f"the others with {differs.job_kind}; {then}"
            )
        case "gradient_is_zero":
            zero = event.gradient_is_zero
            return (
                f"warning: the gradient of the first step is exactly 0, and {', '.join(zero.parameters)} didn't move: "
                f"{zero.reason}"
            )
        case "resumed":
            why = "it was paused" if event.resumed.was_paused else "the server was started again"
            return f"{why}; the job goes on after step {event.resumed.step}"
        case _:
            return ""


def event_line(event: job_pb2.JobEvent) -> str:
    """What `chainrule logs` prints of an event: its time (UTC), its number, and what happened."""
    kind = event.WhichOneof("event") or "an event that this version doesn't know"
    match kind:
        case "state_changed":
            changed = event.state_changed
            text = state_name(changed.state).lower() + (f": {changed.error.message}" if changed.error.message else "")
        case "workers_changed":
            change = event.workers_changed
            tried_again, resting = {*change.tried_again}, {*change.resting}
            moves = [f"{name} {'is tried again' if name in tried_again else 'joined'}" for name in change.joined]
            moves += [f"{name} {'rests, as it is slow' if name in resting else 'left'}" for name in change.left]
            text = f"{workers(change.worker_count)}: {', '.join(moves)}"
        case "checkpoint_written":
            text = f"checkpoint of step {event.checkpoint_written.step}, {size(event.checkpoint_written.size_bytes)}"
        case _:
            text = event_text(event) or f"{kind.replace('_', ' ')} {_values(getattr(event, kind, None))}"
    return one_line(f"{event.time.ToDatetime():%Y-%m-%d %H:%M:%S}  {event.number:>4}  {text}").rstrip()


def _moved_text(moved: job_pb2.ShardsMoved) -> str:
    """Why shards moved, and who has how many."""
    shares = [f"{share.worker} {share.shard_count}" for share in moved.shares]
    if moved.slow_worker not in {share.worker for share in moved.shares}:
        shares.append(f"{moved.slow_worker} none until it is tried again")
    times, where = f"{moved.times_slower:.1f} times", f"shards now: {', '.join(shares)}"
    match moved.reason:
        case job_pb2.MOVE_REASON_LATE:
            return f"{moved.slow_worker} is late with a step, by {times} what the others took; {where}"
        case job_pb2.MOVE_REASON_EVENED:
            return (
                f"shards are shared out anew, because {moved.slow_worker} makes steps {moved.times_shorter:.1f} times "
                f"as long as they need be; {where}"
            )
        case _:
            return f"{moved.slow_worker} takes {times} as long for a row as the fastest, and all wait for it; {where}"


def _values(message: Message | None) -> str:
    """'step=3, worker=w-1': what an event says for which there is no sentence."""
    found = {} if message is None else fields_of(message)
    return ", ".join(f"{name}={value}" for name, value in found.items())


def job_lines(job: job_pb2.Job) -> list[str]:
    """What `chainrule status` prints of a job."""
    progress = job.progress
    rows = [
        ("job", f"{job.job_id} ({job.spec.name})"),
        ("state", state_name(job.state).lower()),
        ("step", f"{progress.step} of {progress.total_steps}, epoch {progress.epoch} of {job.spec.training.epochs}"),
    ]
    is_final = job.state in FINAL_STATES
    # Every step waits for its partial sums; that is worth a line only where steps stand still.
    if job.waiting_for and not progress.steps_per_second:
        rows.append(("waits for", job.waiting_for))
    if job.HasField("error"):
        rows.append(("error", job.error.message))
    if not is_final and progress.steps_per_second:
        computing = workers(progress.workers, resting=progress.resting_workers)
        rows.append(("speed", f"{progress.steps_per_second:.0f} steps/s, {computing}"))
    if job.HasField("time_left"):
        rows.append(("time left", f"about {duration(job.time_left.ToTimedelta().total_seconds())}"))
    rows += _cost_rows(progress)
    if job.reproducibility:
        rows.append(("bits", job.reproducibility))
    rows += [("computed with", kind) for kind in job.worker_kinds]
    if job.HasField("result"):
        return [*table_lines(rows), "", *result_lines(job)]
    if progress.step:
        rows.append(("loss", number(progress.loss)))
    if (validation_loss := _validation_loss(progress)) is not None:
        rows.append(("validation loss", number(validation_loss)))
    return table_lines(rows)


def _cost_rows(progress: job_pb2.Progress) -> list[tuple[str, str]]:
    """What a step costs, phase by phase, and how vectors travel."""
    if not progress.HasField("step_cost"):
        return []
    cost = progress.step_cost
    phases = [
        f"{each.name} {number(value.median_ms, 3)} ({number(value.p95_ms, 3)})"
        for each, value in cost.ListFields()
        if isinstance(value, job_pb2.Latency)
    ]
    travel = progress.transport
    if cost.pushed_bytes or cost.pulled_bytes:
        travel += f", {cost.pushed_bytes} bytes pushed and {cost.pulled_bytes} pulled in a step"
    return [("transport", travel), ("step, ms (p95)", ", ".join(phases))]


def result_lines(job: job_pb2.Job, more: Sequence[tuple[str, str]] = ()) -> list[str]:
    """A job's measures as a table, and under it the hash, the speed and `more`."""
    result = job.result
    measures = [["", "training", "validation"], ["loss", number(result.loss), ""]]
    if (validation_loss := _validation_loss(result)) is not None:
        measures[1][2] = number(validation_loss)
    values = {metric.name: metric.value for metric in result.metrics}
    for name in dict.fromkeys(name.removeprefix("validation_") for name in values):
        shown = [number(values[key]) if key in values else "" for key in (name, f"validation_{name}")]
        measures.append(["R²" if name == "r2" else name, *shown])
    measures.append(["rows", str(result.row_count), str(result.validation_row_count)])
    rows = [
        ("parameters", str(result.parameter_count)),
        ("parameters SHA-256", result.parameters_sha256),
        ("speed", f"{result.samples_per_second:.0f} samples/s, {result.step_ms_median:.3f} ms a step (median)"),
        *more,
    ]
    return [*table_lines(measures), "", *table_lines(rows)]


def _validation_loss(message: job_pb2.Progress | job_pb2.Result) -> float | None:
    return message.validation_loss if message.HasField("validation_loss") else None
