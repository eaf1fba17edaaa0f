"""The estimators for scikit-learn: its own checks, its tools, and the bits of what is fitted."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule
from chainrule.errors import InvalidJob, JobNotEnded
from tests.cluster.support import processes_with, wait_for

sklearn = pytest.importorskip("sklearn")

from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.datasets import make_blobs, make_regression  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from chainrule.estimators import ChainruleClassifier, ChainruleRegressor  # noqa: E402
from chainrule.estimators.cluster import shared_cluster  # noqa: E402

pytestmark = pytest.mark.cluster
# Few steps: scikit-learn fits hundreds of times.
QUICK: dict[str, Any] = {"epochs": 10, "learning_rate": 0.05, "random_state": 0}
LINEAR = {"prediction": "w @ x + b", "parameters": {"w": ["d"], "b": []}}
PROGRAM = """
import numpy, sys
from chainrule.estimators import ChainruleRegressor
X = numpy.arange(20.0).reshape(10, 2)
print(ChainruleRegressor(epochs=2).fit(X, X[:, 0]).predict(X).shape)
"""


def blobs() -> tuple[Any, Any]:
    X, y = make_blobs(120, random_state=0)
    return X, np.array(["red", "green", "blue"])[y]


def line() -> tuple[Any, Any]:
    X, y = make_regression(120, n_features=3, noise=1.0, random_state=0)
    return X, 1000 + y


@parametrize_with_checks([ChainruleRegressor(**QUICK), ChainruleClassifier(**QUICK)])
def test_the_checks_of_scikit_learn_pass(estimator: Any, check: Any) -> None:
    check(estimator)


def test_one_worker_and_three_fit_the_same_bits() -> None:
    X, y = blobs()
    one, three = (ChainruleClassifier(**QUICK, workers=workers).fit(X, y) for workers in (1, 3))
    assert list(one.parameters_) == list(three.parameters_)
    for name, values in one.parameters_.items():
        assert values.dtype == np.float32
        assert values.tobytes() == three.parameters_[name].tobytes()
    assert one.parameters_sha256_ == three.parameters_sha256_
    other = ChainruleClassifier(**{**QUICK, "random_state": 1}).fit(X, y)
    assert other.parameters_sha256_ != one.parameters_sha256_


def test_a_fitted_estimator_predicts_from_a_pickle_without_a_cluster() -> None:
    X, y = blobs()
    fitted = ChainruleClassifier(**QUICK).fit(X, y)
    program = "import pickle, sys; f, X = pickle.load(sys.stdin.buffer); print(*f.predict(X)); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], input=pickle.dumps((fitted, X)), capture_output=True, timeout=60
    )
    predicted, modules = done.stdout.decode().splitlines()
    assert predicted.split() == fitted.predict(X).tolist()
    assert not {"server", "worker"} & set(modules.split())


def test_a_row_is_predicted_the_same_alone_and_among_others() -> None:
    X, y = blobs()
    classifier = ChainruleClassifier(**QUICK, hidden=(24, 24)).fit(X, y)
    regressor = ChainruleRegressor(**QUICK, hidden=(24, 24)).fit(*line())
    many = np.random.default_rng(0).permutation(np.repeat(X, 50, axis=0))
    for predict, rows in ((classifier.predict_proba, many), (regressor.predict, np.repeat(line()[0], 5, axis=0))):
        together = predict(rows)
        for chosen in (slice(0, 1), slice(6, 7), slice(3, 40), slice(31, 33), slice(4, None)):
            assert predict(rows[chosen]).tobytes() == together[chosen].tobytes()


def test_a_pipeline_predicts_in_the_unit_of_y() -> None:
    X, y = line()
    fitted = make_pipeline(MinMaxScaler(), ChainruleRegressor(**QUICK)).fit(X, y)
    assert fitted.score(X, y) > 0.9
    assert abs(fitted.predict(X).mean() - 1000) < 50


def test_a_data_frame_is_known_by_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = line()
    frame = pandas.DataFrame(X, columns=["width", "height", "age"])
    fitted = ChainruleRegressor(**QUICK).fit(frame, pandas.Series(y))
    assert fitted.feature_names_in_.tolist() == ["width", "height", "age"]
    assert fitted.parameters_sha256_ == ChainruleRegressor(**QUICK).fit(X, y).parameters_sha256_
    for wrong, said in (
        (frame[["height", "width", "age"]], "must be in the same order"),
        (frame.drop(columns="age"), "(?s)now missing.*age"),
        (frame.assign(remark=1.0), "(?s)unseen.*remark"),
    ):
        with pytest.raises(ValueError, match=said):
            fitted.predict(wrong)
    with pytest.raises(ValueError, match="could not convert string to float"):
        fitted.fit(frame.assign(age="old"), y)


def test_what_varies_little_is_scaled_and_what_varies_by_roundings_is_not() -> None:
    generator = np.random.default_rng(0)
    signal = generator.normal(size=64)
    noise = np.where(np.arange(64) % 2, 14.62, np.nextafter(14.62, 15))
    X = np.column_stack([1.7e9 + 1e-3 * signal, noise])
    fitted = ChainruleRegressor(formula=LINEAR, epochs=60, learning_rate=0.1, optimizer="sgd").fit(X, 2 * signal)
    assert fitted.scale_[0] == pytest.approx(1e-3 * signal.std(), rel=1e-3)
    assert fitted.scale_[1] == 1.0
    assert fitted.score(X, 2 * signal) > 0.99
    # A little more of what didn't vary changes little.
    X[:, 1] = 14.63
    assert fitted.score(X, 2 * signal) > 0.99
    with pytest.raises(ValueError, match="too large to be standardized"):
        ChainruleRegressor(formula=LINEAR).fit(X * 1e280, signal)


def test_a_table_of_arrow_is_never_read_by_position() -> None:
    pa = pytest.importorskip("pyarrow")
    X, y = np.random.default_rng(0).normal(size=(32, 2)), np.arange(32.0)
    table = pa.table({"a": X[:, 0], "b": X[:, 1]})
    fitted = ChainruleRegressor(formula=LINEAR, epochs=1).fit(table, y)
    assert list(fitted.feature_names_in_) == ["a", "b"]
    for swapped in (table.select(["b", "a"]), table.select(["b", "a"]).to_batches()[0]):
        with pytest.raises(ValueError, match="feature names"):
            fitted.predict(swapped)


def test_words_in_a_data_frame_are_encoded_in_a_pipeline() -> None:
    pandas = pytest.importorskip("pandas")
    words = np.array(["oak", "fir", "elm"])[np.arange(90) % 3]
    frame = pandas.DataFrame({"tree": pandas.Categorical(words), "age": np.arange(90) % 7})
    encoder = make_column_transformer((OneHotEncoder(), ["tree"]), remainder="passthrough")
    fitted = make_pipeline(encoder, ChainruleClassifier(**QUICK)).fit(frame, pandas.Categorical(words == "oak"))
    assert fitted.score(frame, words == "oak") == 1.0


def test_a_grid_search_finds_what_learns() -> None:
    X, y = blobs()
    search = GridSearchCV(ChainruleClassifier(**QUICK), {"epochs": [1, 10], "hidden": [(), (4, 4)]}, cv=2).fit(X, y)
    assert search.best_params_["epochs"] == 10
    assert search.best_score_ > 0.8


def test_cross_validation_leaves_no_job_and_no_rows_behind() -> None:
    X, y = line()
    assert min(cross_val_score(ChainruleRegressor(**QUICK), X, y, cv=3)) > 0.8
    cluster = shared_cluster(1)
    assert cluster.jobs() == []
    assert cluster.data_root is not None
    assert list(cluster.data_root.iterdir()) == []


def test_a_formula_of_ones_own_is_trained() -> None:
    X, y = line()
    formula = {"prediction": "w @ x", "loss": "huber(prediction, y)", "parameters": {"w": ["d"]}}
    fitted = ChainruleRegressor(formula=formula, **QUICK).fit(X, y)
    assert {name: values.shape for name, values in fitted.parameters_.items()} == {"w": (3,)}
    assert fitted.score(X, y) > 0.9
    np.testing.assert_allclose(
        fitted.predict(X),
        (X - fitted.mean_) / fitted.scale_ @ fitted.parameters_["w"] * fitted.target_scale_ + fitted.target_mean_,
        rtol=1e-5,
    )


def test_running_statistics_are_part_of_what_is_fitted() -> None:
    X, y = line()
    parameters = {"w": [4], "V": [4, "d"]}
    formula = {"prediction": "w @ phi(batch_norm(V @ x))", "phi": "tanh", "parameters": parameters}
    fitted = ChainruleRegressor(formula=formula, **QUICK).fit(X, y)
    assert fitted.parameters_["batch_norm 1 mean"].dtype == np.float64
    assert fitted.score(X, y) > 0.7


def test_more_classes_than_ten_keep_their_order() -> None:
    X = np.repeat(np.eye(12), 10, axis=0)
    y = np.repeat(np.arange(12), 10) * 3
    fitted = ChainruleClassifier(**{**QUICK, "epochs": 30}).fit(X, y)
    assert fitted.classes_.tolist() == list(range(0, 36, 3))
    assert fitted.score(X, y) == 1.0


def test_another_server_gets_the_rows_as_an_upload_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs()
    here = ChainruleClassifier(**QUICK).fit(X, y)
    with chainrule.LocalCluster(workers=1) as other:
        monkeypatch.setenv("CHAINRULE_TOKEN", str(other.credentials.token))
        there = ChainruleClassifier(**QUICK, server=other.address).fit(X, y)
        assert there.parameters_sha256_ == here.parameters_sha256_
        assert other.jobs() == []
        assert other.list_data_sets() == []


def test_workers_and_servers_that_die_are_replaced_for_the_next_fit() -> None:
    X, y = line()
    before = ChainruleRegressor(**QUICK).fit(X, y)
    for killed in (1, 0):
        cluster = shared_cluster(1)
        os.kill(cluster.process_ids[killed], 9)
        wait_for(lambda killed=killed, cluster=cluster: has_died(cluster, killed))
        assert ChainruleRegressor(**QUICK).fit(X, y).parameters_sha256_ == before.parameters_sha256_


def has_died(cluster: chainrule.LocalCluster, number: int) -> bool:
    """Whether the process of a cluster, by its place in `process_ids`, has ended with all its threads.

    Only then a fit can know it. What tells it to the cluster itself is left where it is."""
    try:
        found = os.waitid(os.P_PID, cluster.process_ids[number], os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return found is not None


def test_a_fit_that_takes_too_long_is_cancelled() -> None:
    X, y = line()
    with pytest.raises(JobNotEnded):
        ChainruleRegressor(epochs=1_000_000, timeout_s=0.5).fit(X, y)
    assert shared_cluster(1).jobs() == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"workers": 9}, "more than shards=8"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"hidden": (4, 0.5)}, "hidden must be a whole number of at least 1, got 0.5"),
        ({"formula": {"prediction": "w @ x"}}, "formula has no parameters"),
    ],
)
def test_wrong_settings_are_refused_before_any_job(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ChainruleRegressor(**settings).fit(*line())


def test_what_the_server_refuses_names_the_field() -> None:
    with pytest.raises(InvalidJob, match=r"training\.batch_size"):
        ChainruleRegressor(batch_size=33).fit(*line())


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="only the class"):
        ChainruleClassifier().fit(np.eye(4), np.ones(4))


def test_the_shared_cluster_ends_with_its_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = f"CHAINRULE_TEST_MARK={tmp_path.name}-{os.urandom(4).hex()}"
    monkeypatch.setenv(*mark.split("=", 1))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("(10,)\n", "")
    assert processes_with(mark) == []
    assert list(tmp_path.glob("chainrule-*")) == []
