"""A file is there whole or not at all, whoever writes it."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chainrule.atomic_file import replace_with
from chainrule_server.storage import durable_file


def parts(*, fails: bool) -> Iterator[bytes]:
    yield b"new"
    if fails:
        raise OSError(28, "No space left on device")
    yield b" content"


def by_parts(path: Path, *, fails: bool) -> None:
    replace_with(path, parts(fails=fails), mode=0o640)


def by_writer(path: Path, *, fails: bool) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.writelines(parts(fails=fails))

    durable_file.write_by(path, write)


@pytest.mark.parametrize("write", [by_parts, by_writer])
def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path, write: Callable[..., None]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        write(path, fails=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write(path, fails=False)
    assert path.read_bytes() == b"new content"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_parts_has_the_permissions_that_were_asked_for(tmp_path: Path) -> None:
    by_parts(tmp_path / "file", fails=False)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
