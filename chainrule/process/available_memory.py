"""How much memory this process can still take: the machine's, and that of every control group that it is in."""

from __future__ import annotations

import contextlib
from pathlib import Path

from chainrule.process.control_groups import control_groups


def available_memory_bytes(*, root: Path = Path("/")) -> int | None:
    """The bytes that are free for this process; None where nobody says. root: where proc and sys are, for tests.

    What a control group's page cache holds is free too: the kernel gives it back before it ends a process."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    for group in control_groups("memory", root=root):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            # There is no such file in this group, or its limit is "max".
            with contextlib.suppress(OSError, ValueError):
                limit_bytes = int((group / limit_name).read_text())
                used_bytes = int((group / used_name).read_text()) - _statistic(group / "memory.stat", cache_name)
                found.append(max(0, limit_bytes - max(0, used_bytes)))
    return min(found, default=None)


def _statistic(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
    return 0
