"""The jobs of a sweep: which there are, and that the same file gives the same ones."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from chainrule.errors import JobFileError
from chainrule.spec.job_file import load_job_file
from chainrule.spec.sweep import LABEL, Sweep, sweep_of_table

JOB = """
name = "net"

[model]
prediction = "w @ tanh(V @ x)"
loss = "(prediction - y)**2"

[model.parameters]
V = [4, "d"]
w = [4]

[data]
uri = "sklearn:diabetes"

[training]
epochs = 2
batch_size = 64
optimizer = { name = "adam", learning_rate = 0.5 }

[sweep]
"""


def sweep(text: str) -> Sweep:
    return sweep_of_table(tomllib.loads(JOB + text))


def problems(text: str) -> dict[str, str]:
    with pytest.raises(JobFileError) as caught:
        sweep(text)
    return dict(caught.value.problems)


def test_every_combination_of_the_grids_is_a_trial() -> None:
    found = sweep('training.optimizer.learning_rate = [0.01, 0.1]\ntraining.optimizer.name = ["sgd", "adam", "adamw"]')
    assert found.paths == ("training.optimizer.learning_rate", "training.optimizer.name")
    assert [(t.jobs[0].training.optimizer.learning_rate, t.jobs[0].training.optimizer.name) for t in found.trials] == [
        (rate, name) for rate in (0.01, 0.1) for name in ("sgd", "adam", "adamw")
    ]
    assert [trial.jobs[0].name for trial in found.trials] == [f"net-{number:03d}" for number in range(1, 7)]
    assert all(trial.jobs[0].labels[LABEL] == found.sweep_id for trial in found.trials)


def test_a_shape_and_a_formula_are_values_like_others() -> None:
    found = sweep('model.parameters.w = [[4], [4, 1]]\nmodel.loss = ["abs(prediction - y)"]')
    assert [list(trial.jobs[0].model.parameters[1].shape) for trial in found.trials] == [["4"], ["4", "1"]]
    assert {trial.jobs[0].model.loss for trial in found.trials} == {"abs(prediction - y)"}


def test_ranges_are_drawn_from_the_seed_within_their_ends_and_crossed_with_the_grids() -> None:
    text = """count = 200
seed = 3
training.optimizer.learning_rate = { low = 0.0001, high = 1.0, log = true }
training.batch_size = { low = 1, high = 3 }
training.epochs = [1, 2]
"""
    found = sweep(text)
    assert len(found.trials) == 400
    rates = [trial.settings["training.optimizer.learning_rate"] for trial in found.trials]
    assert all(0.0001 <= rate <= 1 for rate in rates)
    assert rates[:200] == rates[200:]
    # Evenly in the logarithm: half of them below the geometric mean.
    assert 0.4 < sum(rate < 0.01 for rate in rates) / 400 < 0.6
    assert {trial.jobs[0].training.batch_size for trial in found.trials} == {1, 2, 3}
    assert sweep(text) == found
    assert sweep(text.replace("seed = 3", "seed = 4")).sweep_id != found.sweep_id


def test_with_folds_a_trial_has_a_job_for_each_and_one_on_the_jobs_own_rows() -> None:
    found = sweep("folds = 3\ntraining.epochs = [1]")
    (trial,) = found.trials
    assert [(job.data.fold.number, job.data.fold.count) for job in trial.jobs] == [(0, 3), (1, 3), (2, 3)]
    assert not trial.final.data.HasField("fold")
    names = [job.name for job in (*trial.jobs, trial.final)]
    assert names == ["net-001-fold-0", "net-001-fold-1", "net-001-fold-2", "net-001-final"]
    assert len({found.request_id(job, 0) for job in (*trial.jobs, trial.final)}) == 4


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("", "sweep", "names no setting"),
        ("training.epochs = []", "sweep.training.epochs", "is empty"),
        ("training.epochs = 3", "sweep.training.epochs", "must be a list"),
        ("training.epochs = { low = 1, high = 3 }", "sweep.count", "is missing"),
        ("count = 3\ntraining.epochs = [1]", "sweep.count", "there is none"),
        ("count = 3\ntraining.epochs = { low = 3, high = 1 }", "sweep.training.epochs", "the first below the second"),
        ("count = 3\ntraining.epochs = { low = 0, high = 1, log = true }", "sweep.training.epochs.low", "above 0"),
        ("count = 3\ntraining.epochs = { low = 0, high = 1, lag = true }", "sweep.training.epochs.lag", "unknown key"),
        ("folds = 1\ntraining.epochs = [1]", "sweep.folds", "at least 2"),
        ("folds = true\ntraining.epochs = [1]", "sweep.folds", "whole number"),
        ("folds = 600\ntraining.epochs = [1, 2]", "sweep", "1200 jobs"),
        ('training.epohcs = [1]', "training.epohcs", "did you mean 'epochs'"),
        ('model.loss.a = [1]', "sweep.model.loss.a", "no table"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_path(text: str, path: str, said: str) -> None:
    found = problems(text)
    assert said in found[path], found


def test_a_job_file_with_a_sweep_is_no_single_job(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(JOB + "training.epochs = [1]")
    with pytest.raises(JobFileError, match="chainrule sweep"):
        load_job_file(path)
