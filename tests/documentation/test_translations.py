"""A translated page doesn't fall behind the page that it translates."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Blocks that name no language too: what a command prints is the same in every language.
FENCED = re.compile(r"^(?:<!--[^\n]*-->\n)?```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)]+)\)")


def test_the_spanish_readme_shows_the_blocks_and_links_of_the_english_one() -> None:
    english, spanish = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.es.md"))
    assert _blocks(spanish) == _blocks(english)
    assert _links(spanish) == _links(english)
    assert len(re.findall("^#+ ", spanish, re.MULTILINE)) == len(re.findall("^#+ ", english, re.MULTILINE))


def _blocks(text: str) -> list[str]:
    """The fenced blocks, without what stands after a `#`, which is translated."""
    return [re.sub(r" *#.*", "", block) for block in FENCED.findall(text)]


def _links(text: str) -> list[str]:
    """Where the links of all languages lead, sorted: a sentence may name things in another order."""
    return sorted(link.replace("docs/es/", "docs/") for link in LINK.findall(text) if not link.startswith("README"))
