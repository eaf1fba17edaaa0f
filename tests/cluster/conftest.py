"""Real processes: the command line as a user runs it, and job files cut short for tests."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from chainrule.v1 import job_pb2
from chainrule_server.preparation.prepare import prepare
from tests.cluster.support import COMMAND, EXAMPLES, Processes, Train, processes_with, shared_files
from tests.plain_workers import train_with_plain_workers


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


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wide.npz: 60 rows of 700 features."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    np.savez(folder / "wide.npz", features=random.normal(size=(60, 700)), target=random.normal(size=60))
    return folder


@pytest.fixture(scope="session")
def reference(data_root: Path) -> Callable[[job_pb2.JobSpec], str]:
    """The hash of a job in one process, without any transport."""

    @functools.cache
    def of(serialized: bytes) -> str:
        with threadpool_limits(1):
            training = train_with_plain_workers(
                prepare(job_pb2.JobSpec.FromString(serialized), data_root=data_root), worker_count=1
            )
        assert training.result is not None
        return training.result.parameters_sha256

    return lambda spec: of(spec.SerializeToString(deterministic=True))


@pytest.fixture
def processes(marker: str, tmp_path: Path, data_root: Path) -> Iterator[Processes]:
    """None of them, nor a file in /dev/shm, is left at the end, and none has said a traceback."""
    shared_before = shared_files()
    found = Processes(tmp_path, data_root)
    try:
        yield found
    finally:
        found.end()
    assert processes_with(marker) == []
    assert shared_files() == shared_before
    for log in tmp_path.glob("*.log") if not found.may_log_tracebacks else ():
        assert "Traceback" not in log.read_text(), log.read_text()
