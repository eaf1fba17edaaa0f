"""Whether the kernel has ended a process for lack of memory: what the control groups and the machine tell of it.

A group counts the processes that were ended in it, so where ours has a limit and the count has grown, that was the
reason. The machine's own count may be about anybody's processes.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from chainrule.process.control_groups import control_groups
from chainrule.text import size

# The first generation writes about 2**63 where there is no limit.
NO_LIMIT_BYTES = 1 << 62


@dataclass
class OutOfMemory:
    """Made before a child of this process starts, and asked once the child was killed.

    root: where proc and sys are, for tests."""

    root: Path = Path("/")
    _in_group: int = field(init=False)
    _in_machine: int = field(init=False)

    def __post_init__(self) -> None:
        self._in_group, self._in_machine = self._kills_in_group(), self._kills_in_machine()

    def words(self) -> str:
        """What to add to 'killed by SIGKILL'; empty where the kernel has ended nothing for lack of memory since."""
        limit_bytes = self._limit_bytes()
        if self._kills_in_group() > self._in_group and limit_bytes is not None:
            return f", out of memory: its control group, with all its processes, may have {size(limit_bytes)}"
        if self._kills_in_machine() > self._in_machine:
            return ", maybe for lack of memory: the kernel has ended processes for that meanwhile"
        return ""

    def _kills_in_group(self) -> int:
        """In the group of this process, which its children are in too."""
        for group in control_groups("memory", root=self.root):
            for name in ("memory.events", "memory.oom_control"):
                if (count := _count(group / name)) is not None:
                    return count
        return 0

    def _kills_in_machine(self) -> int:
        return _count(self.root / "proc/vmstat") or 0

    def _limit_bytes(self) -> int | None:
        """The lowest limit of this process's group and of those that it is in."""
        limits = []
        for group in control_groups("memory", root=self.root):
            for name in ("memory.max", "memory.limit_in_bytes"):
                # There is no such file in this group, or it says "max".
                with contextlib.suppress(OSError, ValueError):
                    limits.append(int((group / name).read_text()))
        return min((limit for limit in limits if limit < NO_LIMIT_BYTES), default=None)


def _count(path: Path) -> int | None:
    """The number after oom_kill; None where the file doesn't say."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
