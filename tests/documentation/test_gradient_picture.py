"""The picture of a gradient's way is drawn from the code of today."""

from __future__ import annotations

from dataclasses import replace

from tools.gradient_picture import FILE, WAY, broken, svg


def test_the_picture_of_a_gradient_s_way_is_that_of_the_code() -> None:
    assert FILE.read_text(encoding="utf-8") == svg(), "the picture is out of date; python tools/gradient_picture.py"


def test_a_hop_that_is_not_in_the_code_is_told() -> None:
    first, *rest = WAY
    assert broken((replace(first, function="_nowhere"), *rest)) == [
        "worker/chainrule_worker/session.py has no function _nowhere"
    ]
    assert broken((first, rest[2])) == ["_serve of worker/chainrule_worker/session.py doesn't call gradient"]
