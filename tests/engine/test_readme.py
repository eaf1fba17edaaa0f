"""The examples of the engine's README run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from chainrule_engine.operations import Elementwise

README = Path(__file__).parents[2] / "engine" / "README.md"


def test_every_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 3
    namespace: dict[str, Any] = {"Elementwise": Elementwise}
    for example in examples:
        exec(example, namespace)  # noqa: S102  (our own documentation)
    errors = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(errors) == 4
    assert max(errors) < 1e-6
