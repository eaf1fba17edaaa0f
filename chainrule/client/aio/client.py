"""The client of a chainrule server: one method for each call, plain protos in and out, typed errors.

It holds one channel, which `close` (or the end of an `async with`) releases; every wait has a deadline, or keepalive
pings that find a dead server. It knows nothing of files but the model that it downloads, and what `data_calls` uploads.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self

from grpc_health.v1 import health_pb2, health_pb2_grpc

from chainrule.cells.values import Value
from chainrule.client.aio.calls import close_channel, open_channel, sleep, write_model
from chainrule.client.aio.data_calls import DataCalls
from chainrule.client.channel import (
    CREATE_TIMEOUT_S,
    DEFAULT_ADDRESS,
    DOWNLOAD_TIMEOUT_S,
    channel_options,
    checked_address,
)
from chainrule.client.health import SERVICES
from chainrule.client.model_requests import Version, explain_request_of, predict_request, set_version
from chainrule.client.patience import RECONNECT_TIMEOUT_S
from chainrule.client.watching import Lost, Watch, states_of
from chainrule.errors import ServerError, ServerTimeout, ServerUnavailable
from chainrule.security.credentials import Credentials
from chainrule.security.expiry import tell_client_of_expiry
from chainrule.v1 import cluster_service_pb2 as cluster_api
from chainrule.v1 import cluster_service_pb2_grpc, job_pb2, job_service_pb2_grpc, model_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import model_service_pb2 as model_api


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
        self._jobs = job_service_pb2_grpc.JobServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    @property
    def credentials(self) -> Credentials:
        """Who this client is to the server: for another connection to it, such as one of `chainrule.aio`."""
        return self._credentials

    async def close(self) -> None:
        """End the connection and every call on it; whoever waits for one gets ServerUnavailable."""
        self._is_closed = True
        await close_channel(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def create_job(self, spec: job_pb2.JobSpec, *, request_id: str = "") -> job_pb2.Job:
        """Put a job in the queue; its spec comes back complete. Raises InvalidJob with every wrong field.

        request_id: drawn by the caller; a repeated call with the same one returns the first job. Default: a new UUID,
        so that what gRPC repeats by itself makes one job."""
        created = await self.create_estimated_job(spec, request_id=request_id)
        return created.job

    async def create_estimated_job(self, spec: job_pb2.JobSpec, *, request_id: str = "") -> api.CreateJobResponse:
        """As `create_job`: the job, and what it takes."""
        request = api.CreateJobRequest(spec=spec, request_id=request_id or str(uuid.uuid4()))
        timeout_s = max(self._timeout_s, CREATE_TIMEOUT_S)
        response: api.CreateJobResponse = await self._ask(self._jobs.CreateJob, request, timeout_s)
        return response

    async def get_job(self, job_id: str) -> job_pb2.Job:
        """The job now. job_id: the id, or a beginning of at least 4 characters. Raises JobNotFound."""
        response: api.GetJobResponse = await self._ask(self._jobs.GetJob, api.GetJobRequest(job_id=job_id))
        return response.job

    async def validate_job(self, spec: job_pb2.JobSpec) -> api.CreateJobResponse:
        """Check a job and start nothing: its complete spec, and what it would take. Raises InvalidJob."""
        request = api.CreateJobRequest(spec=spec, validate_only=True)
        timeout_s = max(self._timeout_s, CREATE_TIMEOUT_S)
        response: api.CreateJobResponse = await self._ask(self._jobs.CreateJob, request, timeout_s)
        return response

    async def list_jobs(
        self,
        *,
        states: Sequence[job_pb2.JobState] = (),
        name_prefix: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> list[job_pb2.Job]:
        """The jobs in these states (none: all) with these labels whose names begin so, the latest first."""
        request = api.ListJobsRequest(states=states, name_prefix=name_prefix, labels=labels)
        jobs: list[job_pb2.Job] = []
        while True:
            response: api.ListJobsResponse = await self._ask(self._jobs.ListJobs, request)
            jobs += response.jobs
            if not response.next_page_token:
                return jobs
            request.page_token = response.next_page_token

    async def list_workers(self) -> list[cluster_api.Worker]:
        """The workers that are connected now, in the order in which they came."""
        request = cluster_api.ListWorkersRequest()
        response: cluster_api.ListWorkersResponse = await self._ask(self._cluster.ListWorkers, request)
        return list(response.workers)

    async def health(self) -> dict[str, str]:
        """The status of each service, "SERVING" or another; "" is the server as a whole."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        found = {}
        for name in ("", *SERVICES):
            response = await self._ask(stub.Check, health_pb2.HealthCheckRequest(service=name))
            found[name] = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
        return found

    async def report_worker_end(self, worker: str, details: str) -> None:
        """Tell the server how a worker's process ended, for the events of its job. Raises JobNotFound without one."""
        request = cluster_api.ReportWorkerEndRequest(worker=worker, details=details)
        await self._ask(self._cluster.ReportWorkerEnd, request)

    async def watch_job(
        self, job_id: str, *, reconnect_timeout_s: float = RECONNECT_TIMEOUT_S
    ) -> AsyncGenerator[job_pb2.Job, None]:
        """The job now and again as it advances; the last one has a final state. Raises JobNotFound.

        A state that passed while the connection was lost is told too; see `watch_updates` for the rest."""
        async with aclosing(self.watch_updates(job_id, reconnect_timeout_s=reconnect_timeout_s)) as updates:
            async for update in updates:
                for job in states_of(update):
                    yield job

    async def watch_updates(
        self,
        job_id: str,
        *,
        after_event: int | None = None,
        reconnect_timeout_s: float = RECONNECT_TIMEOUT_S,
        timeout_s: float | None = None,
        lost: Lost | None = None,
    ) -> AsyncGenerator[api.WatchJobResponse, None]:
        """The job with the events since the update before, until it has a final state. Raises JobNotFound.

        after_event: tell the events after this number too; None: those from now on. When the connection is lost, `lost`
        is called and it is made again, for at most reconnect_timeout_s in a row; no event is missed or told twice.
        Raises JobNotEnded where it isn't over after timeout_s."""
        watch = Watch(
            job_id, after_event=after_event, reconnect_timeout_s=reconnect_timeout_s, timeout_s=timeout_s, lost=lost
        )
        while True:
            error: ServerError | None = None
            try:
                answers = self._read(self._jobs.WatchJob, watch.request, watch.begin_call())
                async with aclosing(answers) as responses:
                    async for response in responses:
                        is_last = watch.told(response)
                        yield response
                        if is_last:
                            return
            except (ServerUnavailable, ServerTimeout) as broken:
                if self._is_closed:
                    raise
                error = broken
            await sleep(watch.wait_after(error))

    async def cancel_job(self, job_id: str) -> job_pb2.Job:
        """End a job; its last parameters are kept. Raises JobNotFound, and PreconditionFailed where it has ended."""
        response: api.CancelJobResponse = await self._ask(self._jobs.CancelJob, api.CancelJobRequest(job_id=job_id))
        return response.job

    async def pause_job(self, job_id: str) -> job_pb2.Job:
        """Let a job give its workers back and keep what it has, until it is resumed; it is PAUSED when this returns.

        That takes until the end of its step. Raises JobNotFound, and PreconditionFailed where it has ended."""
        request = api.PauseJobRequest(job_id=job_id)
        response: api.PauseJobResponse = await self._ask(self._jobs.PauseJob, request, DOWNLOAD_TIMEOUT_S)
        return response.job

    async def resume_job(self, job_id: str) -> job_pb2.Job:
        """Put a paused job back in the queue. Raises JobNotFound, and PreconditionFailed where it has ended."""
        response: api.ResumeJobResponse = await self._ask(self._jobs.ResumeJob, api.ResumeJobRequest(job_id=job_id))
        return response.job

    async def delete_job(self, job_id: str) -> str:
        """Forget an ended job, its model included; its whole id.

        Raises JobNotFound, and PreconditionFailed where it has not ended."""
        response: api.DeleteJobResponse = await self._ask(self._jobs.DeleteJob, api.DeleteJobRequest(job_id=job_id))
        return response.job_id

    async def read_metrics(self, job_id: str, *, after_step: int = 0) -> list[api.MetricRow]:
        """What was measured of the job after a step, step by step, also while it runs. Raises JobNotFound."""
        request = api.ReadMetricsRequest(job_id=job_id, after_step=after_step)
        responses = self._read(self._jobs.ReadMetrics, request, DOWNLOAD_TIMEOUT_S)
        return [row async for response in responses for row in response.rows]

    async def read_trace(self, job_id: str) -> list[api.TraceSpan]:
        """Where the time of the job's last steps went, the oldest first. Raises JobNotFound."""
        responses = self._read(self._jobs.ReadTrace, api.ReadTraceRequest(job_id=job_id), DOWNLOAD_TIMEOUT_S)
        return [span async for response in responses for span in response.spans]

    async def list_checkpoints(self, job_id: str) -> model_api.ListCheckpointsResponse:
        """The versions of a job's model that there are: checkpoints, the last and the best. Raises JobNotFound."""
        request = model_api.ListCheckpointsRequest(job_id=job_id)
        response: model_api.ListCheckpointsResponse = await self._ask(self._models.ListCheckpoints, request)
        return response

    async def predict(
        self,
        job_id: str,
        rows: Sequence[Sequence[Value]],
        columns: Sequence[str] = (),
        *,
        version: Version | None = None,
        strict: bool = False,
    ) -> model_api.PredictResponse:
        """The predictions for rows of raw features: at most 10,000, and 4 MiB, in a call.

        columns: the names of the values; none: the features in the model's order. version: of the model, the last where
        none is given. strict: refuse a category that no training row had, which the response else tells of. Raises
        JobNotFound, InvalidJob with paths such as 'rows[3].values[2]', PreconditionFailed where the job has no model or
        no prediction."""
        return await self.predict_rows(predict_request(job_id, rows, columns, version, strict=strict))

    async def predict_rows(self, request: model_api.PredictRequest) -> model_api.PredictResponse:
        """The predictions that a whole request asks for. Raises as `predict` does."""
        response: model_api.PredictResponse = await self._ask(self._models.Predict, request)
        return response

    async def explain(
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
        return await self.explain_example(explain_request_of(job_id, row, shard, max_values, version))

    async def explain_example(self, request: model_api.ExplainRequest) -> model_api.ExplainResponse:
        """The same for any example: a row of the job's data, or one of the caller's own."""
        response: model_api.ExplainResponse = await self._ask(self._models.Explain, request)
        return response

    async def explain_reduction(
        self, job_id: str, *, max_values: int | None = None, version: Version | None = None
    ) -> model_api.ExplainReductionResponse:
        """The reduced gradient of the step after the parameters, with what each shard adds to it.

        version: of the model, the last where none is given. Raises JobNotFound, PreconditionFailed."""
        request = model_api.ExplainReductionRequest(job_id=job_id, max_values=max_values)
        set_version(request, version)
        timeout_s = max(self._timeout_s, CREATE_TIMEOUT_S)
        response: model_api.ExplainReductionResponse = await self._ask(
            self._models.ExplainReduction, request, timeout_s
        )
        return response

    async def download_model(self, job_id: str, path: str | Path, *, version: Version | None = None) -> Path:
        """Write the job's model to a safetensors file, whole or not at all; return its path.

        version: a step, "best" or "last", also of a job that runs; None: the result of one that has ended. An existing
        file is replaced. Raises JobNotFound, also for a step that isn't kept, PreconditionFailed without a model,
        ModelFileError."""
        path = Path(path)
        request = api.DownloadModelRequest(job_id=job_id)
        set_version(request, version)
        await write_model(path, self._read(self._jobs.DownloadModel, request, DOWNLOAD_TIMEOUT_S))
        return path
