"""From a command to the end of its first step, and the memory of all its processes in mid-run."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import harness
from harness import MemoryPeak, ProgramFailed, answer_of, environment, started, tree_memory_mb

sys.path.insert(0, str(harness.REPOSITORY))

from chainrule import Client
from chainrule.errors import ChainruleError

TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.005
# So long after the first step memory is looked at: everything is in use then.
SETTLED_S = 1.0


def measure_chainrule(command: Sequence[str], folder: Path) -> dict[str, float]:
    """first_step_s and memory_mb of a `chainrule train`. folder: where it may have its temporary files.

    The first step is seen from outside: the server's log says where it listens, then a client asks it every 5 ms."""
    started_s = time.monotonic()
    with started(command, env=environment(TMPDIR=str(folder))) as process:
        address = server_address(process, folder, deadline_s=started_s + TIMEOUT_S)
        with Client(address) as client:
            while not steps_of(client):
                if process.poll() is not None or time.monotonic() > started_s + TIMEOUT_S:
                    raise ProgramFailed("chainrule train made no step that could be seen; is the run too short?")
                time.sleep(POLL_INTERVAL_S)
            first_step_s = time.monotonic() - started_s
        time.sleep(SETTLED_S)
        memory_mb = tree_memory_mb(process.pid)
        answer_of(process, timeout_s=TIMEOUT_S)
    return {"first_step_s": first_step_s, "memory_mb": memory_mb}


def measure_program(command: Sequence[str]) -> dict[str, float]:
    """The same of a peer's program, which reports `first_step_s` itself; memory is the largest that is seen."""
    with started(command) as process, MemoryPeak(process.pid) as peak:
        answer = answer_of(process, timeout_s=TIMEOUT_S)
    return {"first_step_s": answer["first_step_s"], "memory_mb": peak.memory_mb}


def server_address(process: subprocess.Popen[str], folder: Path, *, deadline_s: float) -> str:
    """Where the server of a `chainrule train` listens, whose temporary files are in `folder`. Raises ProgramFailed."""
    while time.monotonic() < deadline_s and process.poll() is None:
        for log in folder.glob("chainrule-*/server.log"):
            found = re.search(r"listening on (\S+:\d+)\b", log.read_text(errors="replace"))
            if found:
                return found.group(1)
        time.sleep(POLL_INTERVAL_S)
    raise ProgramFailed(f"chainrule train started no server within {TIMEOUT_S:g} s")


def steps_of(client: Client) -> int:
    """How many steps the server's job has made; 0 while it can't be asked."""
    try:
        return max((int(job.progress.step) for job in client.list_jobs()), default=0)
    except ChainruleError:
        return 0
