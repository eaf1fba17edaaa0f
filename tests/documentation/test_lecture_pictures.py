"""The pictures of the lecture are those that the program draws today."""

from __future__ import annotations

from pathlib import Path

from tools.lecture_pictures import LESSONS

ROOT = Path(__file__).resolve().parents[2]


def test_the_lecture_shows_its_graphs_as_they_are_drawn_today() -> None:
    text = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")
    for name, lesson in LESSONS.items():
        assert f"(pictures/lecture/{name}.svg)" in text
        shown = (ROOT / "docs" / "pictures" / "lecture" / f"{name}.svg").read_text(encoding="utf-8")
        assert lesson.svg() == shown, "the picture is out of date; python tools/lecture_pictures.py"
