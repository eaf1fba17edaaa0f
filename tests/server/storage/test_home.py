"""A server's home is its owner's alone, whoever made it and whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule_server.storage.home import Home


@pytest.fixture
def generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    paths = [folder, *folder.rglob("*")]
    return [str(path) for path in paths if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077]


@pytest.mark.usefixtures("generous_umask")
def test_a_new_home_is_closed_to_others(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.close()
    assert open_to_others(home.folder) == []


@pytest.mark.usefixtures("generous_umask")
def test_a_home_from_before_is_closed_to_others_and_no_other_file_is_touched(tmp_path: Path) -> None:
    folder, outside = tmp_path / "home", tmp_path / "outside"
    outside.write_text("theirs")
    content = folder / "datasets" / "0123" / "content"
    content.parent.mkdir(parents=True)
    for path in (folder / "chainrule.db", folder / "chainrule.db-wal", folder / "notes.txt", content):
        path.write_text("x")
    (folder / "models").mkdir()
    (folder / "models" / "link").symlink_to(outside)
    Home(folder).close()
    assert open_to_others(folder) == [str(folder / "notes.txt")]
    assert stat.S_IMODE(outside.stat().st_mode) == 0o666


@pytest.mark.usefixtures("generous_umask")
def test_a_folder_of_everybody_stays_one(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    Home(folder).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert open_to_others(folder) == [str(folder)]
