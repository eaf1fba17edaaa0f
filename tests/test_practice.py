"""What training needs in practice, from the job file to the bits: the same on any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chainrule.spec.job_file import load_job_file
from chainrule_engine.backpropagation import forward
from chainrule_engine.microbatch import NotFinite
from chainrule_engine.parameters import sha256_of
from chainrule_engine.reduction import PartialSum, Subtree
from chainrule_engine.synchronous_sgd import train_in_one_process
from chainrule_server.errors import InvalidSpec
from chainrule_server.models import model_file
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.offline.example_row import read_parameters
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.training import Training, TrainingFailed
from tests.plain_workers import computer_of, train_with_plain_workers

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "two_layer.toml"
Job = Callable[..., PreparedJob]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """The two-layer job with lines added to [training] and texts replaced."""

    def make(more: str = "", **replaced: str) -> PreparedJob:
        text = EXAMPLE.read_text()
        for old, new in ({"epochs = 100": "epochs = 4"} | replaced).items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "job.toml"
        path.write_text(f"{text}\n{more}\n")
        return prepare(load_job_file(path))

    return make


def outcome(training: Training) -> object:
    assert training.result is not None
    return training.result.parameters_sha256, training.result.loss, training.result.best_epoch


@pytest.mark.parametrize(
    "more",
    [
        'schedule = { name = "cosine", warmup_steps = 5, minimum_factor = 0.1 }',
        'schedule = { name = "step", every_steps = 6, factor = 0.5 }',
        'schedule = { name = "reduce_on_plateau", patience_epochs = 1, min_delta = 10.0 }',
        "penalties = { l1 = 0.01, l2 = 0.1 }",
        "clipping = { value = 0.01 }",
        "clipping = { global_norm = 0.1 }",
        "early_stopping = { patience_epochs = 1 }",
    ],
)
def test_a_setting_changes_the_result_and_gives_the_same_bits_on_any_number_of_workers(job: Job, more: str) -> None:
    changed = {outcome(train_with_plain_workers(job(more), worker_count=count)) for count in (1, 3, 8)}
    assert len(changed) == 1
    if "early_stopping" not in more:
        assert changed != {outcome(train_with_plain_workers(job(), worker_count=1))}


def test_dropout_gives_the_same_bits_on_any_number_of_workers(job: Job) -> None:
    dropped = {
        outcome(
            train_with_plain_workers(job(**{'"w @ phi(V @ x)"': '"w @ dropout(phi(V @ x), 0.3)"'}), worker_count=count)
        )
        for count in (1, 3, 8)
    }
    assert len(dropped) == 1
    assert dropped != {outcome(train_with_plain_workers(job(), worker_count=1))}


def test_early_stopping_gives_the_parameters_of_the_best_epoch(job: Job) -> None:
    """Full of noise by its large rate, the loss is not better for five epochs long before the last one."""
    many = {"epochs = 100": "epochs = 200", "learning_rate = 0.05": "learning_rate = 0.15"}
    prepared = job("early_stopping = { patience_epochs = 5 }", **many)
    training = train_with_plain_workers(prepared, worker_count=2)
    assert training.result is not None
    assert training.progress.epoch == training.result.best_epoch + 5 < 200
    only = train_with_plain_workers(
        job(**(many | {"epochs = 100": f"epochs = {training.result.best_epoch}"})), worker_count=1
    )
    assert only.result is not None
    assert training.result.parameters_sha256 == only.result.parameters_sha256
    assert training.result.validation_loss == only.result.validation_loss


def test_an_l2_penalty_draws_the_parameters_to_zero_as_its_formula_says(job: Job) -> None:
    prepared = job("penalties = { l2 = 0.5 }", **{"epochs = 100": "epochs = 1"})
    plain, penalized = job(**{"epochs = 100": "epochs = 1"}).first_state(), prepared.first_state()
    before = plain.parameters.copy()
    for state in (plain, penalized):
        gradient = computer_of(prepared).gradient_of_step(1, state.parameters)
        state.apply(gradient)
    np.testing.assert_allclose(plain.parameters - penalized.parameters, 0.05 * 0.5 * before, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "path", "said"),
    [
        ('schedule = { name = "cosin" }', "training.schedule.name", "cosine"),
        ('schedule = { name = "step" }', "training.schedule.every_steps", ""),
        ("clipping = { value = 0.0 }", "training.clipping.value", "above 0"),
        ("penalties = { l2 = -1.0 }", "training.penalties.l2", "at least 0"),
        ("early_stopping = { min_delta = 0.1 }", "training.early_stopping.patience_epochs", "at least 1"),
    ],
)
def test_a_wrong_setting_is_refused_at_its_path(job: Job, more: str, path: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        job(more)
    ((found, message),) = caught.value.violations
    assert found == path
    assert said in message


@pytest.mark.parametrize(
    "more", ["early_stopping = { patience_epochs = 1 }", 'schedule = { name = "reduce_on_plateau" }']
)
def test_what_looks_at_the_validation_loss_needs_validation_rows(job: Job, more: str) -> None:
    with pytest.raises(InvalidSpec, match="needs validation rows"):
        job(more, **{"validation_fraction = 0.2": "validation_fraction = 0.0"})


NORMALIZED = {'"w @ phi(V @ x)"': '"w @ phi(batch_norm(V @ x))"'}


def test_batch_normalization_gives_the_same_parameters_and_running_statistics_on_any_number_of_workers(
    job: Job,
) -> None:
    prepared = job(**(NORMALIZED | {"epochs = 100": "epochs = 5"}))
    trained = [train_with_plain_workers(prepared, worker_count=count) for count in (1, 3, 8)]
    assert {each.result.parameters_sha256 for each in trained if each.result} == {trained[0].state.sha256}
    first = prepared.first_state()
    assert len({each.state.statistics.tobytes() for each in trained} | {first.statistics.tobytes()}) == 2
    assert trained[0].state.sha256 != sha256_of(trained[0].state.parameters)


def test_an_evaluation_uses_the_running_statistics_and_the_model_file_holds_them(job: Job, tmp_path: Path) -> None:
    prepared = job(**(NORMALIZED | {"epochs = 100": "epochs = 5"}))
    training = train_with_plain_workers(prepared, worker_count=2)
    assert training.result is not None
    path = tmp_path / "model.safetensors"
    trained = TrainedModel.of(prepared, training.state)
    path.write_bytes(model_file.encode(trained, model_file.Provenance("job", "", 0.0)))
    values = read_parameters(path, prepared.model)
    for statistic in prepared.model.statistics.parameters:
        view = prepared.model.statistics.views(training.state.statistics)[statistic.name]
        assert np.array_equal(values[statistic.name], view)
    losses = []
    for row, target in zip(*prepared.rows.in_data_order(), strict=True):
        leaves = values | {"x": row[None].astype(np.float64), "y": target[None].astype(np.float64)}
        losses.append(forward(prepared.model.evaluation_loss, leaves)[prepared.model.evaluation_loss.root].sum())
    rows = prepared.division.training_rows
    assert training.result.loss == pytest.approx(np.mean(np.array(losses)[rows]), rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_reduced_precision_gives_the_same_bits_on_any_number_of_workers_and_in_one_process(
    job: Job, precision: str
) -> None:
    prepared = job(f'precision = "{precision}"', **{"epochs = 100": "epochs = 3"})
    hashes = set()
    for worker_count in (1, 2, 3, 8):
        training = train_with_plain_workers(prepared, worker_count=worker_count)
        hashes.add(outcome(training))
    state = prepared.first_state()
    train_in_one_process(computer_of(prepared), state, steps=prepared.total_steps)
    assert hashes == {outcome(training)}
    assert state.sha256 == training.state.sha256
    full = train_with_plain_workers(job(**{"epochs = 100": "epochs = 3"}), worker_count=1)
    assert training.state.sha256 != full.state.sha256
    np.testing.assert_allclose(training.state.parameters, full.state.parameters, atol=0.05)


def test_int8_with_feedback_learns_as_float32_does(job: Job) -> None:
    full = train_with_plain_workers(job(**{"epochs = 100": "epochs = 100"}), worker_count=2)
    coarse = train_with_plain_workers(job('precision = "int8"', **{"epochs = 100": "epochs = 100"}), worker_count=2)
    assert full.result is not None
    assert coarse.result is not None
    assert coarse.result.loss == pytest.approx(full.result.loss, rel=0.05)
    np.testing.assert_allclose(coarse.state.parameters, full.state.parameters, atol=0.05)


def test_what_is_reported_is_the_loss_of_the_parameters_that_the_user_gets(job: Job) -> None:
    training = train_with_plain_workers(job('precision = "bfloat16"'), worker_count=2)
    assert training.result is not None
    whole = Subtree(0, training.job.spec.training.shards)
    total = computer_of(training.job).evaluate(whole, parameters=training.state.parameters, validation=False)
    assert total is not None
    assert training.result.loss == float(total.sums[0]) / total.row_count


@pytest.mark.parametrize("worker_count", [1, 3])
def test_a_gradient_that_is_not_finite_where_the_loss_is_names_its_first_shard(job: Job, worker_count: int) -> None:
    prepared = job(**{'loss = "(prediction - y)**2"': 'loss = "sqrt(0 * prediction**2) + y - y"'})
    with pytest.raises(TrainingFailed, match=r"step 1: the gradient is not finite \(shard \d\)"):
        train_with_plain_workers(prepared, worker_count=worker_count)


def test_a_gradient_whose_square_overflows_fails_the_step_instead_of_freezing_the_element(job: Job) -> None:
    state = job(**{'name = "sgd"': 'name = "adam"'}).first_state()
    before = state.parameters.copy()
    with pytest.raises(NotFinite):
        state.apply(PartialSum(1, np.zeros(1), np.full(before.size, 1e25, np.float32)))
    assert np.array_equal(state.parameters, before)
