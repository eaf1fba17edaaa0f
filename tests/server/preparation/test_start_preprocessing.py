"""Fine-tuning means the same model on other rows: a job takes over the preprocessing of what it starts from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from chainrule.v1 import job_pb2
from chainrule_server.data.data_set_record import DataSetRecord, GivenName
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.errors import InvalidSpec
from chainrule_server.models.model_file import Provenance, encode
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.preprocessing import FORMAT
from tests.plain_workers import train_with_plain_workers

TAKEN = job_pb2.TakenPreprocessing
pytest.importorskip("pyarrow")


def table(path: Path, *, seed: int = 0, shift: float = 0.0, kinds: str = "ab", answers: str | None = None) -> None:
    """Rows of a number, a category and a target: a number, or one of `answers`."""
    drawn = np.random.default_rng(seed)
    lines = ["size,kind,price"]
    for row in range(48):
        size, kind = shift + drawn.normal(), kinds[row % len(kinds)]
        answer = answers[row % len(answers)] if answers else f"{100 * shift + 3 * size:.3f}"
        lines.append(f"{size:.4f},{kind},{answer}")
    path.write_text("\n".join(lines) + "\n")


def job(uri: str, *, classes: bool = False, **data: Any) -> job_pb2.JobSpec:
    """A network over a table."""
    spec = job_pb2.JobSpec(name="tune", data=job_pb2.DataSpec(uri=uri, target="price", **data))
    spec.model.prediction = "W @ tanh(V @ x)" if classes else "w @ tanh(V @ x)"
    spec.model.loss = "cross_entropy(prediction, y)" if classes else "(prediction - y)**2"
    spec.model.parameters.add(name="V", shape=["4", "d"])
    spec.model.parameters.add(name="W" if classes else "w", shape=["k", "4"] if classes else ["4"])
    spec.training.epochs, spec.training.shards, spec.training.batch_size = 2, 2, 8
    return spec


Source = Callable[..., TrainedModel]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Trains a job and keeps its model as model.safetensors."""

    def train(spec: job_pb2.JobSpec) -> TrainedModel:
        prepared = prepare(spec, data_root=tmp_path)
        trained = TrainedModel.of(prepared, train_with_plain_workers(prepared, worker_count=1).state)
        (tmp_path / "model.safetensors").write_bytes(encode(trained, Provenance("f00d", "", 0.0)))
        return trained

    return train


def tuned(spec: job_pb2.JobSpec, *taken: str) -> job_pb2.JobSpec:
    """The job with a start. taken: what the job says of preprocessing; nothing: the default; "": nothing is taken."""
    spec.model.start.model = "model.safetensors"
    if taken:
        spec.model.start.preprocessing.CopyFrom(TAKEN(**{name: True for name in taken if name}))
    return spec


def violations(spec: job_pb2.JobSpec, folder: Path) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        prepare(spec, data_root=folder)
    return dict(caught.value.violations)


def test_a_tuned_job_begins_as_the_model_that_it_starts_from(tmp_path: Path, source: Source) -> None:
    table(tmp_path / "old.csv")
    table(tmp_path / "new.csv", seed=1, shift=50)
    before = source(job("file:old.csv"))
    prepared = prepare(tuned(job("file:new.csv")), data_root=tmp_path)
    # The same parameters on the same preparation are the same function of raw rows.
    assert prepared.preprocessing == before.preprocessing
    assert prepared.first_state().parameters.tobytes() == before.parameters.tobytes()
    assert prepared.spec.model.start.preprocessing == TAKEN(features=True, target=True)
    mean = prepared.preprocessing.features[0].mean  # type: ignore[union-attr]
    assert mean is not None
    assert abs(mean) < 1, "the new rows' mean is about 50"


def test_the_same_bits_come_out_on_1_and_3_workers_and_after_a_restart(tmp_path: Path, source: Source) -> None:
    table(tmp_path / "old.csv")
    table(tmp_path / "new.csv", seed=1, shift=2)
    source(job("file:old.csv"))
    prepared = prepare(tuned(job("file:new.csv")), data_root=tmp_path)
    # A restarted server has the completed spec and its copy of the file.
    (tmp_path / "copy").write_bytes((tmp_path / "model.safetensors").read_bytes())
    (tmp_path / "model.safetensors").unlink()
    again = prepare(prepared.spec, data_root=tmp_path, start_path=tmp_path / "copy")
    assert again.spec == prepared.spec
    assert again.rows.sha256 == prepared.rows.sha256
    hashes = {
        train_with_plain_workers(each, worker_count=count).state.sha256
        for each, count in ((prepared, 1), (prepared, 3), (again, 2))
    }
    assert len(hashes) == 1


def test_nothing_or_the_features_alone_can_be_taken(tmp_path: Path, source: Source) -> None:
    table(tmp_path / "old.csv")
    table(tmp_path / "new.csv", seed=1, shift=5)
    before = source(job("file:old.csv")).preprocessing
    alone = prepare(job("file:new.csv"), data_root=tmp_path).preprocessing
    assert prepare(tuned(job("file:new.csv"), ""), data_root=tmp_path).preprocessing == alone
    features = prepare(tuned(job("file:new.csv"), "features"), data_root=tmp_path).preprocessing
    assert (features.features, features.target) == (before.features, alone.target)
    target = prepare(tuned(job("file:new.csv"), "target"), data_root=tmp_path).preprocessing
    assert (target.features, target.target) == (alone.features, before.target)


def test_columns_come_in_the_sources_order_and_others_are_left_out(tmp_path: Path, source: Source) -> None:
    table(tmp_path / "old.csv")
    before = source(job("file:old.csv"))
    lines = [line.split(",") for line in (tmp_path / "old.csv").read_text().splitlines()]
    swapped = [f"{kind},{note},{price},{size}" for note, (size, kind, price) in enumerate(lines)]
    (tmp_path / "new.csv").write_text("\n".join(["kind,note,price,size", *swapped[1:]]) + "\n")
    prepared = prepare(tuned(job("file:new.csv")), data_root=tmp_path)
    assert list(prepared.spec.data.features) == ["size", "kind"]
    expected = prepare(job("file:old.csv"), data_root=tmp_path)
    assert prepared.rows.in_data_order()[0].tobytes() == expected.rows.in_data_order()[0].tobytes()
    assert prepared.preprocessing == before.preprocessing


def test_classes_keep_their_numbers_and_an_unknown_one_is_refused(tmp_path: Path, source: Source) -> None:
    table(tmp_path / "old.csv", answers="pqr")
    table(tmp_path / "new.csv", answers="rq", kinds="bz")
    source(job("file:old.csv", classes=True))
    prepared = prepare(tuned(job("file:new.csv", classes=True)), data_root=tmp_path)
    assert prepared.class_count == 3
    assert prepared.rows.in_data_order()[1][:4].tolist() == [2, 1, 2, 1]
    # A category that the source didn't have has no place.
    assert prepared.rows.in_data_order()[0][1, 1:].tolist() == [0, 0]
    table(tmp_path / "new.csv", answers="ps")
    (field, message) = next(iter(violations(tuned(job("file:new.csv", classes=True)), tmp_path).items()))
    assert field == "data.target"
    assert "has s, but what the job starts from knows p, q, r" in message


def test_what_contradicts_the_taken_preprocessing_is_refused_by_name(tmp_path: Path, source: Source) -> None:
    table(tmp_path / "old.csv")
    table(tmp_path / "new.csv", seed=1)
    source(job("file:old.csv"))

    def told(spec: job_pb2.JobSpec, path: str) -> str:
        return violations(spec, tmp_path)[path]

    said = told(tuned(job("file:new.csv", missing="median")), "data.missing")
    assert said.startswith('"median" here, but "refuse" in what the job starts from; leave it out')
    assert "model.start.preprocessing = []" in said
    standardize = job_pb2.Standardization(features=True)
    said = told(tuned(job("file:new.csv", standardize=standardize)), "data.standardize")
    assert said.startswith("the target: not standardized here, but standardized in")
    assert "leaves out size" in told(tuned(job("file:new.csv", exclude=["size"])), "data.exclude")
    assert "has others, size, kind" in told(tuned(job("file:new.csv", features=["kind"])), "data.features")
    assert "[1.0, 2.0] here, but [] in" in told(tuned(job("file:new.csv", labels=[1, 2])), "data.labels")
    (tmp_path / "new.csv").write_text("size,price\n" + "1,2\n" * 9)
    said = told(tuned(job("file:new.csv")), "data.features")
    assert "kind" in said
    assert said.endswith("they are those of what the job starts from (model.start.preprocessing)")
    other = job("file:old.csv")
    other.data.target, other.model.loss = "size", "(prediction - y)**2"
    assert "is a feature of what the job starts from" in told(tuned(other), "data.target")
    table(tmp_path / "new.csv", answers="pq")
    assert "is a class, but a number in" in told(tuned(job("file:new.csv")), "data.target")


def test_a_file_of_another_program_has_no_preprocessing_to_take(tmp_path: Path) -> None:
    table(tmp_path / "new.csv")
    save_file({"w": np.ones(4, np.float32)}, tmp_path / "model.safetensors")
    prepared = prepare(tuned(job("file:new.csv")), data_root=tmp_path)
    assert prepared.spec.model.start.preprocessing == TAKEN()
    assert prepared.preprocessing == prepare(job("file:new.csv"), data_root=tmp_path).preprocessing
    said = violations(tuned(job("file:new.csv"), "features"), tmp_path)["model.start.preprocessing"]
    assert "doesn't say how its rows were prepared" in said


NUMBER = {"kind": "number", "name": "size", "mean": 0.0, "scale": 1.0, "fill": None}
TARGET: dict[str, Any] = {"name": "price", "mean": None, "scale": None, "classes": None, "labels": None}


@pytest.mark.parametrize(
    ("features", "target"),
    [
        ([NUMBER | {"mean": "0"}], TARGET),
        ([NUMBER | {"scale": 0.0}], TARGET),
        ([NUMBER | {"scale": None}], TARGET),
        ([NUMBER | {"fill": [1]}], TARGET),
        ([NUMBER | {"name": 3}], TARGET),
        ([NUMBER, NUMBER], TARGET),
        ([], TARGET),
        ("size", TARGET),
        ([{"kind": "category", "name": "kind", "categories": ["b", "a"], "fill": None}], TARGET),
        ([{"kind": "category", "name": "kind", "categories": [1], "fill": None}], TARGET),
        ([NUMBER], TARGET | {"classes": ["a", "a"]}),
        ([NUMBER], TARGET | {"classes": ["a", "b"], "labels": [1]}),
        ([NUMBER], TARGET | {"labels": ["x"]}),
        ([NUMBER], None),
        (eval("[" * 90 + "]" * 90), TARGET),  # noqa: S307 - deep
    ],
)
def test_a_hostile_preprocessing_is_refused_by_its_path(features: Any, target: Any, tmp_path: Path) -> None:
    table(tmp_path / "new.csv")
    text = json.dumps({"format": FORMAT, "features": features, "target": target})
    metadata = {"preprocessing": text, "spec": "{}"}
    save_file({"w": np.ones(4, np.float32)}, tmp_path / "model.safetensors", metadata)
    said = violations(tuned(job("file:new.csv")), tmp_path)["model.start.preprocessing"]
    assert "is no preprocessing" in said
    assert said.endswith("say model.start.preprocessing = []")
    for broken in ("[" * 100_000, "null", '{"format": NaN}'):
        save_file({"w": np.ones(4, np.float32)}, tmp_path / "model.safetensors", {"preprocessing": broken})
        assert "model.start.preprocessing" in violations(tuned(job("file:new.csv")), tmp_path)


def test_a_job_starts_from_an_uploaded_model(tmp_path: Path, source: Source) -> None:
    table(tmp_path / "old.csv")
    before = source(job("file:old.csv"))
    store = DataSetStore(tmp_path / "sets")
    content = (tmp_path / "model.safetensors").read_bytes()
    spec = tuned(job("file:old.csv"))
    sha256 = prepare(spec, data_root=tmp_path).spec.model.start.sha256
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "content").write_bytes(content)
    store.add(tmp_path / "sent", DataSetRecord(sha256, len(content), (GivenName("houses.safetensors", 0.0),), 0.0))
    spec.model.start.model = "dataset:houses.safetensors"
    prepared = prepare(spec, data_root=tmp_path, data_sets=store)
    assert prepared.first_state().parameters.tobytes() == before.parameters.tobytes()
    spec.model.start.model = "dataset:flats.safetensors"
    with pytest.raises(InvalidSpec, match="flats"):
        prepare(spec, data_root=tmp_path, data_sets=store)
    assert "on a server" in violations(spec, tmp_path)["model.start.model"]
    spec.data.uri, spec.model.start.model = "dataset:houses.safetensors", "model.safetensors"
    with pytest.raises(InvalidSpec, match="names no file that can be read"):
        prepare(spec, data_root=tmp_path, data_sets=store)
