"""`ChainruleRegressor` and `ChainruleClassifier`: estimators of scikit-learn whose `fit` is a job on a cluster.

What a fit leaves is plain arrays and texts, so a fitted estimator can be pickled, and predicts without any cluster.
Features are standardized here, in float64, and not by the server: the estimator then has all that a prediction needs.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from chainrule.estimators.cluster import train
from chainrule.estimators.formulas import layers, own

JOB_NAME = "fit"
# So many rows at a time are standardized: their copies stay small.
BLOCK_ROWS = 4096


class ChainruleEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share. All settings are keywords, and are looked at by `fit`.

    hidden: the units of each hidden layer; (): a linear model. activation: the function after each, such as "tanh".
    formula: in place of both, the table [model] of a job file: prediction, parameters, and what else it has.
    epochs, batch_size, shards, learning_rate, optimizer: as in a job file. batch_size is a multiple of shards.
    workers: how many compute the fit, up to `shards`; the fitted parameters have the same bits for any number.
    random_state: a number makes fits repeatable.
    server: HOST:PORT; None: a cluster on this machine, which all fits of this process share.
    timeout_s: a fit that takes longer is cancelled, and raises JobNotEnded.

    Fitted: parameters_ (float32 and, of batch_norm, float64 arrays by name), parameters_sha256_, loss_ (the mean over
    the rows, of the standardized target for a regressor), formula_, mean_ and scale_ (of the features),
    n_features_in_, and feature_names_in_ for a data frame."""

    _kind = "number"

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (16,),
        activation: str = "tanh",
        formula: Mapping[str, Any] | None = None,
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        optimizer: str = "adam",
        shards: int = 8,
        workers: int = 1,
        random_state: Any = None,
        server: str | None = None,
        timeout_s: float = 3600.0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.formula = formula
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.shards = shards
        self.workers = workers
        self.random_state = random_state
        self.server = server
        self.timeout_s = timeout_s

    def _model_table(self) -> dict[str, Any]:
        """The table [model] of the job. Raises ValueError, TypeError."""
        if self.formula is not None:
            return own(self.formula, self._kind)
        for units in self.hidden:
            _check_count("hidden", units)
        return layers(self.hidden, self.activation, self._kind)

    def _train(self, X: NDArray[np.float64], target: NDArray[Any], classes: Sequence[str] = ()) -> None:
        """Fit to checked rows. target: standardized numbers, or the numbers of `classes`, whose names are sorted."""
        for name in ("epochs", "batch_size", "shards", "workers"):
            _check_count(name, getattr(self, name))
        # More processes than a job can use would be started in vain.
        if self.workers > self.shards:
            raise ValueError(f"workers={self.workers} is more than shards={self.shards}; each worker needs a shard")
        formula = self._model_table()
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        training = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "shards": self.shards,
            "seed": int(seed),
            "optimizer": {"name": self.optimizer, "learning_rate": self.learning_rate},
        }
        mean, scale = _mean_and_scale(X)
        rows = {"features": ((X - mean) / scale).astype(np.float32), "target": target}
        if classes:
            rows["classes"] = np.array(classes)
        table = {"name": JOB_NAME, "model": formula, "training": training}
        trained = train(table, rows, workers=self.workers, server=self.server, timeout_s=self.timeout_s)
        self.mean_, self.scale_ = mean, scale
        self.formula_ = formula
        self.parameters_ = trained.arrays
        self.parameters_sha256_: str = trained.result["parameters_sha256"]
        self.loss_: float = trained.result["loss"]

    def _outputs(self, X: Any, class_count: int = 0) -> NDArray[np.float64]:
        """What the formula gives for each row: (n,), or (n, class_count). Raises NotFittedError, ValueError."""
        from chainrule.bridge.model_of_spec import build_model
        from chainrule.spec.job_description import job_spec
        from chainrule_engine.plan import PredictionPlan

        check_is_fitted(self)
        X = validate_data(self, _with_names(X), reset=False, dtype=np.float64)
        spec = job_spec({"name": JOB_NAME, "model": self.formula_})
        model = build_model(spec, feature_count=self.n_features_in_, class_count=class_count)
        parameters = np.empty(model.layout.size, np.float32)
        statistics = np.empty(model.statistics.size, np.float64)
        for name, view in {**model.layout.views(parameters), **model.statistics.views(statistics)}.items():
            view[...] = self.parameters_[name]
        plan = PredictionPlan(model)
        wanted = (class_count,) if class_count else ()
        outputs = np.empty((len(X), *wanted))
        for start in range(0, len(X), BLOCK_ROWS):
            rows = X[start : start + BLOCK_ROWS]
            found = plan.predict(parameters, {"x": (rows - self.mean_) / self.scale_}, statistics)
            if found.shape[1:] != wanted:
                raise ValueError(f"the prediction of a row has shape {found.shape[1:]}; it must be {wanted}")
            outputs[start : start + len(rows)] = found
        return outputs


class ChainruleRegressor(RegressorMixin, ChainruleEstimator):  # type: ignore[misc]
    """A network, or a formula, that predicts a number. The target is standardized for the fit: so are its losses."""

    _kind = "number"

    def fit(self, X: Any, y: Any) -> Self:
        """The estimator, fitted. X: (n, d) finite numbers. y: (n,). Raises ValueError, ChainruleError."""
        X, y = validate_data(self, _with_names(X), y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        y = y.astype(np.float64)
        mean, scale = _mean_and_scale(y)
        self._train(X, (y - mean) / scale)
        self.target_mean_, self.target_scale_ = float(mean), float(scale)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """A number for each row, (n,), in the unit of y. Raises NotFittedError, ValueError."""
        outputs: NDArray[np.float64] = self._outputs(X) * self.target_scale_ + self.target_mean_
        return outputs


class ChainruleClassifier(ClassifierMixin, ChainruleEstimator):  # type: ignore[misc]
    """A network, or a formula, that gives a logit for each class. Fitted: classes_ too, sorted."""

    _kind = "class"

    def fit(self, X: Any, y: Any) -> Self:
        """The estimator, fitted. X: (n, d) finite numbers. y: (n,) classes. Raises ValueError, ChainruleError."""
        X, y = validate_data(self, _with_names(X), y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        classes, numbers_of = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y has only the class {classes[0]!r}; give rows of 2 classes or more")
        # Names of one length sort as their numbers do.
        width = len(str(len(classes) - 1))
        names = [f"{number:0{width}}" for number in range(len(classes))]
        self._train(X, numbers_of.astype(np.int64), names)
        self.classes_ = classes
        return self

    def _logits(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        return self._outputs(X, class_count=len(self.classes_))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The logits, (n, k); of two classes the second's minus the first's, (n,). Raises as `predict` does."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each class, (n, k). Raises NotFittedError, ValueError."""
        logits = self._logits(X)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of the greatest logit for each row, (n,). Raises NotFittedError, ValueError."""
        # The logits come first: they know whether there is something to predict with.
        best = self._logits(X).argmax(axis=1)
        classes: NDArray[Any] = self.classes_[best]
        return classes


def _with_names(X: Any) -> Any:
    """The same rows, so that scikit-learn sees the names of a record batch of Arrow, as it sees those of a table."""
    if hasattr(X, "__arrow_c_array__") and hasattr(X, "schema"):
        import pyarrow as pa

        return pa.Table.from_batches([pa.record_batch(X)])
    return X


def _check_count(name: str, value: Any) -> None:
    # True is a number of Python's, but none that somebody means.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def _mean_and_scale(values: NDArray[np.float64]) -> tuple[Any, Any]:
    """The mean and the standard deviation of each column, or of all; 1 for what doesn't vary. Raises ValueError."""
    from chainrule_engine.standardization import settled

    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = values.mean(axis=0), values.std(axis=0)
    if not np.isfinite(mean).all() or not np.isfinite(scale).all():
        raise ValueError("the values are too large to be standardized; give them in a larger unit")
    columns = values.reshape(len(values), -1).T
    pairs = [settled(*each) for each in zip(columns, mean.ravel(), scale.ravel(), strict=True)]
    means, scales = np.array(pairs).T
    return means.reshape(mean.shape), scales.reshape(scale.shape)
