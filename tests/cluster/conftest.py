"""Real processes: the command line as a user runs it, and job files cut short for tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.support import COMMAND, EXAMPLES, Train, processes_with


@pytest.fixture
def marker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A mark in the environment of every process that the test starts; at the end none may be left."""
    value = f"CHAINRULE_TEST_MARK={tmp_path.name}-{os.urandom(4).hex()}"
    monkeypatch.setenv(*value.split("=", 1))
    yield value
    assert processes_with(value) == []


@pytest.fixture
def shortened(tmp_path: Path) -> Callable[..., Path]:
    """An example job with other settings: `shortened("four_layer", epochs=2)` is the path of a changed copy."""

    def write(example: str, **settings: int | float) -> Path:
        text = (EXAMPLES / f"{example}.toml").read_text()
        for name, value in settings.items():
            text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
            assert count == 1, f"{example}.toml has {count} lines {name}"
        path = tmp_path / f"{example}.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def train(marker: str, tmp_path: Path) -> Train:
    """Run `chainrule train … --json` and return its line of JSON with the exit code as "exit_code"."""

    def run(job_file: Path, *, workers: int, cwd: Path = tmp_path) -> dict[str, Any]:
        done = subprocess.run(
            [*COMMAND, "train", str(job_file), "--workers", str(workers), "--json"],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 1, (done.stdout, done.stderr)
        return json.loads(lines[0]) | {"exit_code": done.returncode, "stderr": done.stderr}

    return run
