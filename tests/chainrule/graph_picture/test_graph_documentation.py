"""The picture that the README shows is the one that would be drawn today."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from chainrule.cli.app import run

pytest.importorskip("sklearn")
ROOT = Path(__file__).resolve().parents[3]
PICTURE = "docs/pictures/four_layer.svg"
COMMAND = f"chainrule graph examples/four_layer.toml -o {PICTURE}"
NUMBER = re.compile(r"[−-]?\d+(?:\.\d+)?(?:e[+−-]\d+)?")
# Of a value: BLAS may round otherwise on another processor. Of a place: a value may then be a character longer.
VALUE_TOLERANCE, PLACE_TOLERANCE = 0.01, 16.0


def taken_apart(svg: str) -> tuple[list[str], list[float], list[float]]:
    """The elements without their numbers, the numbers of the texts, and those of the attributes (places and sizes)."""
    words: list[str] = []
    values: list[float] = []
    places: list[float] = []
    for element in ElementTree.fromstring(svg).iter():  # noqa: S314 - our own text
        attributes = {name: text for name, text in element.attrib.items() if name not in ("id", "class")}
        words += [element.tag, element.get("id", ""), element.get("class", ""), NUMBER.sub("#", element.text or "")]
        words += [f"{name}={NUMBER.sub('#', text)}" for name, text in attributes.items()]
        values += numbers_of(element.text or "")
        places += [number for text in attributes.values() for number in numbers_of(text)]
    return words, values, places


def numbers_of(text: str) -> list[float]:
    return [float(number.replace("−", "-")) for number in NUMBER.findall(text)]


def test_the_readme_shows_the_four_layer_network_as_it_is_drawn_today(tmp_path: Path) -> None:
    assert re.search(rf"^!\[[^\]]+\]\({PICTURE}\)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    path = tmp_path / "graph.svg"
    assert run(["graph", str(ROOT / "examples" / "four_layer.toml"), "-o", str(path)]) == 0
    shown = taken_apart((ROOT / PICTURE).read_text(encoding="utf-8"))
    drawn = taken_apart(path.read_text(encoding="utf-8"))
    assert shown[0] == drawn[0], f"the picture is out of date; {COMMAND}"
    np.testing.assert_allclose(shown[1], drawn[1], rtol=VALUE_TOLERANCE, err_msg=COMMAND)
    np.testing.assert_allclose(shown[2], drawn[2], rtol=0, atol=PLACE_TOLERANCE, err_msg=COMMAND)


@pytest.mark.parametrize(
    ("old", "new"), [("V3 @ phi", "V3 * phi"), ("f = 2.434", "f = 2.5"), ('class="box input"', 'class="box loss"')]
)
def test_a_picture_of_another_network_would_be_noticed(old: str, new: str) -> None:
    svg = (ROOT / PICTURE).read_text(encoding="utf-8")
    assert old in svg
    changed, shown = taken_apart(svg.replace(old, new)), taken_apart(svg)
    assert changed[0] != shown[0] or not np.allclose(changed[1], shown[1], rtol=VALUE_TOLERANCE)
