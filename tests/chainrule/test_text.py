"""Tables fit the width that they are given, and lose nothing where there is room."""

from __future__ import annotations

from chainrule.text import table_lines

ROWS = [("JOB", "NAME"), ("8c632aea79ac", "a-very-long-name-of-a-job-that-somebody-gave")]


def test_a_table_without_a_width_is_as_wide_as_its_entries() -> None:
    assert table_lines(ROWS)[1] == "8c632aea79ac  a-very-long-name-of-a-job-that-somebody-gave"


def test_a_table_is_cut_in_its_widest_column() -> None:
    lines = table_lines(ROWS, width=30)
    assert lines[1] == "8c632aea79ac  a-very-long-nam…"
    assert all(len(line) <= 30 for line in lines)


def test_no_column_is_cut_to_nothing() -> None:
    assert [len(word) for word in table_lines(ROWS, width=3)[1].split("  ")] == [8, 8]
