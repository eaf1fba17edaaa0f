"""The client of a chainrule server: one method for each call, plain protos in and out, typed errors.

It holds one channel, which `close` (or the end of a `with`) releases; every wait has a deadline, or keepalive pings
that find a dead server. It knows nothing of files but the model that it downloads, and what `data_client` uploads.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import grpc

from chainrule.client.channel import DEFAULT_ADDRESS, channel_options, checked_address
from chainrule.client.data_client import DataCalls
from chainrule.client.grpc_errors import translated
from chainrule.client.health import service_health
from chainrule.client.model_output import replace_file
from chainrule.client.watching import RECONNECT_TIMEOUT_S, Lost, Watch
from chainrule.errors import ServerError, ServerTimeout, ServerUnavailable
from chainrule.security.credentials import Credentials
from chainrule.security.expiry import tell_client_of_expiry
from chainrule.security.secure_channel import open_channel
from chainrule.v1 import cluster_service_pb2 as cluster_api
from chainrule.v1 import cluster_service_pb2_grpc, job_pb2, job_service_pb2_grpc, model_pb2, model_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import model_service_pb2 as model_api

# The server loads the data and builds the model before it answers.
CREATE_TIMEOUT_S = 300.0
DOWNLOAD_TIMEOUT_S = 3600.0
# A raw feature; None: a value that is missing.
Value = float | str | bool | None
# Of a model: the parameters after a step, of the best epoch, or the last.
Version = int | Literal["best", "last"]
NAMED_VERSIONS = {"best": model_pb2.NAMED_VERSION_BEST, "last": model_pb2.NAMED_VERSION_LAST}


class Client(DataCalls):
    """Calls of one server. timeout_s: the deadline of a short call. repeats: see `chainrule.client.channel`.

    credentials: TLS and token; where none are given, what the environment says (CHAINRULE_TLS_CA,
    CHAINRULE_TOKEN_FILE, …). Raises AddressError, CredentialsError.
    Every method raises ServerError, of the subclass that fits."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = 20.0,
        repeats: bool = False,
        credentials: Credentials | None = None,
    ) -> None:
        self.address = checked_address(address)
        self._timeout_s = timeout_s
        self._credentials = Credentials.from_environment(os.environ) if credentials is None else credentials
        self._is_closed = False
        self._channel = open_channel(self.address, self._credentials, channel_options(repeats=repeats))
        tell_client_of_expiry(self._credentials)
        self._cluster = cluster_service_pb2_grpc.ClusterServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._stub = job_service_pb2_grpc.JobServiceStub(self._channel)

    @property
    def credentials(self) -> Credentials:
        """Who this client is to the server: for another connection to it, such as one of `chainrule.aio`."""
        return self._credentials

    def close(self) -> None:
        """End the connection and every call on it."""
        self._is_closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def create_job(self, spec: job_pb2.JobSpec, *, request_id: str = "") -> job_pb2.Job:
        """Put a job in the queue; its spec comes back complete. Raises InvalidJob with every wrong field.

        request_id: drawn by the caller; a repeated call with the same one returns the first job. Default: a new UUID,
        so that what gRPC repeats by itself makes one job."""
        return self.create_estimated_job(spec, request_id=request_id).job

    def create_estimated_job(self, spec: job_pb2.JobSpec, *, request_id: str = "") -> api.CreateJobResponse:
        """As `create_job`: the job, and what it takes."""
        timeout_s = max(self._timeout_s, CREATE_TIMEOUT_S)
        request = api.CreateJobRequest(spec=spec, request_id=request_id or str(uuid.uuid4()))
        with self._errors(timeout_s):
            response: api.CreateJobResponse = self._stub.CreateJob(request, timeout=timeout_s)
        return response

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
        with self._errors(self._timeout_s):
            return service_health(self._channel, timeout_s=self._timeout_s)

    def list_workers(self) -> list[cluster_api.Worker]:
        """The workers that are connected now, in the order in which they came."""
        with self._errors(self._timeout_s):
            response: cluster_api.ListWorkersResponse = self._cluster.ListWorkers(
                cluster_api.ListWorkersRequest(), timeout=self._timeout_s
            )
        return list(response.workers)

    def report_worker_end(self, worker: str, details: str) -> None:
        """Tell the server how a worker's process ended, for the events of its job. Raises JobNotFound without one."""
        with self._errors(self._timeout_s):
            request = cluster_api.ReportWorkerEndRequest(worker=worker, details=details)
            self._cluster.ReportWorkerEnd(request, timeout=self._timeout_s)

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
        timeout_s: float | None = None,
        lost: Lost | None = None,
    ) -> Iterator[api.WatchJobResponse]:
        """The job with the events since the update before, until it has a final state. Raises JobNotFound.

        after_event: tell the events after this number too; None: those from now on. When the connection is lost, `lost`
        is called and it is made again, for at most reconnect_timeout_s in a row; no event is missed or told twice.
        Raises JobNotEnded where it isn't over after timeout_s."""
        watch = Watch(
            job_id,
            after_event=after_event,
            reconnect_timeout_s=reconnect_timeout_s,
            timeout_s=timeout_s,
            lost=lost,
        )
        while True:
            error: ServerError | None = None
            try:
                timeout = watch.begin_call()
                with self._errors(timeout), _call(self._stub.WatchJob(watch.request, timeout=timeout)) as call:
                    for response in call:
                        is_last = watch.told(response)
                        yield response
                        if is_last:
                            return
            except (ServerUnavailable, ServerTimeout) as broken:
                if self._is_closed:
                    raise
                error = broken
            time.sleep(watch.wait_after(error))

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
        request = predict_request(job_id, rows, columns, version)
        with self._errors(self._timeout_s):
            response: model_api.PredictResponse = self._models.Predict(request, timeout=self._timeout_s)
        return response

    def explain(
        self,
        job_id: str,
        *,
        row: int | None = None,
        shard: int | None = None,
        max_values: int | None = None,
        version: Version | None = None,
    ) -> model_api.ExplainResponse:
        """Every node's forward and backward value for a row of the job's data, or for a shard's microbatch.

        row, shard: one of them, counted from 0. version: of the model, the last where none is given. Raises
        JobNotFound, InvalidJob, PreconditionFailed where the job has no model."""
        return self.explain_example(explain_request_of(job_id, row, shard, max_values, version))

    def explain_example(self, request: model_api.ExplainRequest) -> model_api.ExplainResponse:
        """The same for any example: a row of the job's data, or one of the caller's own."""
        with self._errors(self._timeout_s):
            response: model_api.ExplainResponse = self._models.Explain(request, timeout=self._timeout_s)
        return response

    def explain_reduction(
        self, job_id: str, *, max_values: int | None = None, version: Version | None = None
    ) -> model_api.ExplainReductionResponse:
        """The reduced gradient of the step after the parameters, with what each shard adds to it.

        version: of the model, the last where none is given. Raises JobNotFound, PreconditionFailed."""
        request = model_api.ExplainReductionRequest(job_id=job_id, max_values=max_values)
        set_version(request, version)
        timeout_s = max(self._timeout_s, CREATE_TIMEOUT_S)
        with self._errors(timeout_s):
            response: model_api.ExplainReductionResponse = self._models.ExplainReduction(request, timeout=timeout_s)
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

    def read_metrics(self, job_id: str, *, after_step: int = 0) -> list[api.MetricRow]:
        """What was measured of the job after a step, step by step, also while it runs. Raises JobNotFound."""
        request = api.ReadMetricsRequest(job_id=job_id, after_step=after_step)
        with (
            self._errors(DOWNLOAD_TIMEOUT_S),
            _call(self._stub.ReadMetrics(request, timeout=DOWNLOAD_TIMEOUT_S)) as call,
        ):
            return [row for response in call for row in response.rows]

    def download_model(self, job_id: str, path: str | Path, *, version: Version | None = None) -> Path:
        """Write the job's model to a safetensors file, whole or not at all; return its path.

        version: a step, "best" or "last", also of a job that runs; None: the result of one that has ended. An existing
        file is replaced. Raises JobNotFound, also for a step that isn't kept, PreconditionFailed without a model,
        ModelFileError."""
        path = Path(path)
        request = api.DownloadModelRequest(job_id=job_id)
        set_version(request, version)
        with (
            self._errors(DOWNLOAD_TIMEOUT_S),
            _call(self._stub.DownloadModel(request, timeout=DOWNLOAD_TIMEOUT_S)) as call,
        ):
            replace_file(path, (response.content for response in call))
        return path

    @contextlib.contextmanager
    def _errors(self, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise translated(error, self.address, timeout_s, self._credentials) from None
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
    job_id: str, rows: Sequence[Sequence[Value]], columns: Sequence[str] = (), version: Version | None = None
) -> model_api.PredictRequest:
    """The request of `Client.predict`."""
    request = model_api.PredictRequest(job_id=job_id, columns=columns)
    for row in rows:
        request.rows.add().extend(row)
    set_version(request, version)
    return request


def explain_request_of(
    job_id: str, row: int | None, shard: int | None, max_values: int | None, version: Version | None
) -> model_api.ExplainRequest:
    """The request of `Client.explain`."""
    request = model_api.ExplainRequest(job_id=job_id, row=row, shard=shard, max_values=max_values)
    set_version(request, version)
    return request


def set_version(
    request: api.DownloadModelRequest
    | model_api.PredictRequest
    | model_api.ExplainRequest
    | model_api.ExplainReductionRequest,
    version: Version | None,
) -> None:
    """Say which version of a model is meant; None: the one that the call takes where none is given."""
    if isinstance(version, int):
        request.version.step = version
    elif version is not None:
        request.version.named = NAMED_VERSIONS[version]


@contextlib.contextmanager
def _call(call: Any) -> Iterator[Any]:
    """The call, cancelled at the end: whoever stops reading leaves nothing behind."""
    try:
        yield call
    finally:
        call.cancel()
