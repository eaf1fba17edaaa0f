"""What the server's and the worker's process have in common: one BLAS thread, and a clean end.

Numpy must not be loaded by what is imported here: `limit_blas_threads` must run before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from chainrule.process.control_groups import control_groups
from chainrule.process.logs import write_without_lock

BLAS_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def limit_blas_threads() -> None:
    """Give BLAS one thread, so that processes on one machine don't fight for its cores. Call before numpy is loaded."""
    for variable in BLAS_THREAD_VARIABLES:
        os.environ[variable] = "1"


def stop_event(*, exit_with_stdin: bool) -> asyncio.Event:
    """An event that is set by SIGTERM, by SIGINT and, if asked for, by the end of standard input or of our parent.

    A parent that holds the other end of standard input takes its children with it, even when it is killed, and even
    where a process that it forked lives on and holds that end too."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if exit_with_stdin:
        descriptor = sys.stdin.fileno()

        def on_input() -> None:
            if not os.read(descriptor, 4096):
                loop.remove_reader(descriptor)
                stop.set()

        loop.add_reader(descriptor, on_input)
        parent = _parent()
        if parent is not None:

            def on_end() -> None:
                loop.remove_reader(parent)
                os.close(parent)
                stop.set()

            loop.add_reader(parent, on_end)
    return stop


def _parent() -> int | None:
    """A descriptor that becomes readable when our parent has ended; None where the system has none."""
    with contextlib.suppress(AttributeError, OSError):
        return os.pidfd_open(os.getppid())
    return None


def available_processors(*, root: Path = Path("/")) -> int:
    """The processors that this process may use, at least 1: those that it may run on, or its container's limit.

    A limit of 2.5 counts as 2: three busy processes would be stopped again and again, and steps wait for the slowest.
    root: where proc and sys are, for tests."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *_processor_limits(root)]))


def _processor_limits(root: Path) -> Iterator[int]:
    """The whole processors that the quota of each control group of this process comes to."""
    for group in control_groups("cpu", root=root):
        # There is no such file in this group, or its quota is "max" or -1: none.
        with contextlib.suppress(OSError, ValueError):
            quota_us, period_us = (group / "cpu.max").read_text().split()
            yield int(quota_us) // int(period_us)
        with contextlib.suppress(OSError, ValueError):
            quota = int((group / "cpu.cfs_quota_us").read_text())
            if quota > 0:
                yield quota // int((group / "cpu.cfs_period_us").read_text())


# How long a process has to end once nothing is at work any more.
END_TIMEOUT_S = 5.0


class Stopped(BaseException):
    """SIGTERM or SIGINT came, or standard input ended, before a wait."""


class StopSignal:
    """Ends a process that works on its main thread: at once where it waits, after its work otherwise.

    Wrap each wait in `with stop.waiting():`. A signal before it raises Stopped there. A signal within it ends the
    process on the spot, with exit code 0: nothing is at work, the kernel closes what is open, and an exception in the
    middle of gRPC's own code could leave a lock taken, on which closing would wait for ever. Make it on the main
    thread. The kernel also ends a process that has not ended END_TIMEOUT_S after Stopped.

    farewell: where it is set, a signal within a wait puts its name there instead, for another thread to say goodbye
    and to end the process."""

    farewell: queue.SimpleQueue[str] | None = None
    # The name of the signal, once it came.
    name: str = ""

    def __init__(self, *, exit_with_stdin: bool) -> None:
        self._is_set = False
        self._is_waiting = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if exit_with_stdin:
            threading.Thread(target=_signal_at_end_of_stdin, name="stdin", daemon=True).start()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A stretch in which a signal ends the process. Raises Stopped where the signal came before."""
        self._is_waiting = True
        try:
            if self._is_set:
                self._stop()
            yield
        finally:
            self._is_waiting = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        is_first, self._is_set, self.name = not self._is_set, True, signal.Signals(number).name
        if self._is_waiting:
            write_without_lock("stopping", name="stopping")
            if self.farewell is None or not is_first:
                os._exit(0)
            signal.setitimer(signal.ITIMER_REAL, END_TIMEOUT_S)
            self.farewell.put(self.name)  # which may be called anywhere

    def _stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, END_TIMEOUT_S)
        raise Stopped


def _signal_at_end_of_stdin() -> None:
    """The same as `stop_event` for a process without an event loop: SIGTERM to itself."""
    stdin, parent = sys.stdin.fileno(), _parent()
    ends = select.poll()
    for descriptor in (stdin, parent):
        if descriptor is not None:
            ends.register(descriptor, select.POLLIN)
    while all(ready != parent and os.read(ready, 4096) for ready, _ in ends.poll()):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
