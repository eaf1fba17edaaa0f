"""`chainrule.aio.connect`: the client for people, for asyncio. Names, arguments and errors are those of
`chainrule.connect`; whatever asks the server is awaited.

    async with chainrule.aio.connect("HOST:PORT") as client:
        job = await client.submit("examples/two_layer.toml")
        await job.wait()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.aio_client import AioClient
from chainrule.client.client import states_of
from chainrule.client.destination import destination
from chainrule.client.explanation import Explanation, explain_request, explanation_title
from chainrule.client.job import JobFacts
from chainrule.client.job_text import state_numbers
from chainrule.client.metrics import Metrics
from chainrule.client.rows import batches, outputs_of, predictions_of, rows_of
from chainrule.client.sweep_runs import Create, Look, Pause, Run, Steps, SweepResult, result_of, steps_of
from chainrule.security.credentials import Credentials, Tls
from chainrule.spec.job_description import Spec, job_spec, job_table
from chainrule.spec.sweep import sweep_of_table
from chainrule.v1 import job_pb2
from chainrule.v1 import model_service_pb2 as api

__all__ = ["Connection", "Job", "Model", "connect"]


def connect(
    address: str | None = None,
    *,
    connection: str | None = None,
    token: str | None = None,
    tls: Tls | str | os.PathLike[str] | None = None,
    timeout_s: float = 20.0,
    credentials: Credentials | None = None,
) -> Connection:
    """A connection to a server; nothing is sent before the first call. `async with connect(…) as client:` closes it.

    Arguments, errors: see `chainrule.client.destination`. timeout_s: the deadline of a short call. Raises RuntimeError
    where no event loop runs."""
    found = destination(address, connection=connection, token=token, tls=tls, credentials=credentials)
    return Connection(found.address, timeout_s=timeout_s, credentials=found.credentials)


class Connection(AioClient):
    """A connection to one server, with the calls of `AioClient` too. Calls that are safe to repeat are made again, with
    growing pauses, for at least some seconds where nobody answers."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    async def submit(self, spec: Spec | None = None, **keywords: Any) -> Job:
        """Put a job in the queue. spec, keywords: see `chainrule.job_spec`: a path, a dict, or keywords alone.

        Raises JobFileError or InvalidJob with every wrong field, ExpressionError."""
        return Job(self, await self.create_job(job_spec(spec, **keywords)))

    async def job(self, job_id: str) -> Job:
        """The job with this id, or whose id begins so (4 characters or more). Raises JobNotFound."""
        return Job(self, await self.get_job(job_id))

    async def jobs(self, *, states: Sequence[str] = (), name_prefix: str = "") -> list[Job]:
        """The jobs in these states, such as "RUNNING" (none: all), whose names begin so, the latest first.

        Raises ArgumentError."""
        found = await self.list_jobs(states=state_numbers(states), name_prefix=name_prefix)
        return [Job(self, message) for message in found]

    async def sweep(self, spec: Spec) -> SweepResult[Job]:
        """Train the jobs of a sweep, to the end. spec, errors: see `chainrule.Connection.sweep`."""
        found = sweep_of_table(job_table(spec))
        runs = [Run(trial) for trial in found.trials]
        best = await _take_steps(self, steps_of(found, runs))
        return result_of(found, runs, None if best is None else Job(self, best))


async def _take_steps(client: AioClient, steps: Steps) -> job_pb2.Job | None:
    answer: job_pb2.Job | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            best: job_pb2.Job | None = end.value
            return best
        match step:
            case Create():
                answer = await client.create_job(step.spec, request_id=step.request_id)
            case Look():
                answer = await client.get_job(step.job_id)
            case Pause():
                await asyncio.sleep(step.seconds)
                answer = None


class Job(JobFacts):
    """A job of a server. Properties are of when the server was last asked; `refresh` asks again."""

    def __init__(self, client: AioClient, message: job_pb2.Job) -> None:
        super().__init__(message)
        self._client = client

    async def refresh(self) -> Job:
        """Ask the server how far the job is; the job itself. Raises JobNotFound."""
        self.message = await self._client.get_job(self.id)
        return self

    async def watch(self, *, timeout_s: float | None = None) -> AsyncIterator[job_pb2.Job]:
        """The job's message now and again as it advances; the last one has a final state.

        Lost connections are made again. Raises JobNotEnded where it goes on after timeout_s."""
        async with contextlib.aclosing(self._client.watch_updates(self.id, timeout_s=timeout_s)) as updates:
            async for update in updates:
                for self.message in states_of(update):
                    yield self.message

    async def wait(self, *, timeout_s: float | None = None) -> Job:
        """The job once it has succeeded. Raises JobFailed, JobCancelled, and JobNotEnded after timeout_s.

        A wait that is cancelled leaves the job as it is; `cancel` ends it."""
        async for _ in self.watch(timeout_s=timeout_s):
            pass
        self.check()
        return self

    async def cancel(self) -> Job:
        """End the job with its current step and keep its parameters. Raises PreconditionFailed where it has ended."""
        self.message = await self._client.cancel_job(self.id)
        return self

    async def pause(self) -> Job:
        """Let the job give its workers to others until `resume`; it is PAUSED when this returns.

        Raises PreconditionFailed where it has ended."""
        self.message = await self._client.pause_job(self.id)
        return self

    async def resume(self) -> Job:
        """Put the paused job back in the queue. Raises PreconditionFailed where it has ended."""
        self.message = await self._client.resume_job(self.id)
        return self

    async def delete(self) -> None:
        """Let the server forget the job, which has ended, with its model. Raises PreconditionFailed if it hasn't."""
        await self._client.delete_job(self.id)

    async def metrics(self) -> Metrics:
        """What was measured until now: arrays by name, such as `(await job.metrics())["loss"]`."""
        return Metrics(await self._client.read_metrics(self.id))

    async def model(self) -> Model:
        """The model: once the job has ended that of its end, while it runs its current parameters."""
        return Model(self._client, self.id, self.name)


class Model:
    """The model of a job: that of its end, or while it runs its current parameters. All methods ask the server."""

    def __init__(self, client: AioClient, job_id: str, name: str) -> None:
        self.job_id = job_id
        self.name = name
        self._client = client

    def __repr__(self) -> str:
        return f"<Model of job {self.job_id} ({self.name}) at {self._client.address}>"

    async def predict(self, data: Any) -> NDArray[Any]:
        """A prediction for each row. data, errors: see `chainrule.Model.predict`."""
        return predictions_of(await self._predict(data))

    async def outputs(self, data: Any) -> NDArray[np.float64]:
        """What the formula gives for each row, before anything is scaled back. data, errors: as in `predict`."""
        return outputs_of(await self._predict(data))

    async def explain(self, x: Any, y: Any = None) -> Explanation:
        """Every node's forward and backward value for one example. x, y, errors: see `chainrule.Model.explain`."""
        answer = await self._client.explain_example(explain_request(self.job_id, x, y))
        return Explanation(answer, explanation_title(self.name, answer))

    async def save(self, path: str | Path) -> Path:
        """Write the model to a safetensors file, whole or not at all. Raises PreconditionFailed, ModelFileError."""
        return await self._client.download_model(self.job_id, path)

    async def _predict(self, data: Any) -> list[api.PredictResponse]:
        rows, columns = rows_of(data)
        return [await self._client.predict(self.job_id, batch, columns) for batch in batches(rows)]
