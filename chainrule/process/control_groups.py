"""The control groups of this process, by which a container's limits are set: where the kernel tells of them.

Linux has two generations of them, the second with one tree for everything, the first with a tree for each controller.
Like chainrule.process.lifecycle it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
from pathlib import Path


def control_groups(controller: str, *, root: Path = Path("/")) -> list[Path]:
    """The folders of this process's group and of all that it is in, for "memory" or "cpu"; not all of them exist.

    root: where proc and sys are, for tests."""
    tops = {"": root / "sys/fs/cgroup", controller: root / "sys/fs/cgroup" / controller}
    found = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            controllers, path = line.split(":", 2)[1:]
            for name, top in tops.items():
                if name in controllers.split(","):
                    folder = top / path.lstrip("/")
                    found += [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]
    # In a container's own name space the path is that of the host, and the group is at the top.
    return list(dict.fromkeys([*found, *tops.values()]))
