"""A process that was started to end with its parent ends with it, also where a fork of the parent lives on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

TIMEOUT_S = 60.0
CHILDREN = {
    "stop_event": """
        import asyncio, os
        from chainrule.process.lifecycle import stop_event
        async def main():
            stop = stop_event(exit_with_stdin=True)
            print(os.getpid(), flush=True)
            await stop.wait()
        asyncio.run(main())
    """,
    "StopSignal": """
        import os, time
        from chainrule.process.lifecycle import StopSignal
        stop = StopSignal(exit_with_stdin=True)
        print(os.getpid(), flush=True)
        with stop.waiting():
            while True:
                time.sleep(1)
    """,
}
# It starts the child, and then a fork that holds the other end of the child's standard input too.
PARENT = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-P", "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    line = child.stdout.readline().decode().strip()
    fork = os.fork()
    if fork == 0:
        time.sleep(600)
    print(line, fork, flush=True)
    time.sleep(600)
"""


def lives(process_id: int) -> bool:
    try:
        with open(f"/proc/{process_id}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system doesn't tell of a process's end")
@pytest.mark.parametrize("kind", CHILDREN)
def test_an_orphan_ends_although_a_fork_of_its_parent_lives(kind: str) -> None:
    command = [sys.executable, "-P", "-c", textwrap.dedent(PARENT), textwrap.dedent(CHILDREN[kind])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child, fork = map(int, parent.stdout.readline().split())
        try:
            assert lives(child)
            parent.kill()
            parent.wait(TIMEOUT_S)
            deadline_s = time.monotonic() + TIMEOUT_S
            while lives(child):
                assert time.monotonic() < deadline_s, "the orphan lives"
                time.sleep(0.01)
            assert lives(fork)
        finally:
            for process_id in (child, fork):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
