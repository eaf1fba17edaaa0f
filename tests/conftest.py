"""Which tests stay together when several processes run them."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share their fixtures in one process; those of tests/compose one cluster of containers."""
    for item in items:
        path = item.path.relative_to(FOLDER)
        item.add_marker(pytest.mark.xdist_group("compose" if path.parts[0] == "compose" else str(path)))
