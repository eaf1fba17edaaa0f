"""`chainrule graph` from the job file to the picture: files, exit codes and messages."""

from __future__ import annotations

import importlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from chainrule.cli.app import run
from chainrule.graph_picture.png import load_cairosvg, scale_of
from chainrule.graph_picture.svg import COLOURS

pytest.importorskip("sklearn")
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
FOUR_LAYER = str(EXAMPLES / "four_layer.toml")
CLASSES = """
name = "softmax"
[model]
prediction = "V @ x"
loss = "cross_entropy(prediction, y)"
[model.parameters]
V = ["k", "d"]
[data]
uri = "sklearn:iris"
[training]
epochs = 1
batch_size = 8
"""


@pytest.mark.parametrize(
    ("suffix", "start"), [("svg", "<svg"), ("html", "<!doctype html>"), ("dot", "digraph"), ("mmd", "flowchart BT")]
)
def test_a_job_is_drawn_in_every_form(tmp_path: Path, suffix: str, start: str) -> None:
    path = tmp_path / f"graph.{suffix}"
    assert run(["graph", FOUR_LAYER, "-o", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith(start)
    assert all(name in text for name in ("V1", "V2", "V3", "sigmoid"))


def test_a_loss_of_classes_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.toml").write_text(CLASSES)
    path = tmp_path / "graph.svg"
    assert run(["graph", str(tmp_path / "job.toml"), "--row", "100", "-o", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(path), "boxes": 5, "edges": 4, "row": 100}
    ElementTree.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - our own text


def test_the_parameters_of_a_file_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": np.full(30, 0.25, np.float32)}, path)
    output = tmp_path / "graph.dot"
    job = str(EXAMPLES / "linear_hinge.toml")
    assert run(["graph", job, "--parameters", str(path), "-o", str(output)]) == 0
    assert "mean 0.25  [0.25, 0.25, 0.25, …]" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "graph.pdf"], "--output: graph.pdf: must end in .svg, .html, .dot, .mmd, .png"),
        (["-o", "no/graph.svg"], "there is no folder no"),
        (["--row", "442", "-o", "graph.svg"], "--row: there is no row 442; the data has rows 0 to 441"),
        (["--row", "-1", "-o", "graph.svg"], "--row: there is no row -1; the data has rows 0 to 441"),
        (["--parameters", "none", "-o", "graph.svg"], "--parameters: none: there is no such file"),
        (["--parameters", "text", "-o", "graph.svg"], "--parameters: text: can't be read as a safetensors file"),
        (["--parameters", "other", "-o", "graph.svg"], "'w' has shape (3,) in other, but (32,) in the job"),
        (["--parameters", "other", "-o", "graph.svg"], "other holds no parameter 'V1'; it holds w"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("no model")
    save_file({"w": np.zeros(3, np.float32)}, "other")
    assert run(["graph", FOUR_LAYER, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("graph.*"))


def test_a_wrong_job_is_refused_with_its_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.toml").write_text(CLASSES.replace("V @ x", "U @ x"))
    assert run(["graph", str(tmp_path / "job.toml"), "-o", str(tmp_path / "graph.svg")]) == 2
    assert "model.prediction: column 1: " in capsys.readouterr().err


@pytest.mark.parametrize("job", ["linear_hinge", "two_layer", "four_layer"])
def test_a_png_shows_the_whole_drawing(tmp_path: Path, job: str) -> None:
    cairo = cairo_or_skip()
    for suffix in ("svg", "png"):
        assert run(["graph", str(EXAMPLES / f"{job}.toml"), "-o", str(tmp_path / f"graph.{suffix}")]) == 0
    root = ElementTree.fromstring((tmp_path / "graph.svg").read_text(encoding="utf-8"))  # noqa: S314 - our own text
    surface = cairo.ImageSurface.create_from_png(str(tmp_path / "graph.png"))
    size = (surface.get_height(), surface.get_width())
    assert size == (2 * int(root.attrib["height"]), 2 * int(root.attrib["width"]))
    data = np.frombuffer(surface.get_data(), np.uint8).reshape(size[0], surface.get_stride() // 4, 4)
    colours = data[:, : size[1], 2::-1].astype(int) @ (65536, 256, 1)
    # Nothing reaches the edge of the page, and each kind of box and of text is there.
    edge = np.concatenate(
        [colours[:20].ravel(), colours[-20:].ravel(), colours[:, :20].ravel(), colours[:, -20:].ravel()]
    )
    assert set(edge) == {0xFFFFFF}
    assert {int(fill[1:], 16) for fill, _ in COLOURS.values()} <= set(colours.ravel())
    assert {0x0B6B3A, 0x8A1C8A} <= set(colours.ravel())


def test_a_very_large_drawing_is_scaled_down_to_what_cairo_takes() -> None:
    assert scale_of(800, 1700) == 2
    for width, height in ((31_000, 1_700), (600, 30_000), (20_000, 20_000), (100_000, 600)):
        scale = scale_of(width, height)
        assert max(width, height) * scale <= 32_000
        assert width * height * scale**2 <= 60_000_001


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ImportError("no cairosvg"), "pip install 'chainrule[graph]'"),
        (OSError("no cairo"), "apt-get install libcairo2"),
    ],
)
def test_png_without_its_libraries_names_what_to_install(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    remedy: str,
) -> None:
    def missing() -> None:
        raise error

    monkeypatch.setattr("chainrule.graph_picture.file.load_cairosvg", missing)
    assert run(["graph", FOUR_LAYER, "-o", str(tmp_path / "graph.png")]) == 2
    assert remedy in capsys.readouterr().err


def cairo_or_skip() -> Any:
    """cairocffi, which comes with cairosvg."""
    try:
        load_cairosvg()
    except (ImportError, OSError) as error:
        pytest.skip(f"cairosvg or the system's cairo library is not installed: {error}")
    return importlib.import_module("cairocffi")
