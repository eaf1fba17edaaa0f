"""A job for people: waiting for it with a progress bar, and what was measured."""

from __future__ import annotations

from chainrule.client.blocking.job_calls import JobCalls
from chainrule.client.job_text import event_text
from chainrule.client.metrics import Metrics
from chainrule.client.notebook_progress import Display, progress_display
from chainrule.client.watching import Lost, states_of
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api


class Job(JobCalls):
    """A job of a server. Properties are of when the server was last asked; `refresh` asks again."""

    def wait(self, *, timeout_s: float | None = None, progress: bool | None = None) -> Job:
        """The job once it has succeeded. Raises JobFailed, JobCancelled, and JobNotEnded after timeout_s.

        progress: whether to show a bar, below a notebook's cell or on standard error; None: in a notebook or on a
        terminal. An interrupted wait leaves the job as it is; `cancel` ends it."""
        with progress_display(progress) as display:
            for update in self._client.watch_updates(self.id, timeout_s=timeout_s, lost=note_of(display)):
                for self.message in states_of(update):
                    show_update(display, update, self.message)
        self.check()
        return self

    @property
    def metrics(self) -> Metrics:
        """What was measured until now, asked of the server: arrays by name, such as `job.metrics["loss"]`."""
        return Metrics(self._client.read_metrics(self.id))


def show_update(display: Display | None, update: api.WatchJobResponse, job: job_pb2.Job) -> None:
    """Show the job, and what of the update's events is worth a word."""
    if display is None:
        return
    for event in update.events if job is update.job else ():
        if text := event_text(event):
            display.note(text)
    display.show(job)


def note_of(display: Display | None) -> Lost | None:
    """What tells that the connection was lost."""
    return None if display is None else lambda error: display.note(f"{error}; trying again")
