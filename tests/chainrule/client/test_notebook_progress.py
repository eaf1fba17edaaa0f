"""The bar below a notebook's cell, with the parts of IPython that it uses."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from chainrule.client.notebook_progress import NotebookDisplay, bar_html, is_notebook, progress_display
from chainrule.v1 import job_pb2


class Shown:
    """IPython.display: what was shown, and how often."""

    def __init__(self) -> None:
        self.content = ""
        self.display_count = 0
        self.update_count = 0

    HTML = staticmethod(str)

    def display(self, content: str, *, display_id: bool) -> Shown:
        assert display_id
        self.content, self.display_count = content, self.display_count + 1
        return self

    def update(self, content: str) -> None:
        self.content, self.update_count = content, self.update_count + 1


def job_at(step: int, state: Any = job_pb2.JOB_STATE_RUNNING) -> job_pb2.Job:
    return job_pb2.Job(
        spec=job_pb2.JobSpec(name="<b>"), state=state, progress=job_pb2.Progress(step=step, total_steps=10, loss=0.5)
    )


def test_a_cell_is_shown_once_and_then_updated_a_few_times_a_second() -> None:
    shown, now_s = Shown(), [0.0]
    display = NotebookDisplay(shown, clock=lambda: now_s[0])
    for step in range(10):
        now_s[0] += 0.05
        display.show(job_at(step))
    assert (shown.display_count, shown.update_count) == (1, 2)
    display.show(job_at(10, job_pb2.JOB_STATE_SUCCEEDED))
    assert 'value="10" max="10"' in shown.content
    display.note("the connection\nwas <lost>")
    assert "the connection was &lt;lost&gt;" in shown.content
    assert "&lt;b&gt;" in shown.content
    assert shown.display_count == 1


def test_a_kernel_is_known_by_its_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    shell = SimpleNamespace(kernel=object())
    module = SimpleNamespace(get_ipython=lambda: shell, display=shown)
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert is_notebook()
    with progress_display(None) as display:
        assert isinstance(display, NotebookDisplay)
    del shell.kernel  # IPython in a terminal
    assert not is_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not is_notebook()


def test_nothing_is_shown_where_nobody_looks() -> None:
    with progress_display(None) as display:
        assert display is None
    assert "value=" not in bar_html(job_pb2.Job(state=job_pb2.JOB_STATE_QUEUED), [])
