"""A job for people: waiting for it with a progress bar, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from chainrule.client.blocking.client import Client
from chainrule.client.blocking.job_calls import JobCalls
from chainrule.client.job_text import event_text
from chainrule.client.metrics import Metrics
from chainrule.client.notebook_progress import progress_display
from chainrule.client.watching import states_of
from chainrule.v1 import job_pb2


class Job(JobCalls):
    """A job of a server. Properties are of when the server was last asked; `refresh` asks again."""

    def wait(self, *, timeout_s: float | None = None, progress: bool | None = None) -> Job:
        """The job once it has succeeded. Raises JobFailed, JobCancelled, and JobNotEnded after timeout_s.

        progress: whether to show a bar, below a notebook's cell or on standard error; None: in a notebook or on a
        terminal. An interrupted wait leaves the job as it is; `cancel` ends it."""
        with progress_display(progress) as display:
            note = None if display is None else display.note
            for message in followed(self._client, self.id, note, timeout_s=timeout_s):
                self.message = message
                if display is not None:
                    display.show(message)
        self.check()
        return self

    @property
    def metrics(self) -> Metrics:
        """What was measured until now, asked of the server: arrays by name, such as `job.metrics["loss"]`."""
        return Metrics(self._client.read_metrics(self.id))


def followed(
    client: Client, job_id: str, note: Callable[[str], None] | None, *, timeout_s: float | None = None
) -> Iterator[job_pb2.Job]:
    """The job now and again as it advances. note: is called with what of its events, and of the connection, is worth a
    word."""

    def tell(text: str) -> None:
        if note is not None and text:
            note(text)

    for update in client.watch_updates(job_id, timeout_s=timeout_s, lost=lambda error: tell(f"{error}; trying again")):
        for event in update.events:
            tell(event_text(event))
        yield from states_of(update)
