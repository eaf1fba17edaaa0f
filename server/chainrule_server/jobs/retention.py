"""Which jobs a server forgets by itself."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule_server.jobs.job import Job


def beyond(jobs: Sequence[Job], kept_jobs: int | None) -> list[Job]:
    """The jobs to forget, the first that ended first: all that have ended but the last kept_jobs. None: no job.

    Those that an older chainrule stored have no number among the ended ones; they come first, by their times."""
    if kept_jobs is None:
        return []
    ended = sorted((job for job in jobs if job.is_final), key=lambda job: (job.end_number, job.ended_at_s or 0.0))
    return ended[: max(0, len(ended) - kept_jobs)]
