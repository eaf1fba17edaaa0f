"""A local cluster as a notebook uses it, with real processes; nothing is left of it, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import chainrule
from chainrule.errors import InvalidJob, JobCancelled, ServerUnavailable
from tests.cluster.support import processes_with

pytestmark = pytest.mark.cluster
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
TIMEOUT_S = 60.0

# What a cell of a notebook runs; the kernel tells where it is by a line.
KERNEL = """
import sys, chainrule
with chainrule.LocalCluster(workers=2) as client:
    job = client.submit(sys.argv[1], epochs=100_000)
    for update in job.watch():
        if update.progress.step:
            print("training", flush=True)
            break
    job.wait()
"""


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A mark in the environment of every process that the test starts; a folder of temporary files for it alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    value = f"CHAINRULE_TEST_MARK={tmp_path.name}-{os.urandom(4).hex()}"
    monkeypatch.setenv(*value.split("=", 1))
    return value


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_formula_of_python_is_trained_asked_and_explained(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a data_root jobs read the files of the current folder.
    monkeypatch.chdir(tmp_path)
    V, w = chainrule.parameter("V", 4, "d"), chainrule.parameter("w", 4)
    x, y = chainrule.inputs()
    prediction = w @ chainrule.sigmoid(V @ x)
    features = np.random.default_rng(0).normal(size=(40, 2))
    np.savez(tmp_path / "rows.npz", features=features, target=features @ [1.0, -2.0], feature_names=["a", "b"])
    with chainrule.LocalCluster(workers=2) as client:
        job = client.submit(
            prediction=prediction, loss=(prediction - y) ** 2, data="file:rows.npz", epochs=3, batch_size=16
        )
        job.wait(timeout_s=TIMEOUT_S)
        assert job.message.spec.model.loss == "(prediction - y)**2"
        assert job.result["parameter_count"] == 12
        metrics = job.metrics
        assert len(metrics["loss"]) == len(metrics["step"]) == job.message.progress.step
        assert np.isfinite(metrics["loss"]).all()

        model = job.model()
        predictions = model.predict(features)
        assert predictions.shape == (40,)
        by_name = model.predict({"b": features[:3, 1], "a": features[:3, 0]})
        np.testing.assert_allclose(by_name, predictions[:3], rtol=1e-5)
        np.testing.assert_allclose(model.predict(features[0]), predictions[:1], rtol=1e-5)
        with pytest.raises(InvalidJob, match=r"rows\[1\]\.values\[0\]"):
            model.predict([[1.0, 2.0], ["one", 2.0]])

        by_row, own = model.explain(0), model.explain(features[0], features[0] @ [1.0, -2.0])
        assert by_row.forward["V @ x"].shape == (4,)
        np.testing.assert_array_equal(by_row.backward["V"], own.backward["V"])
        assert by_row._repr_svg_().startswith("<svg")
        assert "sigmoid" in str(by_row)
        assert own.save(tmp_path / "graph.html").read_text().startswith("<!doctype html>")
        assert model.save(tmp_path / "model.safetensors").stat().st_size > 0

        assert [each.id for each in client.jobs(states=["succeeded"])] == [job.id]
        job.delete()
        assert client.jobs() == []
    with pytest.raises(ServerUnavailable, match="closed"):
        client.jobs()


def test_the_loss_of_a_job_that_ends_at_exactly_0_is_in_its_result(mark: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("f,y\n4,1\n-4,-1\n5,1\n-5,-1\n")
    spec = {
        "name": "hinge-of-margins",
        "model": {
            "prediction": "w*x[0]",
            "loss": "hinge(prediction, y)",
            "parameters": {"w": {"shape": [], "initializer": "constant(1.0)"}},
        },
        "data": {"uri": "file:rows.csv", "target": "y", "validation_fraction": 0.0, "standardize": []},
        "training": {"epochs": 1, "batch_size": 4, "shards": 1},
    }
    with chainrule.LocalCluster(workers=1, data_root=tmp_path) as client:
        job = client.submit(spec).wait(timeout_s=TIMEOUT_S)
        assert job.result["loss"] == 0.0
        assert job.result["row_count"] == 4
        assert "validation_loss" not in job.result


def test_a_running_job_goes_on_while_workers_come_and_go(mark: str) -> None:
    client = chainrule.LocalCluster(workers=1)
    try:
        job = client.submit(EXAMPLES / "two_layer.toml", epochs=1_000_000)
        for count in (3, 1):
            client.scale(count)
            wait_until(lambda count=count: job.refresh().message.progress.workers == count)  # type: ignore[misc]
            assert client.living_workers == count
        assert client.new_deaths() == []
        job.cancel()
        with pytest.raises(JobCancelled):
            job.wait(timeout_s=TIMEOUT_S)
        with pytest.raises(ValueError, match="at least 1"):
            client.scale(0)
    finally:
        client.close()
    assert processes_with(mark) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_kernel_that_is_ended(mark: str, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-P", "-c", KERNEL, str(EXAMPLES / "two_layer.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout is not None
        assert kernel.stdout.readline() == "training\n", kernel.communicate()
        assert len(processes_with(mark)) == 4
        # Again, as people do: Python loses a KeyboardInterrupt that comes while a generator is being thrown away.
        deadline_s = time.monotonic() + TIMEOUT_S
        while kernel.poll() is None:
            assert time.monotonic() < deadline_s
            kernel.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                kernel.wait(timeout=10)
    wait_until(lambda: processes_with(mark) == [])
    # After kill -9 the folder goes with the next cluster's start: see test_local_processes.py.
    assert number == signal.SIGKILL or list(tmp_path.glob("chainrule-*")) == []
