"""`connect`: the client for people. Jobs, models and arrays in and out; the calls are those of `Client`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from chainrule.client.aio.calls import sleep
from chainrule.client.aio.client import Client
from chainrule.client.aio.job import Job
from chainrule.client.channel import DEFAULT_ADDRESS
from chainrule.client.destination import destination
from chainrule.client.job_text import state_numbers
from chainrule.client.sweep_runs import Create, Look, Pause, Run, Steps, SweepResult, result_of, steps_of
from chainrule.security.credentials import Credentials, Tls
from chainrule.spec.job_description import Spec, job_spec, job_table
from chainrule.spec.sweep import sweep_of_table
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api


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

    Arguments, errors: see `chainrule.client.destination`. timeout_s: the deadline of a short call."""
    found = destination(address, connection=connection, token=token, tls=tls, credentials=credentials)
    return Connection(found.address, timeout_s=timeout_s, credentials=found.credentials)


class Connection(Client):
    """A connection to one server, with the calls of `Client` too. Calls that are safe to repeat are made again, with
    growing pauses, for at least some seconds where nobody answers: a server may be starting again."""

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = 20.0, credentials: Credentials | None = None
    ) -> None:
        super().__init__(address, timeout_s=timeout_s, repeats=True, credentials=credentials)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    async def submit(self, spec: Spec | None = None, **keywords: Any) -> Job:
        """Put a job in the queue. spec, keywords: see `chainrule.job_spec`: a path, a dict, or keywords alone.

        Raises JobFileError or InvalidJob with every wrong field, ExpressionError."""
        created = await self.create_estimated_job(job_spec(spec, **keywords))
        self._look_at_estimate(created.estimate)
        return Job(self, created.job)

    async def sweep(self, spec: Spec) -> SweepResult[Job]:
        """Train the jobs of a sweep, to the end: a job file, or a dict with its keys, that has a table `sweep`.

        The same sweep goes on where an interrupted one was. Raises JobFileError, InvalidJob, and JobFailed where the
        best trial can't be trained on the job's own rows; other trials may fail."""
        found = sweep_of_table(job_table(spec))
        runs = [Run(trial) for trial in found.trials]
        best = await take_steps(self, steps_of(found, runs))
        return result_of(found, runs, None if best is None else Job(self, best))

    def _look_at_estimate(self, estimate: api.JobEstimate) -> None:
        """What a new job takes, for who knows the machines that it runs on."""

    async def job(self, job_id: str) -> Job:
        """The job with this id, or whose id begins so (4 characters or more). Raises JobNotFound."""
        return Job(self, await self.get_job(job_id))

    async def jobs(self, *, states: Sequence[str] = (), name_prefix: str = "") -> list[Job]:
        """The jobs in these states, such as "RUNNING" (none: all), whose names begin so, the latest first.

        Raises ArgumentError."""
        found = await self.list_jobs(states=state_numbers(states), name_prefix=name_prefix)
        return [Job(self, message) for message in found]


async def take_steps(client: Client, steps: Steps) -> job_pb2.Job | None:
    """Take the steps of a sweep; what they come to."""
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
                await sleep(step.seconds)
                answer = None
