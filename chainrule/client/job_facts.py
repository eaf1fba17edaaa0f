"""What is known of a job without asking its server again."""

from __future__ import annotations

from typing import Any

from chainrule.client.job_text import FINAL_STATES, fields_of, job_lines, state_name
from chainrule.errors import JobCancelled, JobFailed
from chainrule.v1 import job_pb2


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
