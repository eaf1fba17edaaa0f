"""`chainrule graph` from the job file to the picture: files, exit codes and messages."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from chainrule.cli import run

pytest.importorskip("sklearn")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
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


def test_png_without_its_library_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cairosvg", None)
    assert run(["graph", FOUR_LAYER, "-o", str(tmp_path / "graph.png")]) == 2
    assert "pip install 'chainrule[graph]'" in capsys.readouterr().err
