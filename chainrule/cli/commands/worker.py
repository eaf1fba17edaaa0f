"""`chainrule worker --workers N`: several workers that start and end together.

They are children of this process, like those of chainrule.local.processes: their standard input is a pipe from it, so
they leave when it is gone, however it ended.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from chainrule.cli.failures import FAILED, CommandFailed, wrong_input
from chainrule.local.processes import end_processes, how_ended
from chainrule.process.lifecycle import available_processors
from chainrule.process.out_of_memory import OutOfMemory

# A worker ends after its microbatch; a container's runtime kills what has not ended after its own grace time.
STOP_TIMEOUT_S = 15.0
MAX_WORKERS = 1024
SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)


def worker_count(text: str) -> int:
    """What --workers says: a number, or "auto" for one on each processor of this machine or container.

    Raises CommandFailed."""
    if text == "auto":
        return available_processors()
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_WORKERS:
        raise wrong_input("--workers", f"must be auto, or a number from 1 to {MAX_WORKERS}, got {text[:40]!r}")
    return int(text)


def run_workers(count: int, *, name: str | None, options: Sequence[str]) -> None:
    """Run so many workers until SIGTERM or ctrl-C ends them all.

    name: the first part of their names; the host's where none is given. Raises CommandFailed where one ends by itself,
    after the others have ended too: whoever started this command can start them all again."""
    name = name or socket.gethostname()
    processes: list[subprocess.Popen[bytes]] = []
    memory = OutOfMemory()
    try:
        for number in range(1, count + 1):
            # -P: a module of the same name in the current folder must not shadow ours.
            command = [sys.executable, "-P", "-m", "chainrule_worker", *options, "--name", f"{name}-{number}"]
            # A session of its own: ctrl-C reaches this process alone, which ends them.
            processes.append(
                subprocess.Popen([*command, "--exit-with-stdin"], stdin=subprocess.PIPE, start_new_session=True)
            )
        # Only now, so that the children don't inherit it. A signal before this ends this process, and so the children.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while not any(process.poll() is not None for process in processes):
            if signal.sigwait(SIGNALS) != signal.SIGCHLD:
                return
        number, code = next((i, each.returncode) for i, each in enumerate(processes, 1) if each.returncode is not None)
        how = how_ended(code, memory)
        raise CommandFailed(FAILED, [("", f"worker {name}-{number} ended by itself ({how}); what it said is above")])
    except OSError as error:
        raise CommandFailed(
            FAILED, [("", f"a worker can't be started: {error.strerror}; are there too many processes?")]
        ) from None
    finally:
        end_processes(processes, timeout_s=STOP_TIMEOUT_S)
