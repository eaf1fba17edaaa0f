"""The client of a chainrule server: one method for each call, plain protos in and out, typed errors.

It holds one channel, which `close` (or the end of a `with`) releases; every wait has a deadline, or keepalive pings
that find a dead server. It knows nothing of files but the model that it downloads, and what `data_client` uploads.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from chainrule.data_client import DataCalls
from chainrule.errors import (
    AddressError,
    InvalidJob,
    JobNotFound,
    ModelFileError,
    PreconditionFailed,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
)
from chainrule.output import FINAL_STATES
from chainrule.v1 import job_pb2, job_service_pb2_grpc, model_pb2, model_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import model_service_pb2 as model_api

DEFAULT_ADDRESS = "127.0.0.1:50051"
# The server loads the data and builds the model before it answers.
CREATE_TIMEOUT_S = 300.0
DOWNLOAD_TIMEOUT_S = 3600.0
# A raw feature; None: a value that is missing.
Value = float | str | bool | None
# Of a model: the parameters after a step, of the best epoch, or the last.
Version = int | Literal["best", "last"]
NAMED_VERSIONS = {"best": model_pb2.NAMED_VERSION_BEST, "last": model_pb2.NAMED_VERSION_LAST}
SERVICES = tuple(f"chainrule.v1.{name}" for name in ("JobService", "DataService", "ModelService", "WorkerService"))
# How long a server may be away, such as for a restart, while a job is watched.
RECONNECT_TIMEOUT_S = 60.0
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 2.0

_CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 256 << 20),
    # Otherwise clients of a process share connections, and one fails while another waits before it tries again.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own are 1 s to 120 s: a restarted server would be found late.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


def connect(address: str = DEFAULT_ADDRESS, *, timeout_s: float = 20.0) -> Client:
    """A client of the server at HOST:PORT. Nothing is sent before the first call. Raises AddressError."""
    return Client(address, timeout_s=timeout_s)


class Client(DataCalls):
    """Calls of one server. timeout_s: the deadline of a short call.

    Every method raises ServerError, of the subclass that fits."""

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = 20.0) -> None:
        self.address = checked_address(address)
        self._timeout_s = timeout_s
        options = list(_CHANNEL_OPTIONS)
        if _is_loopback(self.address):
            options.append(("grpc.enable_http_proxy", 0))
        self._channel = grpc.insecure_channel(self.address, options=options)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._stub = job_service_pb2_grpc.JobServiceStub(self._channel)

    def close(self) -> None:
        """End the connection and every call on it."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def create_job(self, spec: job_pb2.JobSpec, *, request_id: str = "") -> job_pb2.Job:
        """Put a job in the queue; its spec comes back complete. Raises InvalidJob with every wrong field.

        request_id: drawn by the caller, such as a UUID; a retry with the same one returns the first job."""
        timeout_s = max(self._timeout_s, CREATE_TIMEOUT_S)
        request = api.CreateJobRequest(spec=spec, request_id=request_id)
        with self._errors(timeout_s):
            response: api.CreateJobResponse = self._stub.CreateJob(request, timeout=timeout_s)
        return response.job

    def get_job(self, job_id: str) -> job_pb2.Job:
        """The job now. job_id: the id, or a beginning of at least 4 characters. Raises JobNotFound."""
        with self._errors(self._timeout_s):
            request = api.GetJobRequest(job_id=job_id)
            response: api.GetJobResponse = self._stub.GetJob(request, timeout=self._timeout_s)
        return response.job

    def validate_job(self, spec: job_pb2.JobSpec) -> api.CreateJobResponse:
        """Check a job and start nothing: its complete spec, and what it would take. Raises InvalidJob."""
        timeout_s = max(self._timeout_s, CREATE_TIMEOUT_S)
        request = api.CreateJobRequest(spec=spec, validate_only=True)
        with self._errors(timeout_s):
            response: api.CreateJobResponse = self._stub.CreateJob(request, timeout=timeout_s)
        return response

    def list_jobs(
        self,
        *,
        states: Sequence[job_pb2.JobState] = (),
        name_prefix: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> list[job_pb2.Job]:
        """The jobs in these states (none: all) with these labels whose names begin so, the latest first."""
        request = api.ListJobsRequest(states=states, name_prefix=name_prefix, labels=labels)
        jobs: list[job_pb2.Job] = []
        with self._errors(self._timeout_s):
            while True:
                response: api.ListJobsResponse = self._stub.ListJobs(request, timeout=self._timeout_s)
                jobs += response.jobs
                if not response.next_page_token:
                    return jobs
                request.page_token = response.next_page_token

    def health(self) -> dict[str, str]:
        """The status of each service, "SERVING" or another; "" is the server as a whole."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        found = {}
        with self._errors(self._timeout_s):
            for name in ("", *SERVICES):
                request = health_pb2.HealthCheckRequest(service=name)
                status = stub.Check(request, timeout=self._timeout_s).status
                found[name] = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
        return found

    def watch_job(self, job_id: str, *, reconnect_timeout_s: float = RECONNECT_TIMEOUT_S) -> Iterator[job_pb2.Job]:
        """The job now and again as it advances; the last one has a final state. Raises JobNotFound.

        A state that passed while the connection was lost is told too; see `watch_updates` for the rest."""
        for update in self.watch_updates(job_id, reconnect_timeout_s=reconnect_timeout_s):
            yield from states_of(update)

    def watch_updates(
        self,
        job_id: str,
        *,
        after_event: int | None = None,
        reconnect_timeout_s: float = RECONNECT_TIMEOUT_S,
        lost: Callable[[ServerError], None] | None = None,
    ) -> Iterator[api.WatchJobResponse]:
        """The job with the events since the update before, until it has a final state. Raises JobNotFound.

        after_event: tell the events after this number too; None: those from now on. When the connection is lost, `lost`
        is called and it is made again, for at most reconnect_timeout_s in a row; no event is missed or told twice."""
        request = api.WatchJobRequest(job_id=job_id)
        if after_event is not None:
            request.after_event = after_event
        # A first call that fails may have the wrong address; who names an event has been there.
        is_known = after_event is not None
        lost_at_s: float | None = None
        backoff_s = FIRST_BACKOFF_S
        while True:
            error: ServerError | None = None
            try:
                with self._errors(self._timeout_s), _call(self._stub.WatchJob(request)) as call:
                    for response in call:
                        is_known, lost_at_s, backoff_s = True, None, FIRST_BACKOFF_S
                        request.job_id, request.after_event = response.job.job_id, response.last_event
                        yield response
                        if response.job.state in FINAL_STATES:
                            return
            except ServerUnavailable as unavailable:
                error = unavailable
            error = error or ServerUnavailable(f"the server at {self.address} stopped telling how job {job_id} goes on")
            now_s = time.monotonic()
            if lost_at_s is None:
                lost_at_s = now_s
                if lost is not None and is_known and reconnect_timeout_s > 0:
                    lost(error)
            if not is_known or now_s + backoff_s >= lost_at_s + reconnect_timeout_s:
                raise error
            time.sleep(backoff_s * (0.5 + random.random()))  # noqa: S311 - so that clients don't come all at once
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def cancel_job(self, job_id: str) -> job_pb2.Job:
        """End a job; its last parameters are kept. Raises JobNotFound, and PreconditionFailed where it has ended."""
        with self._errors(self._timeout_s):
            request = api.CancelJobRequest(job_id=job_id)
            response: api.CancelJobResponse = self._stub.CancelJob(request, timeout=self._timeout_s)
        return response.job

    def pause_job(self, job_id: str) -> job_pb2.Job:
        """Let a job give its workers back and keep what it has, until it is resumed; it is PAUSED when this returns.

        That takes until the end of its step. Raises JobNotFound, and PreconditionFailed where it has ended."""
        with self._errors(DOWNLOAD_TIMEOUT_S):
            request = api.PauseJobRequest(job_id=job_id)
            response: api.PauseJobResponse = self._stub.PauseJob(request, timeout=DOWNLOAD_TIMEOUT_S)
        return response.job

    def resume_job(self, job_id: str) -> job_pb2.Job:
        """Put a paused job back in the queue. Raises JobNotFound, and PreconditionFailed where it has ended."""
        with self._errors(self._timeout_s):
            request = api.ResumeJobRequest(job_id=job_id)
            response: api.ResumeJobResponse = self._stub.ResumeJob(request, timeout=self._timeout_s)
        return response.job

    def predict(
        self,
        job_id: str,
        rows: Sequence[Sequence[Value]],
        columns: Sequence[str] = (),
        *,
        version: Version | None = None,
    ) -> model_api.PredictResponse:
        """The predictions for rows of raw features: at most 10,000, and 4 MiB, in a call.

        columns: the names of the values; none: the features in the model's order. version: of the model, the last where
        none is given. Raises JobNotFound, InvalidJob with
        paths such as 'rows[3].values[2]', PreconditionFailed where the job has no model or no prediction."""
        request = predict_request(job_id, rows, columns)
        _set_version(request, version)
        with self._errors(self._timeout_s):
            response: model_api.PredictResponse = self._models.Predict(request, timeout=self._timeout_s)
        return response

    def explain(
        self, job_id: str, *, row: int, max_values: int | None = None, version: Version | None = None
    ) -> model_api.ExplainResponse:
        """Every node's forward and backward value for a row of the job's data.

        version: of the model, the last where none is given. Raises JobNotFound, InvalidJob, PreconditionFailed where
        the job has no model."""
        request = model_api.ExplainRequest(job_id=job_id, row=row, max_values=max_values)
        _set_version(request, version)
        with self._errors(self._timeout_s):
            response: model_api.ExplainResponse = self._models.Explain(request, timeout=self._timeout_s)
        return response

    def delete_job(self, job_id: str) -> str:
        """Forget an ended job, its model included; its whole id.

        Raises JobNotFound, and PreconditionFailed where it has not ended."""
        with self._errors(self._timeout_s):
            request = api.DeleteJobRequest(job_id=job_id)
            response: api.DeleteJobResponse = self._stub.DeleteJob(request, timeout=self._timeout_s)
        return response.job_id

    def read_trace(self, job_id: str) -> list[api.TraceSpan]:
        """Where the time of the job's last steps went, the oldest first. Raises JobNotFound."""
        request = api.ReadTraceRequest(job_id=job_id)
        with (
            self._errors(DOWNLOAD_TIMEOUT_S),
            _call(self._stub.ReadTrace(request, timeout=DOWNLOAD_TIMEOUT_S)) as call,
        ):
            return [span for response in call for span in response.spans]

    def list_checkpoints(self, job_id: str) -> model_api.ListCheckpointsResponse:
        """The versions of a job's model that there are: checkpoints, the last and the best. Raises JobNotFound."""
        request = model_api.ListCheckpointsRequest(job_id=job_id)
        with self._errors(self._timeout_s):
            response: model_api.ListCheckpointsResponse = self._models.ListCheckpoints(request, timeout=self._timeout_s)
        return response

    def download_model(self, job_id: str, path: str | Path, *, version: Version | None = None) -> Path:
        """Write the job's model to a safetensors file, whole or not at all; return its path.

        version: a step, "best" or "last", also of a job that runs; None: the result of one that has ended. An existing
        file is replaced. Raises JobNotFound, also for a step that isn't kept, PreconditionFailed without a model,
        ModelFileError."""
        path = Path(path)
        request = api.DownloadModelRequest(job_id=job_id)
        _set_version(request, version)
        with (
            self._errors(DOWNLOAD_TIMEOUT_S),
            _call(self._stub.DownloadModel(request, timeout=DOWNLOAD_TIMEOUT_S)) as call,
        ):
            _replace(path, (response.content for response in call))
        return path

    @contextlib.contextmanager
    def _errors(self, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise _translated(error, self.address, timeout_s) from None
        except ValueError as error:
            # gRPC says so where the channel was closed.
            raise ServerUnavailable(f"the connection to {self.address} is closed ({error})") from None


def states_of(update: api.WatchJobResponse) -> Iterator[job_pb2.Job]:
    """The job in each state that it passed since the update before, and as it is now."""
    for event in update.events:
        if event.HasField("state_changed") and event.state_changed.state != update.job.state:
            passed = job_pb2.Job()
            passed.CopyFrom(update.job)
            passed.state = event.state_changed.state
            for name in ("error", "result", "end_time"):
                passed.ClearField(name)
            yield passed
    yield update.job


def predict_request(
    job_id: str, rows: Sequence[Sequence[Value]], columns: Sequence[str] = ()
) -> model_api.PredictRequest:
    """The request of `Client.predict`."""
    request = model_api.PredictRequest(job_id=job_id, columns=columns)
    for row in rows:
        request.rows.add().extend(row)
    return request


def _set_version(
    request: api.DownloadModelRequest | model_api.PredictRequest | model_api.ExplainRequest, version: Version | None
) -> None:
    if isinstance(version, int):
        request.version.step = version
    elif version is not None:
        request.version.named = NAMED_VERSIONS[version]


def checked_address(address: str) -> str:
    """The address itself. Raises AddressError where it isn't HOST:PORT."""
    found = re.fullmatch(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>[0-9]{1,5})", address)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise AddressError(f"{address!r} is no server address; write HOST:PORT, for example {DEFAULT_ADDRESS}")
    return address


def check_output(path: Path) -> None:
    """Raise ModelFileError where a file can't be put at `path`. Makes the folder if it is missing."""
    if path.exists() and not path.is_file():
        raise ModelFileError(f"{path} is not a file; name a file for the model")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"the folder {path.parent} can't be made: {error.strerror}; choose another") from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ModelFileError(f"the folder {path.parent} can't be written to; choose another file for the model")


def _replace(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file beside `path`, sync it, and give it its name."""
    check_output(path)
    temporary = path.parent / f".{secrets.token_hex(6)}.partial"
    try:
        # os.open and not tempfile: the model gets the permissions that the user's umask gives.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ModelFileError(f"{path} can't be written: {error.strerror}; choose another file") from None


@contextlib.contextmanager
def _call(call: Any) -> Iterator[Any]:
    """The call, cancelled at the end: whoever stops reading leaves nothing behind."""
    try:
        yield call
    finally:
        call.cancel()


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]").lower()
    return host in ("localhost", "::1") or host.startswith("127.")


def _translated(error: grpc.RpcError, address: str, timeout_s: float) -> ServerError:
    """The typed error of a gRPC status and its google.rpc details."""
    call = cast(grpc.Call, error)
    code = call.code()
    message = call.details() or code.name
    violations, reason = _details(call)
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidJob(message, violations=violations, reason=reason)
        case grpc.StatusCode.NOT_FOUND:
            return JobNotFound(message, reason=reason)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return PreconditionFailed(message, reason=reason)
        case grpc.StatusCode.CANCELLED:
            return ServerUnavailable(f"the server at {address} ended the call ({message})", reason=reason)
        case grpc.StatusCode.UNAVAILABLE:
            why = message.rpartition("Failed to connect to remote host: ")[2]
            if "errors resolving" in why or "DNS resolution failed" in why:
                why = "its host name is unknown"
            return ServerUnavailable(
                f"no chainrule server answers at {address} ({why}); start one with 'chainrule server' or name another",
                reason=reason,
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerTimeout(
                f"the server at {address} didn't answer within {timeout_s:g} s; try again, or look at its log",
                reason=reason,
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServerError(
                f"the program at {address} doesn't know this call; is it a chainrule server of this version?"
            )
        case _:
            return ServerError(f"the server at {address} failed: {message} ({code.name})", reason=reason)


def _details(call: grpc.Call) -> tuple[list[tuple[str, str]], str]:
    """The field violations and the reason that ride along with a status."""
    violations: list[tuple[str, str]] = []
    reason = ""
    try:
        status = rpc_status.from_call(call)
    except Exception:  # noqa: BLE001 - malformed details must not hide the error that they belong to
        status = None
    for detail in status.details if status is not None else ():
        request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        if detail.Unpack(request):
            violations += [(violation.field, violation.description) for violation in request.field_violations]
        elif detail.Unpack(info):
            reason = info.reason
    return violations, reason
