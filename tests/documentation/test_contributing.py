"""The worked examples of CONTRIBUTING.md, each applied to a copy of the code and tried as the page says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# The heading, the change, and the commands under it.
EXAMPLE = re.compile(r"^## (Adding [^\n]+)\n.*?^```diff\n(.*?)^```\n.*?^```sh\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
EXAMPLES = {heading: (change, commands) for heading, change, commands in EXAMPLE.findall(PAGE)}
FOLDERS = ("benchmarks", "chainrule", "docs", "engine", "examples", "protos", "server", "tests", "tools", "worker")
TIMEOUT_S = 240


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path


def program(command: str) -> list[str]:
    """What a line of the page runs: `make test` is pytest, here of the copy's code."""
    words = shlex.split(command)
    if words[:2] == ["make", "test"]:
        (arguments,) = words[2:]
        return ["-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments.removeprefix("PYTEST_ARGS=").split()]
    assert words[0] == "python"
    return words[1:]


def test_there_are_the_three_examples() -> None:
    assert list(EXAMPLES) == ["Adding an operation", "Adding an optimizer", "Adding an RPC"]


@pytest.mark.parametrize("heading", EXAMPLES)
def test_a_worked_example_works(heading: str, copy: Path) -> None:
    change, commands = EXAMPLES[heading]
    patch = ["git", "apply", "--unidiff-zero", "-p1", "-"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # The copy is in no repository, whatever holds its folder.
    environment["GIT_CEILING_DIRECTORIES"] = str(copy.parent)
    subprocess.run(patch, cwd=copy, env=environment, input=change, text=True, check=True, timeout=TIMEOUT_S)
    places = (copy, *(copy / name for name in ("engine", "server", "worker")))
    environment["PYTHONPATH"] = os.pathsep.join(map(str, places))
    for command in commands.replace("\\\n", " ").splitlines():
        done = subprocess.run(
            [sys.executable, "-P", *program(command)],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-1000:]}"
