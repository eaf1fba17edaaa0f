"""The picture of the rooms is drawn from the imports of today."""

from __future__ import annotations

import pytest

from tools.rooms_picture import FILE, direct, in_order, svg


def test_the_picture_of_the_rooms_shows_the_imports_of_today() -> None:
    assert FILE.read_text(encoding="utf-8") == svg(), "the picture is out of date; python tools/rooms_picture.py"


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    arrows = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
    assert direct(arrows) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_imports_in_a_circle_are_named() -> None:
    with pytest.raises(ValueError, match="a circle among a, b"):
        in_order({"a": {"b"}, "b": {"a"}})
