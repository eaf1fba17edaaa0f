"""Job files: what they mean, and the exact words for what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from chainrule.errors import JobFileError
from chainrule.spec.job_file import MAX_FILE_BYTES, load_job_file, parse_job
from chainrule.v1 import job_pb2

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

JOB = """
name = "four-layer"

[model]
prediction = "w @ phi(V @ x)"
loss = "(prediction - y)**2"
phi = "sigmoid"

[model.parameters]
w = [32]
V = [32, "d"]
b = []
a = { shape = ["k", 2], initializer = "zeros" }

[data]
uri = "sklearn:diabetes"
validation_fraction = 0
standardize = ["target"]
labels = [-1, 1.5]

[training]
epochs = 500
batch_size = 64
seed = 18446744073709551615
optimizer = { name = "sgd", learning_rate = 1 }
"""


def test_a_job_file_is_the_spec_that_it_spells_out() -> None:
    assert parse_job(JOB) == job_pb2.JobSpec(
        name="four-layer",
        model=job_pb2.ModelSpec(
            prediction="w @ phi(V @ x)",
            loss="(prediction - y)**2",
            phi="sigmoid",
            parameters=[
                job_pb2.Parameter(name="w", shape=["32"]),
                job_pb2.Parameter(name="V", shape=["32", "d"]),
                job_pb2.Parameter(name="b"),
                job_pb2.Parameter(name="a", shape=["k", "2"], initializer="zeros"),
            ],
        ),
        data=job_pb2.DataSpec(
            uri="sklearn:diabetes",
            validation_fraction=0.0,
            standardize=job_pb2.Standardization(target=True),
            labels=[-1.0, 1.5],
        ),
        training=job_pb2.TrainingSpec(
            epochs=500,
            batch_size=64,
            seed=2**64 - 1,
            optimizer=job_pb2.Optimizer(name="sgd", learning_rate=1.0),
        ),
    )


def test_what_a_file_leaves_out_stays_unset() -> None:
    spec = parse_job("[training]\nepochs = 1\n")
    assert not spec.training.HasField("seed")
    assert not spec.training.HasField("optimizer")
    assert not spec.HasField("data")


def test_an_empty_list_of_switches_is_set_and_all_off() -> None:
    data = parse_job("data.standardize = []").data
    assert data.HasField("standardize")
    assert data.standardize == job_pb2.Standardization()


def test_the_long_forms_mean_the_same_as_the_short_ones() -> None:
    long = parse_job(
        """
        data.standardize = { features = true }
        [[model.parameters]]
        name = "V"
        shape = ["32", "d"]
        """
    )
    short = parse_job('data.standardize = ["features"]\nmodel.parameters.V = [32, "d"]')
    assert long == short


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_a_job_file(path: Path) -> None:
    assert load_job_file(path).model.loss


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.epoch = 1", "training.epoch: unknown key; did you mean 'epochs'?"),
        ("training.Epochs = 1", "training.Epochs: unknown key; did you mean 'epochs'?"),
        ("zzz = 1", "zzz: unknown key; known here: name, model, data, training, labels, priority"),
        ('"a b\\n" = 1', '"a b\\n": unknown key; known here: name, model, data, training, labels, priority'),
        ('training.epochs = "5"', 'training.epochs: must be a whole number, got the string "5"'),
        ("training.epochs = 5.0", "training.epochs: must be a whole number, got 5.0"),
        ("training.epochs = true", "training.epochs: must be a whole number, got true"),
        ("training.epochs = -1", "training.epochs: must be from 0 to 4294967295, got -1"),
        ("training.epochs = 4294967296", "training.epochs: must be from 0 to 4294967295, got 4294967296"),
        ("training.seed = -1", "training.seed: must be from 0 to 18446744073709551615, got -1"),
        ("training.epochs = [1]", "training.epochs: must be a whole number, got a list"),
        ("training.epochs = 2026-01-01", "training.epochs: must be a whole number, got a date or time"),
        ("training = 5", "training: must be a table, got 5"),
        ("data.validation_fraction = true", "data.validation_fraction: must be a number, got true"),
        (
            "data.validation_fraction = 1" + "0" * 400,
            "data.validation_fraction: must be a number that fits into 64 bits, got a number of more than 128 bits",
        ),
        ("data.labels = 1", "data.labels: must be a list, got 1"),
        ('data.labels = [1, "b"]', 'data.labels[1]: must be a number, got the string "b"'),
        ("data.standardize = true", 'data.standardize: must be a list of "features" and "target", got true'),
        ('data.standardize = ["feature"]', "data.standardize[0]: unknown entry 'feature'; did you mean 'features'?"),
        ("data.standardize = [1]", "data.standardize[0]: must be a string, got 1"),
        ("data.standardize.target = 1", "data.standardize.target: must be true or false, got 1"),
        ("name = 5", "name: must be a string, got 5"),
        ("model.parameters = 5", "model.parameters: must be a table from names to values, got 5"),
        ("model.parameters.V = 32", 'model.parameters.V: must be a shape such as [32, "d"] or a table, got 32'),
        ("model.parameters.V = [1.5]", "model.parameters.V[0]: must be a string, got 1.5"),
        ("model.parameters.V = [true]", "model.parameters.V[0]: must be a string, got true"),
        ("model.parameters.V.shap = [1]", "model.parameters.V.shap: unknown key; did you mean 'shape'?"),
        ("model.parameters.V.name = 'W'", "model.parameters.V.name: the name is 'V' already; remove this key"),
        ("model.parameters = [5]", "model.parameters[0]: must be a table, got 5"),
        ("name =", "job file: line 1, column 7: not TOML: Invalid value"),
        ("a = 1\nb = '", 'job file: line 2, column 6: not TOML: Expected "\'"'),
        ("a = 1\na = 2", "job file: line 2, column 6: not TOML: Cannot overwrite a value"),
        (b"a = '\xff'", "job file: line 1: not UTF-8; save the file as UTF-8"),
        ("a = " + "[" * 100_000, "job file: nested too deep to be a job file"),
    ],
)
def test_each_problem_has_its_path_and_its_remedy(text: str | bytes, message: str) -> None:
    with pytest.raises(JobFileError) as caught:
        parse_job(text)
    assert str(caught.value) == message


def test_all_problems_of_a_file_are_told_at_once() -> None:
    with pytest.raises(JobFileError) as caught:
        parse_job('nam = 1\n[training]\nepochs = -1\nbatch_size = "a"\n[data]\nurl = "x"\n')
    assert [path for path, _ in caught.value.problems] == ["nam", "training.epochs", "training.batch_size", "data.url"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nosuch.toml"
    with pytest.raises(JobFileError) as caught:
        load_job_file(path)
    assert str(caught.value) == f"{path}: there is no such file; give the path of a job file"


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    with pytest.raises(JobFileError) as caught:
        load_job_file(tmp_path)
    assert str(caught.value) == f"{tmp_path}: can't be read: Is a directory"


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(JobFileError) as caught:
        load_job_file("/dev/zero")
    assert str(caught.value) == f"/dev/zero: is larger than {MAX_FILE_BYTES} bytes, so it is no job file"


def test_labels_are_a_table_of_strings() -> None:
    spec = parse_job('name = "a"\npriority = -3\n[labels]\nteam = "vision"\n"example.com/stage" = ""\n')
    assert (dict(spec.labels), spec.priority) == ({"team": "vision", "example.com/stage": ""}, -3)
    for text, message in (("labels = 3", "must be a table, got 3"), ("labels.team = 3", "must be a string, got 3")):
        with pytest.raises(JobFileError, match=message):
            parse_job(text)
