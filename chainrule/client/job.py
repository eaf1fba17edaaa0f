"""A job for people: how far it is, waiting for it with a progress bar, and its model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from chainrule.client.client import states_of
from chainrule.client.job_text import FINAL_STATES, event_text, fields_of, job_lines, state_name
from chainrule.client.metrics import Metrics
from chainrule.client.model import Model
from chainrule.client.notebook_progress import Display, progress_display
from chainrule.client.watching import Lost
from chainrule.errors import JobCancelled, JobFailed
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api

if TYPE_CHECKING:
    from chainrule.client.client import Client


class JobFacts:
    """What is known of a job without asking the server again. message: as the server gave it last."""

    def __init__(self, message: job_pb2.Job) -> None:
        self.message = message

    @property
    def id(self) -> str:
        """Given by the server; 12 hexadecimal digits."""
        return self.message.job_id

    @property
    def name(self) -> str:
        """As the spec has it."""
        return self.message.spec.name

    @property
    def state(self) -> str:
        """'QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED' or another."""
        return state_name(self.message.state)

    @property
    def has_ended(self) -> bool:
        """Whether the state is final."""
        return self.message.state in FINAL_STATES

    @property
    def result(self) -> dict[str, Any]:
        """The losses, measures, counts and the SHA-256 of what was trained, by name; empty before the job succeeded."""
        if not self.message.HasField("result"):
            return {}
        # Not ListFields: it leaves out what is exactly 0.
        values = fields_of(self.message.result)
        metrics = values.pop("metrics")
        return values | {metric["name"]: metric["value"] for metric in metrics}

    def check(self) -> None:
        """Raise JobFailed or JobCancelled where the job ended so."""
        if self.message.state == job_pb2.JOB_STATE_FAILED:
            why = self.message.error.message or "the server gave no reason; its log may"
            raise JobFailed(f"job {self.id} ({self.name}) failed: {why}")
        if self.message.state == job_pb2.JOB_STATE_CANCELLED:
            raise JobCancelled(f"job {self.id} ({self.name}) was cancelled after step {self.message.progress.step}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} ({self.name}): {self.state.lower()}>"

    def __str__(self) -> str:
        return "\n".join(job_lines(self.message))


class Job(JobFacts):
    """A job of a server. Properties are of when the server was last asked; `refresh` asks again."""

    def __init__(self, client: Client, message: job_pb2.Job) -> None:
        super().__init__(message)
        self._client = client

    def refresh(self) -> Job:
        """Ask the server how far the job is; the job itself. Raises JobNotFound."""
        self.message = self._client.get_job(self.id)
        return self

    def watch(self, *, timeout_s: float | None = None) -> Iterator[job_pb2.Job]:
        """The job's message now and again as it advances; the last one has a final state.

        Lost connections are made again. Raises JobNotEnded where it goes on after timeout_s."""
        for update in self._client.watch_updates(self.id, timeout_s=timeout_s):
            for self.message in states_of(update):
                yield self.message

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

    def cancel(self) -> Job:
        """End the job with its current step and keep its parameters. Raises PreconditionFailed where it has ended."""
        self.message = self._client.cancel_job(self.id)
        return self

    def pause(self) -> Job:
        """Let the job give its workers to others, and keep what it has until `resume`; it is PAUSED when this returns.

        Raises PreconditionFailed where it has ended."""
        self.message = self._client.pause_job(self.id)
        return self

    def resume(self) -> Job:
        """Put the paused job back in the queue. Raises PreconditionFailed where it has ended."""
        self.message = self._client.resume_job(self.id)
        return self

    def delete(self) -> None:
        """Let the server forget the job, which has ended, with its model. Raises PreconditionFailed if it hasn't."""
        self._client.delete_job(self.id)

    @property
    def metrics(self) -> Metrics:
        """What was measured until now, asked of the server: arrays by name, such as `job.metrics["loss"]`."""
        return Metrics(self._client.read_metrics(self.id))

    def model(self) -> Model:
        """The model: once the job has ended that of its end, while it runs its current parameters."""
        return Model(self._client, self.id, self.name)


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
