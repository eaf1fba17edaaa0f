"""`chainrule export` and what it writes besides ONNX."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from chainrule.cli.app import run
from chainrule.cli.commands.export import WRITERS
from tests.server.in_process import RunningServer, add_data_sets, prepared, regression_spec, running_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    add_data_sets(monkeypatch)
    with running_server(tmp_path) as running:
        monkeypatch.setenv("CHAINRULE_SERVER", running.address)
        yield running


def test_a_job_and_a_model_file_are_exported_in_every_form(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    job = server.add_finished(prepared(regression_spec()))
    step = job.training.state.step
    model = tmp_path / "model.safetensors"
    for source in (job.job_id, str(model)):
        for ending in (".safetensors", ".npz", ".onnx", ".svg", ".html", ".mmd"):
            path = model if source == job.job_id and ending == ".safetensors" else tmp_path / f"exported{ending}"
            assert run(["export", source, "-o", str(path), "--json"]) == 0
            assert json.loads(capsys.readouterr().out) == {"path": str(path), "job": job.job_id, "step": step}
            assert path.stat().st_size
    assert (tmp_path / "exported.safetensors").read_bytes() == model.read_bytes()
    with np.load(tmp_path / "exported.npz") as arrays:
        parameters = load_file(model)
        assert {name for name in arrays if "." not in name} == set(parameters)
        assert all(arrays[name].tobytes() == value.tobytes() for name, value in parameters.items())
        assert str(arrays["metadata.prediction"]) == "w @ x + b"
    assert f"parameters of step {step}" in (tmp_path / "exported.svg").read_text()


def test_what_cannot_be_exported_is_told(server: RunningServer, tmp_path: Path, capsys: Any) -> None:
    job = server.add_finished(prepared(regression_spec()))
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"nothing of the kind")
    for source, output, message in (
        (job.job_id, "model.pt", "must end in .safetensors, .onnx, .npz, .svg"),
        (str(wrong), "model.npz", "is no model file of chainrule that can be read"),
        (str(tmp_path / "nosuch.safetensors"), "model.npz", "there is no such file"),
        ("nosuchjob", "model.npz", "there is no job"),
    ):
        assert run(["export", source, "-o", str(tmp_path / output)]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / output).exists()


@pytest.mark.parametrize("command", ["predict FILE FILE", "export FILE -o FILE.onnx"])
def test_a_file_that_is_no_model_is_not_taken_for_a_job(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rides.csv"
    path.write_text("distance\n3\n")
    assert run(command.replace("FILE", str(path)).split()) == 2
    assert capsys.readouterr().err.startswith(f"error: JOB: {path}: is a file but no model file; give a job's id")


def test_the_help_of_export_names_every_ending(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--help"]) == 0
    printed = capsys.readouterr().out
    assert all(ending in printed for ending in (*WRITERS, ".safetensors"))
