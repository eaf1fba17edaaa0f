"""Keys of a job file that are given beside it, as `--set KEY=VALUE`."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from chainrule.errors import JobFileError
from chainrule.spec.job_file import job_of_table, load_job_file
from chainrule.spec.settings import with_settings
from chainrule.v1 import job_pb2

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "four_layer.toml"


def test_a_setting_replaces_what_the_file_says_and_leaves_the_rest() -> None:
    expected = load_job_file(EXAMPLE)
    expected.training.epochs = 7
    expected.training.optimizer.learning_rate = 0.25
    settings = ["training.epochs=7", "training.optimizer.learning_rate = 0.25"]
    assert load_job_file(EXAMPLE, settings) == expected


def test_the_last_of_two_settings_of_one_key_counts() -> None:
    assert load_job_file(EXAMPLE, ["training.seed=1", "training.seed=2"]).training.seed == 2


@pytest.mark.parametrize(
    ("setting", "table"),
    [
        ("training.optimizer.name=adam", {"training": {"optimizer": {"name": "adam"}}}),
        ('training.optimizer={name="adam"}', {"training": {"optimizer": {"name": "adam"}}}),
        ("data.standardize=[]", {"data": {"standardize": []}}),
        ('data.features=["a", "b"]', {"data": {"features": ["a", "b"]}}),
        ("data.csv.delimiter=;", {"data": {"csv": {"delimiter": ";"}}}),
        # A key that holds a text takes what looks like a number as it stands.
        ("data.missing=0", {"data": {"missing": "0"}}),
        ("data.target=2024", {"data": {"target": "2024"}}),
        ("data.target=2024-01-01", {"data": {"target": "2024-01-01"}}),
        ("name=1e5", {"name": "1e5"}),
        ('name="quoted"', {"name": "quoted"}),
        ("model.loss=(prediction - y)**2", {"model": {"loss": "(prediction - y)**2"}}),
        ("model.loss=a == b", {"model": {"loss": "a == b"}}),
        ('model.parameters.V1=[64, "d"]', {"model": {"parameters": {"V1": [64, "d"]}}}),
        ('model.parameters."V 1"=[2]', {"model": {"parameters": {"V 1": [2]}}}),
        ("labels.team=vision", {"labels": {"team": "vision"}}),
    ],
)
def test_a_value_is_one_of_toml_or_a_bare_text(setting: str, table: object) -> None:
    assert with_settings({}, [setting]) == table


@pytest.mark.parametrize(
    "setting",
    ["", "=", "=5", "training.epochs", "training..epochs=5", "a b=5", "x=1\ny=2", "[data]\nx=1", "x.=1", "{}=1"],
)
def test_what_is_no_setting_is_named_with_an_example(setting: str) -> None:
    with pytest.raises(JobFileError, match=r"--set: must be KEY=VALUE, such as training.epochs=50, got"):
        with_settings({}, [setting])


def test_every_setting_that_is_none_is_named_at_once() -> None:
    with pytest.raises(JobFileError) as caught:
        with_settings({}, ["epochs", "training.epochs=3", "name.first=x", "=", "name=x"])
    assert len(caught.value.problems) == 2
    with pytest.raises(JobFileError, match="goes through 'name', which is no table"):
        with_settings({"name": "x"}, ["name.first=y"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epoch=3", "training.epoch: unknown key; "),
        ("training.epochs=many", "training.epochs: must be a whole number, got the string"),
        ("data.standardize=features", "data.standardize: must be a list"),
    ],
)
def test_a_setting_that_does_not_fit_is_an_error_like_that_of_the_file(setting: str, message: str) -> None:
    with pytest.raises(JobFileError, match=message):
        load_job_file(EXAMPLE, [setting])


def plain_keys(message: Descriptor, path: str = "") -> list[tuple[str, FieldDescriptor]]:
    """Every key of a job file that holds one value, by its path."""
    found = []
    for field in message.fields:
        if field.is_repeated or (field.message_type is not None and field.message_type.name == "Standardization"):
            continue
        if field.message_type is not None:
            found += plain_keys(field.message_type, f"{path}{field.name}.")
        else:
            found.append((path + field.name, field))
    return found


KEYS = plain_keys(job_pb2.JobSpec.DESCRIPTOR)


@pytest.mark.parametrize(("key", "field"), KEYS, ids=[key for key, _ in KEYS])
def test_every_key_of_a_job_file_can_be_set(key: str, field: FieldDescriptor) -> None:
    values = {FieldDescriptor.CPPTYPE_BOOL: "true", FieldDescriptor.CPPTYPE_DOUBLE: "0.5"}
    spec = job_of_table(with_settings({}, [f"{key}={values.get(field.cpp_type, '5')}"]))
    *above, last = key.split(".")
    for name in above:
        assert spec.HasField(name)
        spec = getattr(spec, name)
    assert getattr(spec, last) in (True, 0.5, 5, "5")
