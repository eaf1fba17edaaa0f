"""A short run of what `make chaos` does for ten minutes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.cluster.chaos import network_of, run

pytestmark = pytest.mark.cluster


def test_whatever_is_killed_stopped_or_cut_off_every_job_ends_with_the_undisturbed_hash(
    marker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(1 << 31)
    with network_of(3) as network:
        wrong = run(tmp_path, seconds=12, seed=seed, epochs_factor=1, network=network)
    print(f"seed {seed}")  # noqa: T201
    assert wrong == 0, f"seed {seed}"
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text(), f"seed {seed}: {log.read_text()}"
