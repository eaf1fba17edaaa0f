"""How many processors a process may use: those of the machine, or fewer where its container has a limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chainrule.process.lifecycle import available_processors


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def container(root: Path, version: int, *, quota_us: int | None, period_us: int = 100_000, group: str = "") -> Path:
    """A root folder with what /proc and /sys say in a container with this quota; None: without one."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(f"0::/{group}\n" if version == 2 else f"9:cpu,cpuacct:/{group}\n")
    folder = root / ("sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/cpu") / group
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{'max' if quota_us is None else quota_us} {period_us}\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text(f"{-1 if quota_us is None else quota_us}\n")
        (folder / "cpu.cfs_period_us").write_text(f"{period_us}\n")
    return root


@pytest.mark.parametrize("group", ["", "docker/0123"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_container_s_quota_counts_and_not_the_machine_s_processors(version: int, group: str, tmp_path: Path) -> None:
    assert available_processors(root=container(tmp_path, version, quota_us=300_000, group=group)) == 3


@pytest.mark.parametrize("version", [1, 2])
def test_a_part_of_a_processor_is_left_out_but_one_there_always_is(version: int, tmp_path: Path) -> None:
    assert available_processors(root=container(tmp_path, version, quota_us=125_000, period_us=50_000)) == 2
    assert available_processors(root=container(tmp_path, version, quota_us=20_000)) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_the_quota_of_an_outer_group_counts_too(version: int, tmp_path: Path) -> None:
    container(tmp_path, version, quota_us=200_000)
    assert available_processors(root=container(tmp_path, version, quota_us=None, group="inner")) == 2


@pytest.mark.parametrize("version", [1, 2])
def test_without_a_quota_or_with_one_beyond_the_machine_its_processors_count(version: int, tmp_path: Path) -> None:
    assert available_processors(root=container(tmp_path, version, quota_us=None)) == 8
    assert available_processors(root=container(tmp_path, version, quota_us=6_400_000)) == 8
    assert available_processors(root=tmp_path / "nothing") == 8
