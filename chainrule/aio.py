"""`chainrule.aio.connect`: the client for people, for asyncio. Names, arguments and errors are those of
`chainrule.connect`; whatever asks the server is awaited.

    async with chainrule.aio.connect("HOST:PORT") as client:
        job = await client.submit("examples/two_layer.toml")
        await job.wait()

`connect` raises RuntimeError where no event loop runs. A task that is cancelled while it waits cancels its call. Files
are read and written in threads; a model that is downloaded is held in memory until it is whole.
"""

from __future__ import annotations

from chainrule.client.aio.connection import Connection, connect
from chainrule.client.aio.job import Job
from chainrule.client.aio.model import Model

__all__ = ["Connection", "Job", "Model", "connect"]
