"""Write chainrule/client/blocking from chainrule/client/aio: run it after every change there.

    python tools/generate_blocking_client.py [FOLDER]

The words of asyncio are taken out, in docstrings too; ruff then sorts the imports and sets the lines. Why no library
does it: docs/decisions/0030-the-blocking-client-is-generated.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "chainrule" / "client" / "aio"
TARGET = ROOT / "chainrule" / "client" / "blocking"
# What differs for a reason is written for each.
HAND_WRITTEN = {"__init__.py", "calls.py", "job.py"}
REPLACEMENTS = (
    (r"\ban (`?)async ", r"a \1"),
    (r"\b(?:async|await) ", ""),
    (r"\bAsyncGenerator\[(.+), None\]", r"Generator[\1, None, None]"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b__a(?=(?:enter|exit)__)", "__"),
    (r"\baclosing\b", "closing"),
    (r"\bchainrule\.client\.aio\b", "chainrule.client.blocking"),
)
LEFT_OVER = re.compile(r"\b(?:async|await|asyncio|Async\w*|aclosing|client\.aio|__a(?:iter|next)__)\b")


def blocking(source: str, name: str) -> str:
    """The text of a file of the asyncio client, for the blocking one.

    Raises ValueError where something of asyncio is left: it belongs into `calls`, or there is no replacement yet."""
    for pattern, replacement in REPLACEMENTS:
        source = re.sub(pattern, replacement, source)
    for number, line in enumerate(source.splitlines(), start=1):
        if found := LEFT_OVER.search(line):
            raise ValueError(f"{name}, line {number}: no replacement is known for {found[0]!r} in {line.strip()!r}")
    header = f"# Generated from chainrule/client/aio/{name} by tools/generate_blocking_client.py: change it there."
    return f"{header}\n{source}"


def generate(folder: Path) -> None:
    """Write the blocking client's files into the folder. Raises ValueError."""
    written = []
    for path in sorted(SOURCE.glob("*.py")):
        if path.name not in HAND_WRITTEN:
            written.append(folder / path.name)
            written[-1].write_text(blocking(path.read_text(encoding="utf-8"), path.name), encoding="utf-8")
    # By the rules of this project, wherever the folder is.
    rules = ["--config", str(ROOT / "pyproject.toml"), "--quiet", *map(str, written)]
    for verb in (["check", "--select", "I", "--fix"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *verb, *rules], cwd=ROOT, check=True, timeout=60)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
