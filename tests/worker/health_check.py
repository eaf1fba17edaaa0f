"""The health check of workers' containers, as they call it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "deploy/image/worker-is-joined"


def all_are_joined(folder: Path) -> bool:
    """What the check says of the workers whose status files are in the folder."""
    environment = os.environ | {"CHAINRULE_WORKER_STATUS": str(folder)}
    done = subprocess.run(["/bin/sh", SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode == 0
