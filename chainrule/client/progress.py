"""How a job's advance is shown on standard error: a live bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from chainrule.client.job_text import state_name
from chainrule.text import duration, number, one_line, workers
from chainrule.v1 import job_pb2

PLAIN_INTERVAL_S = 2.0
# A terminal where the job's name has room beside bar and facts.
WIDE_COLUMNS = 100


class ProgressDisplay:
    """Shows each Job it is given. clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._shown_at_s = -PLAIN_INTERVAL_S
        self._shown = ""

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            # Standard output is the user's: a bar on standard error must not take it over.
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                _Facts(table_column=Column(no_wrap=True, overflow="ellipsis")),
                console=self._console,
                redirect_stdout=False,
                redirect_stderr=False,
                expand=True,
            )
            self._bar.add_task("starting", total=None, facts="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, job: job_pb2.Job) -> None:
        """Show how far the job is."""
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                description=one_line(job.spec.name) if self._console.width >= WIDE_COLUMNS else "",
                completed=job.progress.step,
                total=job.progress.total_steps or None,
                facts=one_line("  ".join(facts(job, loss_name="val", digits=4))),
            )
            return
        now_s = self._clock()
        text = f"{job.spec.name}: {' · '.join(facts(job))}"
        # A running job changes all the time, and what it waits for may flicker.
        is_new = job.state != job_pb2.JOB_STATE_RUNNING
        if text != self._shown and (is_new or now_s - self._shown_at_s >= PLAIN_INTERVAL_S):
            self._shown, self._shown_at_s = text, now_s
            self.note(text)

    def note(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(Text(one_line(text)), soft_wrap=True)
        else:
            sys.stderr.write(one_line(text) + "\n")
            sys.stderr.flush()


class _Facts(ProgressColumn):
    """The facts of the job, without markup."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("facts", "")))


def facts(job: job_pb2.Job, *, loss_name: str = "validation loss", digits: int = 6) -> list[str]:
    """Such as 'step 40/100', 'loss 0.52', 'validation loss 0.61', '512 steps/s', '2 workers', 'ETA 0.1 s'."""
    progress = job.progress
    if job.state == job_pb2.JOB_STATE_QUEUED:
        return [f"waits for {job.waiting_for}" if job.waiting_for else "queued"]
    parts = [f"step {progress.step}/{progress.total_steps}"]
    if progress.step:
        parts.append(f"loss {number(progress.loss, digits)}")
    if progress.HasField("validation_loss"):
        parts.append(f"{loss_name} {number(progress.validation_loss, digits)}")
    if job.state != job_pb2.JOB_STATE_RUNNING:
        return [*parts, state_name(job.state).lower()]
    if progress.steps_per_second <= 0:
        # Every step waits for its partial sums; that is worth a word only where steps stand still.
        return [
            *parts,
            f"waits for {job.waiting_for}"
            if job.waiting_for
            else workers(progress.workers, resting=progress.resting_workers),
        ]
    parts += [f"{progress.steps_per_second:.0f} steps/s", workers(progress.workers, resting=progress.resting_workers)]
    return (
        [*parts, f"ETA {duration(job.time_left.ToTimedelta().total_seconds())}"] if job.HasField("time_left") else parts
    )
