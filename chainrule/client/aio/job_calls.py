"""What is asked of a server about one job. `Job` waits, and gives the metrics, in its own way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Self

from chainrule.client.aio.client import Client
from chainrule.client.aio.model import Model
from chainrule.client.job_facts import JobFacts
from chainrule.client.watching import states_of
from chainrule.v1 import job_pb2


class JobCalls(JobFacts):
    """A job of a server. Properties are of when the server was last asked; `refresh` asks again."""

    def __init__(self, client: Client, message: job_pb2.Job) -> None:
        super().__init__(message)
        self._client = client

    async def refresh(self) -> Self:
        """Ask the server how far the job is; the job itself. Raises JobNotFound."""
        self.message = await self._client.get_job(self.id)
        return self

    async def watch(self, *, timeout_s: float | None = None) -> AsyncIterator[job_pb2.Job]:
        """The job's message now and again as it advances; the last one has a final state.

        Lost connections are made again. Raises JobNotEnded where it goes on after timeout_s."""
        async with aclosing(self._client.watch_updates(self.id, timeout_s=timeout_s)) as updates:
            async for update in updates:
                for self.message in states_of(update):
                    yield self.message

    async def cancel(self) -> Self:
        """End the job with its current step and keep its parameters. Raises PreconditionFailed where it has ended."""
        self.message = await self._client.cancel_job(self.id)
        return self

    async def pause(self) -> Self:
        """Let the job give its workers to others, and keep what it has until `resume`; it is PAUSED when this returns.

        Raises PreconditionFailed where it has ended."""
        self.message = await self._client.pause_job(self.id)
        return self

    async def resume(self) -> Self:
        """Put the paused job back in the queue. Raises PreconditionFailed where it has ended."""
        self.message = await self._client.resume_job(self.id)
        return self

    async def delete(self) -> None:
        """Let the server forget the job, which has ended, with its model. Raises PreconditionFailed if it hasn't."""
        await self._client.delete_job(self.id)

    async def model(self) -> Model:
        """The model: once the job has ended that of its end, while it runs its current parameters."""
        return Model(self._client, self.id, self.name)
