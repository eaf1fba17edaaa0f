"""A process that the kernel ended for lack of memory is told of: with certainty where a control group says so."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.process.out_of_memory import OutOfMemory

MIB = 1 << 20
MAYBE = ", maybe for lack of memory: the kernel has ended processes for that meanwhile"
CERTAIN = ", out of memory: its control group, with all its processes, may have 512.0 MiB"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine on which nothing was ended yet. Its groups are written by the tests."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/vmstat").write_text("pgfault 7\noom_kill 3\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_group_of_the_second_generation_says_it_with_certainty(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/jobs/a\n")
    group = root / "sys/fs/cgroup/jobs/a"
    write(group / "memory.events", "low 0\noom 1\noom_kill 1\n")
    write(group / "memory.max", "max\n")
    write(group.parent / "memory.max", str(512 * MIB))
    watch = OutOfMemory(root)
    assert watch.words() == ""
    write(group / "memory.events", "low 0\noom 2\noom_kill 2\n")
    assert watch.words() == CERTAIN
    # Without a limit of its own it may have been anybody's fault, and anybody's process.
    write(group.parent / "memory.max", "max\n")
    assert watch.words() == ""
    write(root / "proc/vmstat", "oom_kill 4\n")
    assert watch.words() == MAYBE


def test_a_group_of_the_first_generation_says_it_too(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("4:memory:/jobs\n0::/\n")
    group = root / "sys/fs/cgroup/memory/jobs"
    write(group / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    write(group / "memory.limit_in_bytes", str(512 * MIB))
    write(group.parent / "memory.limit_in_bytes", "9223372036854771712\n")
    watch = OutOfMemory(root)
    write(group / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert watch.words() == CERTAIN


def test_where_no_group_tells_it_stays_a_maybe_and_where_nothing_tells_nothing_is_said(root: Path) -> None:
    watch = OutOfMemory(root)
    assert watch.words() == ""
    write(root / "proc/vmstat", "oom_kill 4\n")
    assert watch.words() == MAYBE
    assert OutOfMemory(root / "nowhere").words() == ""


@pytest.fixture
def small_group() -> Iterator[Path]:
    """The file by which a process joins a control group that may have 96 MiB, made for this test."""
    for top, limits in (
        (Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")),
        (Path("/sys/fs/cgroup"), ("memory.max", "memory.swap.max")),
    ):
        group = top / f"chainrule-test-{uuid.uuid4().hex}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limits[0]).exists():
                (group / limits[0]).write_text(str(96 * MIB))
                if (group / limits[1]).exists():
                    (group / limits[1]).write_text(str(96 * MIB) if "memsw" in limits[1] else "0")
                yield group / "cgroup.procs"
                return
        finally:
            group.rmdir()
    pytest.skip("no control group with a limit of memory can be made here")


PARENT = """
import os, subprocess, sys
from chainrule.local.processes import Child
from chainrule.process.out_of_memory import OutOfMemory
from pathlib import Path
Path(sys.argv[1]).write_text(str(os.getpid()))
command = [sys.executable, "-c", sys.argv[3]]
memory = OutOfMemory()
child = Child("worker-1", subprocess.Popen(command), Path(sys.argv[2]), memory)
child.process.wait()
print(child.death())
"""


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("x = bytearray(1 << 29)", "killed by SIGKILL, out of memory: its control group, with all its processes, may"),
        ("import os; os.kill(os.getpid(), 9)", "(killed by SIGKILL)"),
    ],
)  # fmt: skip
def test_a_worker_that_the_kernel_ends_for_its_limit_is_told_from_one_that_somebody_killed(
    small_group: Path, tmp_path: Path, child: str, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PARENT, str(small_group), str(tmp_path / "log"), child],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
