"""A job for people, for asyncio: waiting for it, and what was measured."""

from __future__ import annotations

from chainrule.client.aio.job_calls import JobCalls
from chainrule.client.metrics import Metrics


class Job(JobCalls):
    """A job of a server. Properties are of when the server was last asked; `refresh` asks again."""

    async def wait(self, *, timeout_s: float | None = None) -> Job:
        """The job once it has succeeded. Raises JobFailed, JobCancelled, and JobNotEnded after timeout_s.

        A wait that is cancelled leaves the job as it is; `cancel` ends it."""
        async for _ in self.watch(timeout_s=timeout_s):
            pass
        self.check()
        return self

    async def metrics(self) -> Metrics:
        """What was measured until now: arrays by name, such as `(await job.metrics())["loss"]`."""
        return Metrics(await self._client.read_metrics(self.id))
