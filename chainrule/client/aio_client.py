"""The asyncio client of a chainrule server: the calls of `chainrule.Client` as coroutines.

It holds one channel, which `close` (or the end of an `async with`) releases; every wait has a deadline. A task that is
cancelled while it waits cancels its call. Requests, errors and the way through lost connections are those of `Client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chainrule.client.aio_data_client import AioDataCalls
from chainrule.client.channel import channel_options, checked_address
from chainrule.client.client import (
    CREATE_TIMEOUT_S,
    DOWNLOAD_TIMEOUT_S,
    Value,
    Version,
    explain_request_of,
    predict_request,
    set_version,
    states_of,
)
from chainrule.client.grpc_errors import translated
from chainrule.client.health import SERVICES
from chainrule.client.model_output import replace_file
from chainrule.client.watching import RECONNECT_TIMEOUT_S, Lost, Watch
from chainrule.errors import ServerError, ServerTimeout, ServerUnavailable
from chainrule.security.credentials import Credentials
from chainrule.security.expiry import tell_client_of_expiry
from chainrule.security.secure_channel import open_aio_channel
from chainrule.v1 import cluster_service_pb2 as cluster_api
from chainrule.v1 import cluster_service_pb2_grpc, job_pb2, job_service_pb2_grpc, model_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import model_service_pb2 as model_api


class AioClient(AioDataCalls):
    """Calls of one server, for the event loop that runs when it is made. timeout_s: the deadline of a short call.

    Raises RuntimeError outside of a running loop, AddressError, CredentialsError.
    Every method raises ServerError, of the subclass that fits."""

    def __init__(self, address: str, *, timeout_s: float = 20.0, credentials: Credentials) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("an asyncio client needs a running event loop; connect inside of a coroutine") from None
        self.address = checked_address(address)
        self._timeout_s = timeout_s
        self._credentials = credentials
        self._is_closed = False
        self._channel = open_aio_channel(self.address, credentials, channel_options(repeats=True))
        tell_client_of_expiry(credentials)
        self._cluster = cluster_service_pb2_grpc.ClusterServiceStub(self._channel)
        self._jobs = job_service_pb2_grpc.JobServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    @property
    def credentials(self) -> Credentials:
        """Who this client is to the server."""
        return self._credentials

    async def close(self) -> None:
        """End the connection and every call on it; whoever waits for one gets ServerUnavailable."""
        self._is_closed = True
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def create_job(self, spec: job_pb2.JobSpec, *, request_id: str = "") -> job_pb2.Job:
        """Put a job in the queue; its spec comes back complete. Raises InvalidJob with every wrong field.

        request_id: as in `Client.create_job`."""
        return (await self.create_estimated_job(spec, request_id=request_id)).job

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
        """The job now and again as it advances; the last one has a final state: as `Client.watch_job`."""
        async with contextlib.aclosing(self.watch_updates(job_id, reconnect_timeout_s=reconnect_timeout_s)) as updates:
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
        """The job with the events since the update before, until it has a final state: as `Client.watch_updates`."""
        watch = Watch(
            job_id, after_event=after_event, reconnect_timeout_s=reconnect_timeout_s, timeout_s=timeout_s, lost=lost
        )
        while True:
            error: ServerError | None = None
            try:
                async with contextlib.aclosing(
                    self._read(self._jobs.WatchJob, watch.request, watch.begin_call())
                ) as responses:
                    async for response in responses:
                        is_last = watch.told(response)
                        yield response
                        if is_last:
                            return
            except (ServerUnavailable, ServerTimeout) as broken:
                if self._is_closed:
                    raise
                error = broken
            await asyncio.sleep(watch.wait_after(error))

    async def cancel_job(self, job_id: str) -> job_pb2.Job:
        """End a job; its last parameters are kept. Raises JobNotFound, and PreconditionFailed where it has ended."""
        response: api.CancelJobResponse = await self._ask(self._jobs.CancelJob, api.CancelJobRequest(job_id=job_id))
        return response.job

    async def pause_job(self, job_id: str) -> job_pb2.Job:
        """Let a job give its workers back, until it is resumed; it is PAUSED when this returns, after its step.

        Raises JobNotFound, and PreconditionFailed where it has ended."""
        request = api.PauseJobRequest(job_id=job_id)
        response: api.PauseJobResponse = await self._ask(self._jobs.PauseJob, request, DOWNLOAD_TIMEOUT_S)
        return response.job

    async def resume_job(self, job_id: str) -> job_pb2.Job:
        """Put a paused job back in the queue. Raises JobNotFound, and PreconditionFailed where it has ended."""
        response: api.ResumeJobResponse = await self._ask(self._jobs.ResumeJob, api.ResumeJobRequest(job_id=job_id))
        return response.job

    async def delete_job(self, job_id: str) -> str:
        """Forget an ended job, its model included; its whole id. Raises JobNotFound, PreconditionFailed."""
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
    ) -> model_api.PredictResponse:
        """The predictions for rows of raw features: at most 10,000, and 4 MiB, in a call. See `Client.predict`."""
        request = predict_request(job_id, rows, columns, version)
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
        """Every node's forward and backward value for a row of the job's data, or a shard's microbatch.

        As `Client.explain`."""
        return await self.explain_example(explain_request_of(job_id, row, shard, max_values, version))

    async def explain_example(self, request: model_api.ExplainRequest) -> model_api.ExplainResponse:
        """Every node's forward and backward value for one example. See `Client.explain`."""
        response: model_api.ExplainResponse = await self._ask(self._models.Explain, request)
        return response

    async def explain_reduction(
        self, job_id: str, *, max_values: int | None = None, version: Version | None = None
    ) -> model_api.ExplainReductionResponse:
        """The reduced gradient of the step after the parameters: as `Client.explain_reduction`."""
        request = model_api.ExplainReductionRequest(job_id=job_id, max_values=max_values)
        set_version(request, version)
        timeout_s = max(self._timeout_s, CREATE_TIMEOUT_S)
        response: model_api.ExplainReductionResponse = await self._ask(
            self._models.ExplainReduction, request, timeout_s
        )
        return response

    async def download_model(self, job_id: str, path: str | Path, *, version: Version | None = None) -> Path:
        """Write the job's model to a safetensors file, whole or not at all; return its path.

        It is held in memory until it is whole. version, errors: as in `Client.download_model`."""
        path = Path(path)
        request = api.DownloadModelRequest(job_id=job_id)
        set_version(request, version)
        responses = self._read(self._jobs.DownloadModel, request, DOWNLOAD_TIMEOUT_S)
        parts: list[bytes] = [response.content async for response in responses]
        await asyncio.to_thread(replace_file, path, parts)
        return path

    async def _ask(self, method: Callable[..., Any], request: Message, timeout_s: float | None = None) -> Any:
        """The answer to a call. timeout_s: None for a short one."""
        if timeout_s is None:
            timeout_s = self._timeout_s
        async with self._errors(timeout_s):
            return await method(request, timeout=timeout_s)

    async def _read(self, method: Callable[..., Any], request: Message, timeout_s: float) -> AsyncGenerator[Any, None]:
        """The answers to a call; whoever stops reading cancels it."""
        async with self._errors(timeout_s):
            call = method(request, timeout=timeout_s)
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()

    @contextlib.asynccontextmanager
    async def _errors(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            # In a thread, because it may ask once more, blocking, why nobody answers.
            raise await asyncio.to_thread(translated, error, self.address, timeout_s, self._credentials) from None
        except grpc.aio.UsageError:
            # gRPC says so where the channel was closed.
            raise ServerUnavailable(f"the connection to {self.address} is closed") from None
        except asyncio.CancelledError:
            # A channel that is closed cancels who waits for its calls; a task that somebody cancelled ends as it is.
            task = asyncio.current_task()
            if not self._is_closed or task is None or task.cancelling():
                raise
            raise ServerUnavailable(f"the connection to {self.address} was closed during the call") from None
