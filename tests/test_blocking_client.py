"""The blocking client is what the asyncio client is without asyncio."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.generate_blocking_client import HAND_WRITTEN, TARGET, blocking, generate


def test_the_checked_in_blocking_client_is_what_the_asyncio_client_gives(tmp_path: Path) -> None:
    pytest.importorskip("ruff", reason="ruff sets the lines of the generated files")
    generate(tmp_path)
    fresh = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.py")}
    checked_in = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*.py")}
    assert checked_in.keys() == fresh.keys() | HAND_WRITTEN
    changed = [name for name in fresh if fresh[name] != checked_in[name]]
    assert changed == [], "run python tools/generate_blocking_client.py"


def test_the_words_of_asyncio_are_taken_out_of_code_and_docstrings() -> None:
    source = '''
from contextlib import aclosing
from chainrule.client.aio.calls import sleep
class Client:
    """It ends at the end of an `async with`; see `chainrule.aio`."""
    async def __aenter__(self) -> AsyncGenerator[dict[str, int], None]:
        async with aclosing(self.parts()) as parts:
            yield [part async for part in parts] + await self.rest()
'''
    expected = '''# Generated from chainrule/client/aio/some.py by tools/generate_blocking_client.py: change it there.

from contextlib import closing
from chainrule.client.blocking.calls import sleep
class Client:
    """It ends at the end of a `with`; see `chainrule.aio`."""
    def __enter__(self) -> Generator[dict[str, int], None, None]:
        with closing(self.parts()) as parts:
            yield [part for part in parts] + self.rest()
'''
    assert blocking(source, "some.py") == expected


@pytest.mark.parametrize("line", ["import asyncio", "def __aiter__(self) -> None:", "await(self.close())"])
def test_what_of_asyncio_has_no_replacement_is_named_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"some\.py, line 2: no replacement is known for"):
        blocking(f"import os\n{line}\n", "some.py")
