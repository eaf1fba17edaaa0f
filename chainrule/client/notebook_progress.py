"""Where a job's advance is shown: below a notebook's cell, or as `chainrule.client.progress` does it on standard
error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Protocol

from chainrule.text import one_line
from chainrule.v1 import job_pb2

# A notebook's front end redraws the cell each time.
INTERVAL_S = 0.2


class Display(Protocol):
    """What shows a job."""

    def show(self, job: job_pb2.Job) -> None: ...
    def note(self, text: str) -> None: ...


def is_notebook() -> bool:
    """Whether this is the kernel of a notebook. IPython is asked only where it is loaded already."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and getattr(shell, "kernel", None) is not None


@contextlib.contextmanager
def progress_display(wanted: bool | None) -> Iterator[Display | None]:
    """What shows jobs until the block ends, or None. wanted: None means in a notebook and on a terminal."""
    if wanted is None:
        wanted = is_notebook() or sys.stderr.isatty()
    if not wanted:
        yield None
        return
    if is_notebook():
        yield NotebookDisplay(sys.modules["IPython"].display)
        return
    # Only where it is shown: rich takes a while to load.
    from chainrule.client.progress import ProgressDisplay

    with ProgressDisplay() as display:
        yield display


class NotebookDisplay:
    """One piece of HTML below the cell, replaced as the job advances. ipython: the module IPython.display."""

    def __init__(self, ipython: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._ipython = ipython
        self._clock = clock
        self._handle: Any = None
        self._notes: list[str] = []
        self._shown_at_s = -INTERVAL_S
        self._shown_state = job_pb2.JOB_STATE_UNSPECIFIED
        self._job = job_pb2.Job()

    def show(self, job: job_pb2.Job) -> None:
        """Show how far the job is; every state, and otherwise a few times a second."""
        self._job = job
        now_s = self._clock()
        if job.state == self._shown_state and now_s - self._shown_at_s < INTERVAL_S:
            return
        self._shown_at_s, self._shown_state = now_s, job.state
        self._draw()

    def note(self, text: str) -> None:
        """A line below the bar that stays."""
        self._notes.append(one_line(text))
        self._draw()

    def _draw(self) -> None:
        content = self._ipython.HTML(bar_html(self._job, self._notes))
        if self._handle is None:
            self._handle = self._ipython.display(content, display_id=True)
        else:
            self._handle.update(content)


def bar_html(job: job_pb2.Job, notes: list[str]) -> str:
    """A bar with the job's facts, and the notes below it."""
    from chainrule.client.progress import facts

    progress = job.progress
    known = f' value="{progress.step}" max="{progress.total_steps}"' if progress.total_steps else ""
    text = escape(one_line(" · ".join(facts(job, digits=4))))
    lines = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return (
        f'<div role="status"><b>{escape(one_line(job.spec.name))}</b> '
        f'<progress{known} style="width:16em;vertical-align:middle"></progress> {text}{lines}</div>'
    )
