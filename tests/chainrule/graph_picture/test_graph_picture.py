"""What a picture shows is what the engine computes; and however it is written down, nothing in it is markup."""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.bridge.explanation_of_graph import shortened, summary_of
from chainrule.graph_picture.dot import dot
from chainrule.graph_picture.html import html
from chainrule.graph_picture.mermaid import mermaid
from chainrule.graph_picture.picture import Box, Edge, Picture, steps
from chainrule.graph_picture.svg import svg
from chainrule.graph_picture.values import MAX_TEXT, SHOWN_VALUES, number, picture_of, short_summary, summary
from chainrule_engine.backpropagation import backward, forward, local_partial
from chainrule_engine.model import Input, Model
from chainrule_engine.operations import FUNCTIONS, OPERATIONS, Elementwise
from chainrule_engine.parameters import Parameter

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "</script><script>alert(1)</script>\"'&<b>{svg}\\"
MODEL = Model.build(
    loss="(prediction - y)**2 + 0.01 * (w @ w)",
    prediction="w @ phi(V @ x)",
    functions={"phi": "sigmoid"},
    parameters=[Parameter("V", (4, 3)), Parameter("w", (4,))],
    inputs=[Input("x", (3,)), Input("y", ())],
)


def values() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"V": (4, 3), "w": (4,), "x": (1, 3), "y": (1,)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def picture() -> Picture:
    assert MODEL.prediction is not None
    return picture_of(MODEL.loss, values(), title="two layers", prediction=MODEL.prediction.root)


def hostile_picture() -> Picture:
    boxes = (
        Box("parameter", HOSTILE, "", "3", "", "1", "2"),
        Box("loss", HOSTILE, HOSTILE, "number", HOSTILE, HOSTILE, HOSTILE),
    )
    return Picture(HOSTILE, boxes, (Edge(0, 1, "a", HOSTILE, HOSTILE, HOSTILE),))


def text_of(value: Any) -> str:
    array = np.asarray(value)
    return summary(summary_of(array, SHOWN_VALUES), is_number=array.ndim == 0)


def test_every_box_shows_the_f_and_g_of_the_engine() -> None:
    f = forward(MODEL.loss, values())
    g = backward(MODEL.loss, f)
    shown = picture()
    assert len(shown.boxes) == len(MODEL.loss.nodes)
    for node, box in zip(MODEL.loss.nodes, shown.boxes, strict=True):
        assert box.f == text_of(f[node][0] if node.batched else f[node])
        assert box.g == (text_of(g[node][0] if node.batched else g[node]) if node in g else "")


def test_every_edge_shows_the_engines_local_partial_derivative() -> None:
    f = forward(MODEL.loss, values())
    nodes = MODEL.loss.nodes
    for edge in picture().edges:
        partial = local_partial(nodes[edge.head], "abc".index(edge.letter), f)
        assert nodes[edge.head].operands["abc".index(edge.letter)] is nodes[edge.tail]
        if edge.value:
            assert partial is not None
            assert edge.value == short_summary(summary_of(partial, SHOWN_VALUES))


def test_parameters_inputs_constants_and_the_loss_are_told_apart() -> None:
    kinds = {box.title: box.kind for box in picture().boxes}
    assert [kinds[name] for name in ("V", "w", "x", "y", "0.01")] == ["parameter"] * 2 + ["input"] * 2 + ["constant"]
    assert [box.kind for box in picture().boxes].count("loss") == 1
    assert [box.text for box in picture().boxes if box.is_prediction] == ["w @ phi(V @ x)"]


def test_boxes_and_edges_say_the_formulas_of_the_engines_entries() -> None:
    shown = picture()
    rules = {box.text: box.rule for box in shown.boxes}
    assert rules["V @ x"] == "a b"
    assert rules["phi(V @ x)"] == "σ(a) = 1 / (1 + e⁻ᵃ)"
    along = {
        (shown.boxes[edge.tail].title, shown.boxes[edge.head].text): (edge.label, edge.contribution)
        for edge in shown.edges
    }
    assert along["V", "V @ x"] == ("∂fᵢ/∂aᵢⱼ = bⱼ", "g bᵀ")
    assert along["x", "V @ x"] == ("∂f/∂b = a", "aᵀ g")
    assert along["@  matmul", "phi(V @ x)"] == ("∂f/∂a = f (1 − f)", "g · (f (1 − f))")
    assert along["y", "prediction - y"] == ("∂f/∂b = −1", "−g")


def test_an_operation_that_was_added_explains_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = Elementwise(
        "cube", "a³", 1, value=lambda a: a * a * a, partials=(lambda _, a: 3 * a * a,), partial_formulas=("3a²",)
    )
    monkeypatch.setitem(OPERATIONS, "cube", cube)
    monkeypatch.setitem(FUNCTIONS, "cube", "cube")
    model = Model.build(loss="cube(s)", parameters=[Parameter("s", ())], inputs=[Input("x", ())])
    shown = picture_of(model.loss, {"s": np.float32(2)}, title="cube")
    assert [(edge.label, edge.value, edge.contribution) for edge in shown.edges] == [("∂f/∂a = 3a²", "12", "g · 3a²")]
    assert shown.boxes[-1].rule == "a³"


def test_the_steps_go_forward_over_all_boxes_and_backward_over_all_that_have_g() -> None:
    shown = picture()
    order = [(step.direction, step.box) for step in steps(shown)]
    boxes = range(len(shown.boxes))
    assert order == [("forward", box) for box in boxes] + [
        ("backward", box) for box in boxes[::-1] if shown.boxes[box].g
    ]
    backward_steps = [step for step in steps(shown) if step.direction == "backward"]
    assert backward_steps[0].rule == "g = ∂loss/∂loss = 1"
    # w is an operand of the prediction, and twice of w @ w.
    assert next(len(step.edges) for step in backward_steps if shown.boxes[step.box].title == "w") == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(-1.5), "−1.5"),
        (np.array([1.0, 2.0]), "[1, 2]"),
        (np.arange(4.0), "mean 1.5  [0, 1, 2, …]"),
        (np.array(np.nan), "nan"),
    ],
)
def test_values_are_summarised(value: np.ndarray, text: str) -> None:
    assert text_of(value) == text


def test_long_texts_are_shortened_and_control_characters_shown() -> None:
    assert len(shortened("x + " * 100, MAX_TEXT)) <= 41
    assert shortened("a\x00b\x1b", MAX_TEXT) == "a\\x00b\\x1b"
    assert number(0.000123456) == "0.0001235"


@pytest.mark.parametrize("make", [picture, hostile_picture])
def test_the_svg_is_well_formed_and_draws_every_box_and_edge(make) -> None:  # type: ignore[no-untyped-def]
    root = ElementTree.fromstring(svg(make()))  # noqa: S314 - our own text
    ids = {element.get("id") for element in root.iter()}
    assert {f"box-{n}" for n in range(len(make().boxes))} | {f"edge-{n}" for n in range(len(make().edges))} <= ids
    assert not [element for element in root.iter() if element.tag.endswith(("script", "}b"))]


def test_hostile_text_is_text_in_dot() -> None:
    text = dot(hostile_picture())
    # Without its quoted strings only plain DOT is left.
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "S", text)
    assert re.fullmatch(r"digraph S \{[\s\w=;,\[\]>-]*\}\n", bare)


def test_hostile_text_is_text_in_mermaid() -> None:
    lines = mermaid(hostile_picture()).splitlines()
    assert lines[0] == "flowchart BT"
    for line in lines[1:4]:
        assert line.count('"') == 2
        assert not re.search(r"<(?!br/>)", line)


def test_hostile_text_is_text_in_html() -> None:
    page = html(hostile_picture())
    assert page.count("<script") == 2
    assert "<b>" not in page
    data = re.search(r'id="steps">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1])[0]["name"] == HOSTILE


def test_the_page_needs_no_network() -> None:
    page = html(picture())
    assert not re.findall(r"(?:src|href)\s*=|url\((?!#)|@import", page)
    assert "default-src 'none'" in page


@pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([], "forward pass, step 1 of"),
        (["ArrowRight", "ArrowRight", "ArrowLeft"], "forward pass, step 2 of"),
        (["ArrowLeft"], "forward pass, step 1 of"),
        (["End"], "backward pass, step"),
        (["End", "Home"], "forward pass, step 1 of"),
    ],
)
def test_keys_step_through_the_page_in_a_browser(tmp_path: Path, keys: list[str], expected: str) -> None:
    press = "".join(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}));" for key in keys)
    dom = dumped(tmp_path, html(picture()), press)
    shown = re.search(r'<p id="pass">([^<]*)</p>', dom)
    assert shown is not None
    assert shown[1].startswith(expected)
    hidden = len(re.findall(r'class="[fg] later"', dom))
    assert (hidden == 0) == (keys == ["End"])


@pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")
def test_a_hostile_page_runs_nothing_and_its_buttons_work(tmp_path: Path) -> None:
    dom = dumped(tmp_path, html(hostile_picture()), "document.getElementById('next').click();")
    assert "forward pass, step 2 of 4" in dom
    name = re.search(r'<h1 id="name">(.*?)</h1>', dom)
    assert name is not None
    assert name[1].startswith("&lt;/script&gt;")


def dumped(folder: Path, page: str, script: str) -> str:
    """The page's document in a browser after `script`."""
    path = folder / "page.html"
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
