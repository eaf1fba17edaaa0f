"""What the image is made of: pinned with hashes, as pyproject.toml wants it. Needs no engine."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ["build.lock", "requirements.lock"]


def pinned(lock: str) -> dict[str, str]:
    """The version of each package of a lock."""
    text = (ROOT / "deploy/image" / lock).read_text()
    return {canonicalize_name(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+) \\$", text)}


def wanted(extra: str | None) -> Iterator[Requirement]:
    """What pyproject.toml wants, extras of its own followed; None: always."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"] if extra is None else project["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == project["name"]:
            for other in requirement.extras:
                yield from wanted(other)
        else:
            yield requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_is_pinned_and_has_hashes(lock: str) -> None:
    blocks = re.split(r"(?m)^(?=[\w.-]+==)", (ROOT / "deploy/image" / lock).read_text())[1:]
    assert len(blocks) == len(pinned(lock)) > 1
    for block in blocks:
        assert re.fullmatch(r"[\w.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", block), block[:80]


def test_the_lock_satisfies_pyproject_and_make_lock_renews_it() -> None:
    found = pinned("requirements.lock")
    for requirement in [*wanted(None), *wanted("image")]:
        version = found.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked; call 'make lock'"
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}; call 'make lock'"
