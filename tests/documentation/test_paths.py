"""Every file and folder of ours that a page names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md"))
    if page.name != "CHANGELOG.md"
]
FOLDERS = "benchmarks|chainrule|deploy|docs|engine|examples|protos|server|tests|tools|worker"
# In a span of code, from its beginning or after a space.
NAMED = re.compile(rf"(?<=[`\s])((?:{FOLDERS})/[\w./-]*\w/?)(?=[`\s:,)])")


def paths_of(text: str) -> set[str]:
    spans = re.findall(r"`[^`\n]+`", text)
    return {path for span in spans for path in NAMED.findall(span)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_files_that_are_there(page: Path) -> None:
    named = paths_of(page.read_text(encoding="utf-8"))
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_a_path_in_a_span_of_code_is_found() -> None:
    text = "see `tests/nowhere.py`, or `python tools/nothing.py FILE`, but not tests/prose.py"
    assert paths_of(text) == {"tests/nowhere.py", "tools/nothing.py"}
