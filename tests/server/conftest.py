"""A server in this process, and one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.attacked import Attacked, attacked_server
from tests.server.in_process import RunningServer, add_data_sets, running_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    """A running server that knows the data sets test:regression and test:classes."""
    add_data_sets(monkeypatch)
    with running_server(tmp_path) as running:
        yield running


@pytest.fixture
def attacked(tmp_path: Path) -> Iterator[Attacked]:
    """A server and a worker as processes, with few descriptors."""
    with attacked_server(tmp_path) as running:
        yield running
