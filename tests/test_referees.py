"""Two referees for the example jobs: PyTorch, and the engine alone in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chainrule.spec.job_file import load_job_file
from chainrule_engine.synchronous_sgd import ParameterState, train_in_one_process
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from tests.plain_workers import computer_of, train_with_plain_workers

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
JOBS = ["linear_hinge", "two_layer", "four_layer"]
STEPS = 20


def prepared_example(name: str) -> PreparedJob:
    return prepare(load_job_file(EXAMPLES / f"{name}.toml"))


def trained(job: PreparedJob) -> ParameterState:
    state = job.first_state()
    train_in_one_process(computer_of(job), state, steps=STEPS)
    return state


def batch_of(job: PreparedJob, step: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows of a step, of all shards together."""
    epoch, step_in_epoch = job.schedule.position(step)
    rows = np.concatenate(
        [
            job.division.training[shard][job.schedule.order(shard, epoch)][job.schedule.rows(step_in_epoch)]
            for shard in range(job.spec.training.shards)
        ]
    )
    features, targets = job.rows.in_data_order()
    return features[rows], targets[rows]


@pytest.mark.parametrize("name", JOBS)
def test_twenty_steps_give_the_parameters_that_pytorch_gives(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the referee; 'make test' runs without it")
    job = prepared_example(name)
    parameters = {
        key: torch.tensor(view.astype(np.float64), requires_grad=True)
        for key, view in job.model.layout.views(job.first_state().parameters).items()
    }
    optimizer = torch.optim.SGD(parameters.values(), lr=job.spec.training.optimizer.learning_rate)
    phi = torch.sigmoid
    for step in range(1, STEPS + 1):
        features, targets = batch_of(job, step)
        x, y = torch.tensor(features, dtype=torch.float64), torch.tensor(targets, dtype=torch.float64)
        if name == "linear_hinge":
            losses = torch.relu(1 - (x @ parameters["w"]) * y)
        elif name == "two_layer":
            losses = (phi(x @ parameters["V"].T) @ parameters["w"] - y) ** 2
        else:
            h = phi(x)
            for key in ("V1", "V2", "V3"):
                h = phi(h @ parameters[key].T)
            losses = (h @ parameters["w"] - y) ** 2
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    ours = job.model.layout.views(trained(job).parameters)
    for key, tensor in parameters.items():
        expected = tensor.detach().numpy()
        np.testing.assert_allclose(ours[key], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("worker_count", [1, 3, 8])
def test_the_server_gives_the_bits_of_one_plain_process(name: str, worker_count: int) -> None:
    spec = load_job_file(EXAMPLES / f"{name}.toml")
    spec.training.epochs = 4
    job = prepare(spec)
    assert job.total_steps >= STEPS
    state = job.first_state()
    train_in_one_process(computer_of(job), state, steps=job.total_steps)
    assert (
        train_with_plain_workers(job, worker_count=worker_count).state.parameters.tobytes()
        == state.parameters.tobytes()
    )


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "adamw"])
def test_a_rule_with_state_gives_the_same_bits_through_the_server(optimizer: str) -> None:
    spec = load_job_file(EXAMPLES / "two_layer.toml")
    spec.training.optimizer.name = optimizer
    spec.training.optimizer.learning_rate = 0.01
    spec.training.epochs = 2
    job = prepare(spec)
    state = job.first_state()
    train_in_one_process(computer_of(job), state, steps=job.total_steps)
    assert train_with_plain_workers(job, worker_count=3).state.parameters.tobytes() == state.parameters.tobytes()
