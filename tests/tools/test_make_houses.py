"""The example's data is what its generator writes."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_houses_of_the_example_are_those_that_the_tool_writes() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "make_houses.py"))["houses"]()
    assert (ROOT / "examples" / "data" / "houses.csv").read_text() == made
