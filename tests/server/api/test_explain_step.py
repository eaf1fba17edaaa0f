"""From one example to a shard's microbatch to the reduced gradient: what is shown is what is trained with."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from chainrule.v1 import job_pb2
from chainrule.v1 import model_service_pb2 as api
from chainrule_engine.reduction import Subtree
from chainrule_engine.synchronous_sgd import train_in_one_process
from chainrule_server.models.cancellation import Stop
from chainrule_server.models.reduction_explanation import explain_reduction
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.prepared_job import PreparedJob
from tests.plain_workers import computer_of
from tests.server.in_process import RunningServer, add_data_sets, prepared, refusal, regression_spec

TIMEOUT_S = 60.0


@pytest.fixture(autouse=True)
def data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    add_data_sets(monkeypatch)


def network(**training: Any) -> job_pb2.JobSpec:
    """A network with dropout and batch normalization, in 4 shards that run out of rows at different steps."""
    spec = regression_spec()
    spec.model.prediction = "w @ dropout(tanh(batch_norm(V @ x)), 0.3) + b"
    spec.model.parameters.add(name="V", shape=["4", "d"])
    spec.model.parameters[0].shape[:] = ["4"]
    spec.training.shards, spec.training.batch_size, spec.training.epochs = 4, 12, 3
    spec.training.MergeFrom(job_pb2.TrainingSpec(**training))
    return spec


def at_step(job: PreparedJob, step: int) -> TrainedModel:
    """The job's parameters after a step of one process."""
    state = job.first_state()
    if step:
        train_in_one_process(computer_of(job), state, steps=step)
    return TrainedModel.of(job, state)


def reduction(job: PreparedJob, trained: TrainedModel, **more: Any) -> api.ExplainReductionResponse:
    return explain_reduction(trained, api.ExplainReductionRequest(max_values=1000, **more), job, Stop())


def gradient_of(answer: api.ExplainReductionResponse) -> np.ndarray[Any, Any]:
    return np.concatenate([np.array(each.gradient.values, np.float32) for each in answer.parameters])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_reduced_gradient_is_to_the_bit_the_one_that_the_step_is_made_with(precision: str, step: int) -> None:
    job = prepared(network(precision=precision, optimizer=job_pb2.Optimizer(name="sgd", learning_rate=0.5)))
    before, after = at_step(job, step), at_step(job, step + 1)
    answer = reduction(job, before)
    moved = before.parameters - np.float32(0.5) * gradient_of(answer)
    assert moved.astype(np.float32).tobytes() == after.parameters.tobytes()
    assert answer.step == step + 1


def test_the_tree_shows_every_subtree_with_rows_and_its_halves_before_it() -> None:
    job = prepared(network())
    trained = at_step(job, 0)
    answer = reduction(job, trained)
    shown = [(each.first_shard, each.shard_count) for each in answer.tree]
    assert shown == [(0, 1), (1, 1), (0, 2), (2, 1), (3, 1), (2, 2), (0, 4)]
    computer = computer_of(job)
    for each in answer.tree:
        total = computer.gradient(Subtree(each.first_shard, each.shard_count), step=1, parameters=trained.parameters)
        assert total is not None
        assert each.row_count == total.row_count
        assert each.loss == float(total.sums[0]) / total.row_count
        assert each.norm == pytest.approx(float(np.linalg.norm(total.gradient)) / total.row_count, rel=1e-6)
    assert (answer.tree[-1].row_count, answer.tree[-1].loss) == (answer.row_count, answer.loss)
    assert answer.norm == pytest.approx(float(np.linalg.norm(gradient_of(answer))), rel=1e-6)


def test_a_frozen_parameter_is_shown_as_frozen_and_has_no_gradient() -> None:
    spec = network()
    spec.model.parameters[2].frozen = True
    answer = reduction(prepared(spec), at_step(prepared(spec), 0))
    assert [(each.name, each.frozen, each.norm > 0) for each in answer.parameters] == [
        ("w", False, True), ("b", False, True), ("V", True, False),
    ]  # fmt: skip


def test_a_shards_microbatch_has_the_gradient_that_the_shard_adds_to_the_sum(server: RunningServer) -> None:
    job = server.add_finished(prepared(network()))
    step = job.training.state.step
    computer = computer_of(job.prepared)
    for shard in range(4):
        request = api.ExplainRequest(job_id=job.job_id, shard=shard, max_values=1000)
        answer = server.models.Explain(request, timeout=TIMEOUT_S)
        total = computer.gradient(Subtree(shard, 1), step=step + 1, parameters=job.training.state.parameters)
        views = job.prepared.model.layout.views(total.gradient)
        for node in answer.nodes:
            if node.operation == "parameter":
                shown = np.array(node.backward.values).reshape(tuple(node.shape))
                np.testing.assert_allclose(shown, views[node.name], rtol=1e-4, atol=1e-5 * np.abs(total.gradient).max())
        assert len(answer.rows) == total.row_count
        assert set(answer.rows) <= set(job.prepared.division.training[shard].tolist())
        assert sum(answer.nodes[-1].forward.values) == pytest.approx(float(total.sums[0]), rel=1e-5)


def test_a_running_job_is_explained_by_its_shards_without_a_bit_of_it_changing(server: RunningServer) -> None:
    from chainrule_server.training.training import Training

    job = server.submit(prepared(network()))

    def start() -> None:
        # As the scheduler would with workers: here nobody answers its orders.
        job.training = Training(job.job_id, job.prepared, clock_ns=lambda: 0)
        train_in_one_process(computer_of(job.prepared), job.training.state, steps=2)

    server.run(start)
    state = job.training.state
    before = state.sha256, {name: value.tobytes() for name, value in state.state.items()}, state.step
    answer = server.models.ExplainReduction(api.ExplainReductionRequest(job_id=job.job_id), timeout=TIMEOUT_S)
    assert answer.step == 3
    for shard in range(4):
        server.models.Explain(api.ExplainRequest(job_id=job.job_id, shard=shard), timeout=TIMEOUT_S)
    assert (state.sha256, {name: value.tobytes() for name, value in state.state.items()}, state.step) == before


def test_what_there_is_not_is_told(server: RunningServer) -> None:
    job = server.add_finished(prepared(network()))
    request = api.ExplainRequest(job_id=job.job_id, shard=4)
    code, violations, _ = refusal(lambda: server.models.Explain(request, timeout=TIMEOUT_S))
    assert (code, violations) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        {"shard": "there is no shard 4; the job has shards 0 to 3"},
    )
    wrong = api.ExplainReductionRequest(job_id=job.job_id, max_values=100_001)
    assert "max_values" in refusal(lambda: server.models.ExplainReduction(wrong, timeout=TIMEOUT_S))[1]
