"""Messages as JSON values, and what of a job's result Python gives: over every message and enum of the protos."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

import chainrule.v1.cluster_service_pb2
import chainrule.v1.data_service_pb2
import chainrule.v1.job_service_pb2
import chainrule.v1.model_service_pb2
import chainrule.v1.worker_service_pb2
from chainrule.cli.output import print_json
from chainrule.client.job_facts import JobFacts
from chainrule.client.job_text import event_line, fields_of, job_lines
from chainrule.client.progress import facts
from chainrule.v1 import job_pb2, model_pb2

MODULES = (
    job_pb2,
    model_pb2,
    chainrule.v1.cluster_service_pb2,
    chainrule.v1.data_service_pb2,
    chainrule.v1.job_service_pb2,
    chainrule.v1.model_service_pb2,
    chainrule.v1.worker_service_pb2,
)


def messages_in(found: Any) -> Iterator[Descriptor]:
    for message in found.values():
        yield message
        yield from messages_in(message.nested_types_by_name)


MESSAGES = [message for module in MODULES for message in messages_in(module.DESCRIPTOR.message_types_by_name)]
ENUM_FIELDS = [
    (message, field)
    for message in MESSAGES
    for field in message.fields
    if field.enum_type is not None and not message.GetOptions().map_entry
]


def with_enum(message: Descriptor, field: FieldDescriptor, number: int) -> Any:
    found = message_factory.GetMessageClass(message)()
    if field.is_repeated:
        getattr(found, field.name).append(number)
    else:
        setattr(found, field.name, number)
    return found


def shown(message: Descriptor, field: FieldDescriptor, number: int) -> Any:
    value = fields_of(with_enum(message, field, number))[field.name]
    return value[0] if field.is_repeated else value


def prefix_of(enum: EnumDescriptor) -> str:
    return str(enum.values_by_number[0].name).removesuffix("UNSPECIFIED")


@pytest.mark.parametrize(("message", "field"), ENUM_FIELDS, ids=lambda each: each.name)
def test_each_enum_of_each_message_is_named_by_its_own_descriptor(message: Descriptor, field: FieldDescriptor) -> None:
    assert field.enum_type is not None
    for value in field.enum_type.values:
        assert prefix_of(field.enum_type) + shown(message, field, value.number) == value.name


@pytest.mark.parametrize(("message", "field"), ENUM_FIELDS, ids=lambda each: each.name)
def test_a_value_that_this_version_does_not_know_is_its_number(message: Descriptor, field: FieldDescriptor) -> None:
    assert shown(message, field, 1234) == "1234"


def test_the_enums_of_a_waiting_job_and_of_a_lost_worker_are_not_states_of_a_job() -> None:
    assert {field.enum_type.name for _, field in ENUM_FIELDS if field.enum_type is not None} >= {
        "JobState",
        "WaitingReason",
        "LossReason",
        "NamedVersion",
        "OrderKind",
    }
    job = job_pb2.Job(waiting=job_pb2.Waiting(reason=job_pb2.WAITING_REASON_PARTIAL_SUMS))
    assert fields_of(job)["waiting"]["reason"] == "PARTIAL_SUMS"
    event = job_pb2.JobEvent(worker_lost=job_pb2.WorkerLost(reason=job_pb2.LOSS_REASON_CONNECTION_LOST))
    assert fields_of(event)["worker_lost"]["reason"] == "CONNECTION_LOST"


def filled(message: Descriptor, depth: int = 0) -> Any:
    """A message of which every field is set, as far as 3 levels down; of each oneof the first that comes."""
    found = message_factory.GetMessageClass(message)()
    for field in message.fields:
        if field.containing_oneof is not None and field is not field.containing_oneof.fields[0]:
            continue
        if field.message_type is None:
            of_type = {FieldDescriptor.TYPE_BYTES: b"\xff", FieldDescriptor.TYPE_STRING: "text"}
            one = of_type.get(field.type, 1)
            if field.is_repeated:
                getattr(found, field.name).append(one)
            else:
                setattr(found, field.name, one)
        elif field.message_type.GetOptions().map_entry or field.message_type.name == "Any":
            continue
        elif depth < 3:
            inner = filled(field.message_type, depth + 1)
            if field.is_repeated:
                getattr(found, field.name).append(inner)
            else:
                getattr(found, field.name).CopyFrom(inner)
    return found


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.name)
def test_every_message_is_json_with_the_fields_that_protobuf_has(
    message: Descriptor, capsys: pytest.CaptureFixture[str]
) -> None:
    full = filled(message)
    print_json(fields_of(full))
    there = json.loads(capsys.readouterr().out)
    assert set(there) >= set(json_format.MessageToDict(full, preserving_proto_field_name=True))


def test_cells_and_labels_are_the_values_that_they_hold() -> None:
    request = chainrule.v1.model_service_pb2.PredictRequest()
    request.rows.add().extend([1.5, "x", None, False])
    assert fields_of(request)["rows"] == [[1.5, "x", None, False]]
    assert fields_of(job_pb2.JobSpec(labels={"team": "vision"}))["labels"] == {"team": "vision"}


def test_a_loss_of_exactly_0_is_in_the_result() -> None:
    message = job_pb2.Job(job_id="abcdef012345", state=job_pb2.JOB_STATE_SUCCEEDED)
    message.result.parameter_count = 1
    message.result.validation_loss = 0.0
    message.result.metrics.add(name="accuracy", value=0.0)
    result = JobFacts(message).result
    assert result["loss"] == 0.0
    assert result["validation_loss"] == 0.0
    assert result["accuracy"] == 0.0
    assert result["validation_row_count"] == 0
    assert "best_epoch" not in result


def test_a_worker_that_rests_has_not_left_and_one_that_is_tried_again_has_not_joined() -> None:
    event = job_pb2.JobEvent(number=3)
    change = event.workers_changed
    change.left.extend(["slow", "gone"])
    change.resting.append("slow")
    change.joined.extend(["new", "again"])
    change.tried_again.append("again")
    change.worker_count = 2
    assert event_line(event).endswith(
        "2 workers: new joined, again is tried again, slow rests, as it is slow, gone left"
    )


def test_workers_that_rest_are_counted_where_the_workers_are() -> None:
    job = job_pb2.Job(state=job_pb2.JOB_STATE_RUNNING)
    job.progress.step, job.progress.workers, job.progress.resting_workers = 5, 1, 1
    job.progress.steps_per_second = 20.0
    assert "1 worker, 1 too slow" in facts(job)
    assert any("20 steps/s, 1 worker, 1 too slow" in line for line in job_lines(job))


def test_what_was_not_measured_is_not_in_the_result() -> None:
    message = job_pb2.Job(job_id="abcdef012345", state=job_pb2.JOB_STATE_RUNNING)
    assert JobFacts(message).result == {}
    message.result.loss = 0.5
    assert "validation_loss" not in JobFacts(message).result


def test_every_field_of_a_result_that_is_always_there_is_in_python_too() -> None:
    message = job_pb2.Job(result=job_pb2.Result())
    always = {field.name for field in job_pb2.Result.DESCRIPTOR.fields if not field.has_presence} - {"metrics"}
    assert set(JobFacts(message).result) == always
