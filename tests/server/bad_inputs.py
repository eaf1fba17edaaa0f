"""Bad input for every method, by name: docs/bad-inputs.md tells what each of them is answered.

`python -m tests.server.bad_inputs` prints the page's table.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chainrule.v1 import cluster_service_pb2, data_service_pb2, job_pb2, job_service_pb2, model_pb2, model_service_pb2
from chainrule.v1 import worker_service_pb2 as worker_api
from tests.server.in_process import (
    TIMEOUT_S,
    RunningServer,
    add_data_sets,
    classes_spec,
    prepared,
    regression_spec,
    running_server,
    upload,
)

# Jobs of the server that is asked: ids are what `running_server` draws, one after the other.
DONE, CLASSES, WITHOUT_PREDICTION, CANCELLED, QUEUED = (f"{number}{'0' * 11}" for number in range(1, 6))
BEGUN, UNKNOWN = "ab" * 32, "0" * 64
LONGEST_MESSAGE = 90
FILES = (job_service_pb2, data_service_pb2, model_service_pb2, cluster_service_pb2)
METHODS = {
    method.name: method
    for file in (*FILES, worker_api)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(frozen=True)
class BadInput:
    """what: in words. fields: of the request; a list: of each request of a stream."""

    method: str
    what: str
    fields: dict[str, Any] | list[dict[str, Any]]


def spec(change: Callable[[job_pb2.JobSpec], Any]) -> dict[str, Any]:
    """The fields of a CreateJob with a job in which one thing is wrong."""
    wrong = regression_spec()
    change(wrong)
    return {"spec": wrong}


def set_of(path: str, value: Any) -> dict[str, Any]:
    """The same, with a field that is set: 'training.epochs'."""

    def change(wrong: job_pb2.JobSpec) -> None:
        *parents, name = path.split(".")
        message: Any = wrong
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)

    return spec(change)


def rows(*each: list[Any]) -> list[struct_pb2.ListValue]:
    """Rows of a Predict."""
    found = []
    for values in each:
        found.append(struct_pb2.ListValue())
        found[-1].extend(values)
    return found


def version(**fields: Any) -> Any:
    """A ModelVersion."""
    return model_pb2.ModelVersion(**fields)


BAD_INPUTS = [
    BadInput("CreateJob", "nothing at all", {}),
    BadInput("CreateJob", "no epochs", set_of("training.epochs", 0)),
    BadInput("CreateJob", "a batch that its shards don't divide", set_of("training.batch_size", 7)),
    BadInput("CreateJob", "shards that are no power of two", set_of("training.shards", 3)),
    BadInput(
        "CreateJob", "a learning rate that is no number", set_of("training.optimizer.learning_rate", float("nan"))
    ),
    BadInput("CreateJob", "an optimizer that isn't there", set_of("training.optimizer.name", "adamm")),
    BadInput("CreateJob", "more workers than shards", set_of("training.min_workers", 3)),
    BadInput("CreateJob", "a formula that ends too soon", set_of("model.prediction", "w @")),
    BadInput("CreateJob", "a formula of 300 parentheses", set_of("model.prediction", "(" * 300 + "x" + ")" * 300)),
    BadInput("CreateJob", "Python in a formula", set_of("model.loss", "__import__('os').system('true')")),
    BadInput(
        "CreateJob", "a parameter whose shape doesn't fit", spec(lambda job: job.model.parameters[0].shape.append("4"))
    ),
    BadInput("CreateJob", "a shape that is no number", spec(lambda job: job.model.parameters[0].shape.append("-1"))),
    BadInput("CreateJob", "a name that isn't in the formula", set_of("model.prediction", "w @ x + b + c")),
    BadInput("CreateJob", "a data set that isn't there", set_of("data.uri", "sklearn:diabetis")),
    BadInput("CreateJob", "a file outside of the data root", set_of("data.uri", "file:../../etc/passwd")),
    BadInput("CreateJob", "a bucket that nobody has allowed", set_of("data.uri", "s3://private/rows.csv")),
    BadInput(
        "CreateJob",
        "a column that isn't there",
        spec(lambda job: job.data.features.append("price")),
    ),
    BadInput("CreateJob", "a wrong label", spec(lambda job: job.labels.update({"-team": "vision"}))),
    BadInput("CreateJob", "a request_id that isn't ASCII", {"spec": regression_spec(), "request_id": "é"}),
    BadInput("GetJob", "a job that isn't there", {"job_id": "ffff00000000"}),
    BadInput("GetJob", "too short a beginning of an id", {"job_id": DONE[:3]}),
    BadInput("ListJobs", "a page below nothing", {"page_size": -1}),
    BadInput("ListJobs", "a token of another request", {"page_token": "bm9uc2Vuc2U"}),
    BadInput("ListJobs", "a state that isn't there", {"states": [99]}),
    BadInput("WatchJob", "a job that isn't there", {"job_id": "ffff00000000"}),
    BadInput("WatchJob", "an event that the job doesn't have", {"job_id": QUEUED, "after_event": 9}),
    BadInput("CancelJob", "a job that has succeeded", {"job_id": DONE}),
    BadInput("PauseJob", "a job that has ended", {"job_id": CANCELLED}),
    BadInput("ResumeJob", "a job that has ended", {"job_id": CANCELLED}),
    BadInput("DeleteJob", "a job that has not ended", {"job_id": QUEUED}),
    BadInput("DownloadModel", "a job that has not ended, and no version", {"job_id": QUEUED}),
    BadInput("DownloadModel", "a job that made no step", {"job_id": CANCELLED}),
    BadInput("DownloadModel", "a step that isn't kept", {"job_id": DONE, "version": version(step=3)}),
    BadInput("ReadTrace", "a job that isn't there", {"job_id": ""}),
    BadInput("ReadMetrics", "a job that isn't there", {"job_id": "ffff00000000"}),
    BadInput("BeginUpload", "nothing at all", {}),
    BadInput("BeginUpload", "a name with a folder", {"sha256": UNKNOWN, "size_bytes": 1, "name": "../rows.csv"}),
    BadInput("BeginUpload", "a pickle", {"sha256": UNKNOWN, "size_bytes": 1, "name": "rows.pkl"}),
    BadInput(
        "BeginUpload", "an upload under way, of another size", {"sha256": BEGUN, "size_bytes": 9, "name": "b.csv"}
    ),
    BadInput("BeginUpload", "more than the server keeps", {"sha256": UNKNOWN, "size_bytes": 1 << 50, "name": "b.csv"}),
    BadInput("AppendUpload", "no part", []),
    BadInput("AppendUpload", "an upload that was not begun", [{"sha256": UNKNOWN, "content": b"x"}]),
    BadInput("AppendUpload", "a gap", [{"sha256": BEGUN, "offset": 2, "content": b"x"}]),
    BadInput("AppendUpload", "more than was announced", [{"sha256": BEGUN, "content": b"x" * 5}]),
    BadInput("AppendUpload", "parts of two uploads", [{"sha256": BEGUN, "content": b"x"}, {"sha256": UNKNOWN}]),
    BadInput("FinishUpload", "an upload with bytes missing", {"sha256": BEGUN}),
    BadInput("CancelUpload", "an upload that isn't there", {"sha256": UNKNOWN}),
    BadInput("GetDataSet", "a data set that isn't there", {"data_set": "nobody.csv"}),
    BadInput("ListDataSets", "a page below nothing", {"page_size": -1}),
    BadInput("DeleteDataSet", "one that a queued job needs", {"data_set": "rows.csv"}),
    BadInput("Predict", "no rows", {"job_id": DONE}),
    BadInput("Predict", "a row with a value too few", {"job_id": DONE, "rows": rows([1, 2, 3], [1, 2])}),
    BadInput("Predict", "a word for a number", {"job_id": DONE, "rows": rows([1, "two", 3])}),
    BadInput("Predict", "a missing value, which the job refuses", {"job_id": DONE, "rows": rows([1, None, 3])}),
    BadInput("Predict", "infinity", {"job_id": DONE, "rows": rows([1, float("inf"), 3])}),
    BadInput("Predict", "a column twice", {"job_id": DONE, "rows": rows([1, 2, 3]), "columns": ["a", "b", "b"]}),
    BadInput("Predict", "a job with a loss and no prediction", {"job_id": WITHOUT_PREDICTION, "rows": rows([1, 2, 3])}),
    BadInput("Explain", "no example", {"job_id": DONE}),
    BadInput("Explain", "a row that the data doesn't have", {"job_id": DONE, "row": 40}),
    BadInput("Explain", "a shard that the job doesn't have", {"job_id": DONE, "shard": 2}),
    BadInput(
        "Explain",
        "a class that nobody knows",
        {
            "job_id": CLASSES,
            "own": model_service_pb2.Example(features=rows([1, 2])[0], target=struct_pb2.Value(string_value="pink")),
        },
    ),
    BadInput("Explain", "too many values", {"job_id": DONE, "row": 0, "max_values": 100_001}),
    BadInput("ExplainReduction", "a job that made no step", {"job_id": CANCELLED}),
    BadInput("ListCheckpoints", "a job that isn't there", {"job_id": "ffff00000000"}),
    BadInput("ListWorkers", "bytes that are no message", {}),
    BadInput("ReportWorkerEnd", "a worker that nobody knows", {"worker": "nobody", "details": "it ended"}),
    BadInput("Train", "no hello", [{"alive": worker_api.Alive()}]),
    BadInput("Train", "two hellos", [{"hello": worker_api.Hello(name="w")}, {"hello": worker_api.Hello(name="w")}]),
    BadInput("ReadShard", "a stranger", {"job_id": QUEUED, "session": b"guessed"}),
]


@contextmanager
def asked_server(folder: Path) -> Iterator[RunningServer]:
    """A server with a job of each kind, a data set and an upload that has begun."""
    with pytest.MonkeyPatch.context() as patch, running_server(folder) as server:
        add_data_sets(patch)
        without_prediction = regression_spec()
        without_prediction.model.prediction, without_prediction.model.loss = "", "(w @ x + b - y)**2"
        for each in (regression_spec(), classes_spec(), without_prediction):
            server.add_finished(prepared(each))
        cancelled = server.submit(prepared(regression_spec()))
        server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=cancelled.job_id), timeout=TIMEOUT_S)
        upload(server, "rows.csv", b"a,target\n" + b"1,2\n3,5\n" * 20)
        needing = regression_spec()
        needing.data.uri, needing.data.target = "dataset:rows.csv", "target"
        server.jobs.CreateJob(job_service_pb2.CreateJobRequest(spec=needing), timeout=TIMEOUT_S)
        begin = data_service_pb2.BeginUploadRequest(sha256=BEGUN, size_bytes=4, name="begun.csv")
        server.data.BeginUpload(begin, timeout=TIMEOUT_S)
        yield server


def answer_to(server: RunningServer, bad: BadInput) -> grpc.RpcError:
    """The error that a call with this input ends with. Raises AssertionError where it ends with none."""
    method = METHODS[bad.method]
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(server.channel, kind)(f"/{method.containing_service.full_name}/{method.name}")
    make = GetMessageClass(method.input_type)
    if isinstance(bad.fields, list):
        request: Any = iter([make(**fields).SerializeToString() for fields in bad.fields])
    else:
        request = b"\xff" if bad.what == "bytes that are no message" else make(**bad.fields).SerializeToString()
    try:
        answer = call(request, timeout=TIMEOUT_S)
        for _ in answer if method.server_streaming else ():
            pass
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"{bad.method} takes {bad.what}")


def line_of(bad: BadInput, error: grpc.RpcError) -> str:
    """The line of the table."""
    status = rpc_status.from_call(error)
    paths, reason = [], ""
    for detail in status.details:
        request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        if detail.Unpack(request):
            paths = [f"`{each.field}`" for each in request.field_violations if each.field]
        elif detail.Unpack(info):
            reason = info.reason
    said = error.details().splitlines()[0]
    if len(said) > LONGEST_MESSAGE:
        said = said[:LONGEST_MESSAGE].rsplit(" ", 1)[0] + " …"
    code = f"[{reason}](errors/{reason}.md)"
    cells = (bad.method, bad.what, error.code().name, code, ", ".join(paths), said.replace("|", "\\|"))
    return f"| {' | '.join(cells)} |"


def table(folder: Path) -> list[str]:
    """The page's table, from a server that is asked."""
    with asked_server(folder) as server:
        lines = [line_of(bad, answer_to(server, bad)) for bad in BAD_INPUTS]
    return ["| method | bad input | code | reason | fields | what it says |", "|---|---|---|---|---|---|", *lines]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sys.stdout.write("\n".join(table(Path(name))) + "\n")
