"""Jobs where the mathematics is hard, each with the value that is right; the files are in tests/hard_jobs."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.client.job_text import event_text
from chainrule.spec.job_file import load_job_file
from chainrule.v1 import job_pb2
from chainrule_engine.graph import Node
from chainrule_engine.operations import OPERATIONS, Axiswise
from chainrule_server.errors import InvalidSpec
from chainrule_server.limits import Limits
from chainrule_server.offline.gradient_check import check_microbatch
from chainrule_server.preparation.prepare import prepare
from chainrule_server.training.training import TrainingFailed
from chainrule_server.training.zero_gradient import zero_gradient_event
from tests.plain_workers import train_with_plain_workers

JOBS = Path(__file__).parent / "hard_jobs"


def spec_of(name: str) -> job_pb2.JobSpec:
    return load_job_file(JOBS / f"{name}.toml")


def trained(name: str) -> tuple[float, dict[str, np.ndarray]]:
    """The loss and the parameters."""
    training = train_with_plain_workers(prepare(spec_of(name), data_root=JOBS, limits=Limits()), worker_count=1)
    assert training.result is not None
    return training.result.loss, training.job.model.layout.views(training.state.parameters)


def violations_of(spec: job_pb2.JobSpec) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        prepare(spec, data_root=JOBS, limits=Limits())
    return dict(caught.value.violations)


@pytest.mark.parametrize(("name", "loss", "parameters"), [
    ("norm-of-tiny-vector", None, {"w": [-0.0707107, -0.0707107]}),
    ("power-exponent-at-zero-base", None, {"a": 1.97363, "p": 2.01270}),
    ("power-zero-exponent-at-zero-base", 1.0, {"w": 0.0}),
    ("cross-entropy-of-large-equal-logits", math.log(2), {}),
    ("log-softmax-gradient-at-1e7", None, {"V": [1e7 + 50, 1e7 - 50]}),
    ("superscript-two-digits", 2.0**23, {}),
])  # fmt: skip
def test_a_hard_job_ends_with_the_right_value(name: str, loss: float | None, parameters: dict[str, Any]) -> None:
    found_loss, found = trained(name)
    if loss is not None:
        assert found_loss == pytest.approx(loss, rel=1e-6)
    for parameter, value in parameters.items():
        np.testing.assert_allclose(found[parameter], value, rtol=1e-3 if "power" in name else 1e-6)


@pytest.mark.parametrize(("name", "field", "said"), [
    ("hinge-with-0-1-labels", "data.labels",
     r"logistic takes −1 and 1 for y, and these are 0, 1; write labels = \[-1, 1\]"),
    ("prediction-uses-the-target", "model.prediction", r"uses y, the target itself.*write the prediction of x alone"),
    ("batch-norm-of-one-row", "training.batch_size",
     r"batch_norm looks at .* it has 1 row \(batch_size 4 over 4 shards, .*; take batch_size = 8 or more, or fewer"),
])  # fmt: skip
def test_a_job_that_can_be_computed_and_means_nothing_is_refused(name: str, field: str, said: str) -> None:
    violations = violations_of(spec_of(name))
    assert list(violations) == [field]
    assert re.search(said, violations[field])
    # One that was accepted before goes on.
    assert prepare(spec_of(name), data_root=JOBS).total_steps > 0


def test_a_numeric_target_of_0_and_1_is_told_as_the_loss_sees_it(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{row},{int(row % 3 == 0)}\n" for row in range(20)))
    spec = spec_of("hinge-with-0-1-labels")
    spec.model.loss = "hinge(prediction, y)"
    spec.data.ClearField("labels")
    spec.data.ClearField("standardize")
    spec.data.uri = "file:rows.csv"

    def refused() -> dict[str, str]:
        with pytest.raises(InvalidSpec) as caught:
            prepare(spec, data_root=tmp_path, limits=Limits())
        return dict(caught.value.violations)

    told = "hinge takes −1 and 1 for y, and standardized it is "
    assert refused()["data.standardize"].startswith(told)
    spec.data.standardize.features = True
    assert (
        "here it is 0, 1; write −1 and 1 in the column, or, where y is 0 and 1, write 2*y - 1"
        in refused()["model.loss"]
    )
    spec.model.loss = "hinge(prediction, 2*y - 1)"
    assert prepare(spec, data_root=tmp_path, limits=Limits()).row_count == 20


def test_shards_of_one_row_are_told_where_batch_norm_needs_more() -> None:
    spec = spec_of("batch-norm-of-one-row")
    spec.training.shards, spec.training.batch_size = 16, 32
    assert "take fewer shards" in violations_of(spec)["training.shards"]


@pytest.mark.parametrize(("name", "tie"), [
    ("max-of-tied-features", "max(w * x[0], w * x[1])"),
    ("max-of-zero-maxout", "max(w1 @ x + b, w2 @ x + b)"),
])  # fmt: skip
def test_a_tie_is_called_by_its_name(name: str, tie: str) -> None:
    answer = check_microbatch(prepare(spec_of(name), data_root=JOBS))
    assert answer["ties"] == [{"text": tie, "count": 4}]
    assert all(each["is_tie"] and not each["problems"] for each in answer["parameters"])
    _, parameters = trained(name)
    assert all(np.ptp(value) == 0 for value in parameters.values())


@pytest.mark.parametrize("name", ["log-softmax-gradient-at-1e7", "cross-entropy-of-large-equal-logits"])
def test_the_check_of_large_logits_agrees_and_fails_where_the_rule_is_unstable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(spec_of(name), data_root=JOBS)
    assert not any(each["problems"] for each in check_microbatch(job)["parameters"])
    if name.startswith("log"):
        log_softmax = OPERATIONS["log_softmax"]
        assert isinstance(log_softmax, Axiswise)

        def textbook(node: Node, a: Any) -> Any:
            largest = a.max(axis=-1, keepdims=True)
            return a - (np.log(np.exp(a - largest).sum(axis=-1, keepdims=True)) + largest)

        monkeypatch.setitem(OPERATIONS, "log_softmax", replace(log_softmax, value=textbook))
        assert any(each["problems"] for each in check_microbatch(job)["parameters"])


def failure_of(tmp_path: Path, table: str, **model: str) -> str:
    """Why a job on these rows fails, whose parameters w and b begin with 1."""
    (tmp_path / "rows.csv").write_text(table)
    spec = job_pb2.JobSpec(name="fails")
    spec.data.uri, spec.data.target, spec.data.validation_fraction = "file:rows.csv", "y", 0.0
    spec.data.standardize.features = False
    spec.model.prediction, spec.model.loss = model["prediction"], model["loss"]
    for name in ("w", "b"):
        spec.model.parameters.add(name=name, initializer=f"constant({model.get(name, '1')})")
    spec.training.epochs, spec.training.batch_size, spec.training.shards = 200, 4, 1
    spec.training.optimizer.learning_rate = float(model.get("rate", "0.1"))
    with pytest.raises(TrainingFailed) as caught:
        train_with_plain_workers(prepare(spec, data_root=tmp_path), worker_count=1)
    return str(caught.value)


def test_a_loss_that_is_not_finite_names_row_operation_and_parameters(tmp_path: Path) -> None:
    rows = "x,y\n1,1\n2,2\n-3,3\n4,4\n"
    told = failure_of(tmp_path, rows, prediction="log(w * x[0])", loss="(prediction - y)**2 + 0*b")
    assert re.search(r"^step 1: the loss of row 2 is not finite \(shard 0\): log\(w \* x\[0\]\) of -3 is nan, ", told)
    assert "below it the parameter w; the last good parameters are those of step 0; keep what is under the log" in told


def test_a_gradient_that_is_not_finite_names_parameters_operation_and_row(tmp_path: Path) -> None:
    rows = "x,y\n1,1\n2,2\n0,3\n4,4\n"
    told = failure_of(tmp_path, rows, prediction="sqrt(w * x[0]) + b", loss="(prediction - y)**2")
    assert told.startswith(
        "step 1: the gradient is not finite (shard 0): that of the parameter w, by the derivative of "
    )
    assert "sqrt(w * x[0]), at row 2; the last good parameters are those of step 0; keep what is under the root" in told


def test_parameters_that_grow_are_told_to_learn_slower_and_first_ones_are_not(tmp_path: Path) -> None:
    rows = "x,y\n1,1\n2,2\n3,3\n4,4\n"
    model = {"prediction": "w * x[0] + b", "loss": "(prediction - y)**4"}
    grown = failure_of(tmp_path, rows, **model, rate="10")
    assert "smaller training.optimizer.learning_rate" in grown
    first = failure_of(tmp_path, rows, **model, w="1e30")
    assert first.startswith("step 1: the loss of row")
    assert "no step has been made yet" in first


@pytest.mark.parametrize(("name", "parameters", "said"), [
    ("max-of-tied-features", ["w"], r"^a tie: both sides of max\(w \* x\[0\], w \* x\[1\]\) are equal, and then both"),
    ("max-of-zero-maxout", ["w1", "w2", "b"], r"^a tie: .*; w1, w2, b begin at 0; draw first values instead$"),
    ("power-zero-exponent-at-zero-base", ["w"], r"^w begins at 0; draw first values instead$"),
])  # fmt: skip
def test_a_first_step_whose_gradient_is_0_says_which_parameters_and_why(
    name: str, parameters: list[str], said: str
) -> None:
    training = train_with_plain_workers(prepare(spec_of(name), data_root=JOBS), worker_count=1)
    assert training.is_first_gradient_zero
    event = zero_gradient_event(training.job, training.state)
    assert list(event.gradient_is_zero.parameters) == parameters
    assert re.search(said, event.gradient_is_zero.reason)
    text = event_text(event)
    assert text.startswith(f"warning: the gradient of the first step is exactly 0, and {', '.join(parameters)} didn't")


@pytest.mark.parametrize(("prediction", "loss", "said"), [
    ("relu(w * x[0] - 100) + 0*b", "(prediction - y)**2", "dead units: relu(w * x[0] - 100) is 0 in every row"),
    ("w * x[0] + b", "0 * (prediction - y)**2", "the loss itself is 0 in every row"),
    ("w * x[0] + b", "0 * (prediction - y)**2 + 1", "look at what the loss multiplies by 0"),
])  # fmt: skip
def test_dead_units_and_a_loss_of_0_are_told(tmp_path: Path, prediction: str, loss: str, said: str) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n1,1\n2,2\n3,3\n4,4\n")
    spec = job_pb2.JobSpec(name="stands-still")
    spec.data.uri, spec.data.target, spec.data.validation_fraction = "file:rows.csv", "y", 0.0
    spec.data.standardize.features = False
    spec.model.prediction, spec.model.loss = prediction, loss
    for name in ("w", "b"):
        spec.model.parameters.add(name=name, initializer="constant(1)")
    spec.training.epochs, spec.training.batch_size, spec.training.shards = 1, 4, 1
    training = train_with_plain_workers(prepare(spec, data_root=tmp_path), worker_count=1)
    assert training.is_first_gradient_zero
    assert said in zero_gradient_event(training.job, training.state).gradient_is_zero.reason


def test_a_job_that_learns_isnt_said_to_stand_still() -> None:
    training = train_with_plain_workers(prepare(spec_of("norm-of-tiny-vector"), data_root=JOBS), worker_count=1)
    assert not training.is_first_gradient_zero


@pytest.mark.cluster
def test_train_says_on_the_terminal_that_nothing_moves(tmp_path: Path) -> None:
    job_file, model = JOBS / "max-of-tied-features.toml", tmp_path / "model.safetensors"
    command = [sys.executable, "-P", "-m", "chainrule", "train", str(job_file), "--workers", "1", "-o", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "the gradient of the first step is exactly 0, and w didn't move: a tie: both sides of max(" in told
