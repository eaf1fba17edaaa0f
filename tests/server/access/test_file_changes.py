"""A change of a file is seen, and told once."""

from __future__ import annotations

from pathlib import Path

from chainrule_server.access.file_changes import FileChanges


def test_a_change_of_any_file_is_told_once(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("1")
    changes = FileChanges(first, second)
    assert not changes.any_new()
    for change in (
        lambda: first.write_text("longer"),
        lambda: second.write_text("comes"),
        # Another file of the same length, as whoever replaces one whole leaves it.
        lambda: (tmp_path / "new").write_text("moved!") and (tmp_path / "new").replace(first),
        second.unlink,
    ):
        change()
        assert changes.any_new()
        assert not changes.any_new()
