"""The README of each of the four folders names the rooms and files that are there, and every room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "chainrule": ROOT / "chainrule",
    "engine": ROOT / "engine" / "chainrule_engine",
    "server": ROOT / "server" / "chainrule_server",
    "worker": ROOT / "worker" / "chainrule_worker",
}


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_readme_names_every_room_and_nothing_that_is_not_there(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    package = PACKAGES[folder]
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    table = re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)
    assert sorted(table) == sorted(rooms)
    named = {
        name for name in re.findall(r"`(\w+(?:/\w+)*\.py)`", text) if not name.startswith(("tests/", "benchmarks/"))
    }
    assert {name for name in named if not (package / name).is_file() and not [*package.glob(f"*/{name}")]} == set()


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_room_says_in_its_first_line_what_it_is_for(folder: str) -> None:
    for path in PACKAGES[folder].rglob("__init__.py"):
        assert path.read_text(encoding="utf-8").startswith('"""'), path
