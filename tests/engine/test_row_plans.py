"""What a model says of a row has the same bits alone, among others and at any place, on whatever BLAS kernel."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from chainrule_engine.errors import ValueMismatch
from chainrule_engine.evaluation import initial_statistics
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter
from chainrule_engine.plan import PredictionPlan, row_values
from chainrule_engine.plan.row_plans import BLOCK_ROWS
from tests.engine.random_formulas import Case, cases

SETTINGS = settings(
    max_examples=40,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
ROW_COUNT = 600
# Alone, a few, and around the borders of blocks.
COUNTS = (1, 3, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 7, ROW_COUNT)


def rows_for(model: Model, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Rows of very different sizes: what an operation does with one must not touch its neighbours."""
    rows: dict[str, np.ndarray] = {}
    for each in model.inputs:
        shape = (ROW_COUNT, *each.shape)
        if each.class_count is not None:
            rows[each.name] = rng.integers(0, each.class_count, ROW_COUNT)
            continue
        sizes = rng.choice([1e-30, 1e-3, 1.0, 1.0, 1.0, 300.0, 1e30], ROW_COUNT)
        rows[each.name] = (rng.normal(size=shape) * sizes.reshape(-1, *[1] * len(each.shape))).astype(np.float32)
    return rows


def assert_rows_are_their_own(model: Model, parameters: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, statistics = rows_for(model, rng), initial_statistics(model.statistics)
    together = PredictionPlan(model).predict(parameters, rows, statistics)
    for count in COUNTS:
        chosen = rng.permutation(ROW_COUNT)[:count]
        plan = PredictionPlan(model)
        part = plan.predict(parameters, {name: value[chosen] for name, value in rows.items()}, statistics)
        assert part.tobytes() == together[chosen].tobytes(), f"{count} rows: {chosen[:40]}"
    (row,) = rng.integers(0, ROW_COUNT, 1)
    same = {name: np.repeat(value[row : row + 1], 2 * BLOCK_ROWS, axis=0) for name, value in rows.items()}
    for found in PredictionPlan(model).predict(parameters, same, statistics):
        assert found.tobytes() == together[row].tobytes()


@SETTINGS
@given(case=cases(normalization=True, depth=4))
def test_a_row_of_any_formula_has_its_bits_whatever_is_beside_it(case: Case) -> None:
    model = Model.build(
        loss=case.formula, prediction=case.formula, parameters=case.model.layout.parameters, inputs=case.model.inputs
    )
    assume(model.prediction is not None and model.prediction.inputs)
    assert_rows_are_their_own(model, case.parameters, case.seed)


@SETTINGS
@given(
    features=st.integers(1, 70), hidden=st.integers(1, 70), outputs=st.integers(1, 20), seed=st.integers(0, 2**32 - 1)
)
def test_a_row_of_a_network_of_any_size_has_its_bits_whatever_is_beside_it(
    features: int, hidden: int, outputs: int, seed: int
) -> None:
    model = Model.build(
        loss="cross_entropy(prediction, y)",
        prediction="log_softmax(V2 @ tanh(layer_norm(V1 @ x + b)) + sum(x) + norm(x) * (x @ A)[0])",
        parameters=[
            Parameter("V1", (hidden, features)),
            Parameter("b", (hidden,)),
            Parameter("V2", (outputs, hidden)),
            Parameter("A", (features, 3)),
        ],
        inputs=[Input("x", (features,)), Input("y", (), outputs)],
    )
    parameters = np.random.default_rng(seed).normal(size=model.layout.size).astype(np.float32)
    assert_rows_are_their_own(model, parameters, seed)


@SETTINGS
@given(features=st.integers(1, 70), hidden=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_the_values_of_one_row_are_those_of_its_prediction(features: int, hidden: int, seed: int) -> None:
    model = Model.build(
        loss="(prediction - y)**2 + 0.1 * (w @ w)",
        prediction="w @ silu(batch_norm(V @ x)) + x[0]",
        parameters=[Parameter("V", (hidden, features)), Parameter("w", (hidden,))],
        inputs=[Input("x", (features,)), Input("y", ())],
    )
    rng = np.random.default_rng(seed)
    parameters = rng.normal(size=model.layout.size).astype(np.float32)
    statistics = rng.uniform(0.5, 2.0, model.statistics.size)
    inputs = {"x": rng.normal(size=(40, features)).astype(np.float32), "y": np.zeros(40, np.float32)}
    predicted = PredictionPlan(model).predict(parameters, inputs, statistics)
    assert model.prediction is not None
    for row in (0, 7, 39):
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        f = row_values(model, parameters, one, statistics)
        assert list(f) == list(model.evaluation_loss.nodes)
        assert f[model.prediction.root].tobytes() == predicted[row : row + 1].tobytes()
        assert f[model.evaluation_loss.root].shape == (1,)


def test_a_prediction_without_inputs_and_no_rows_at_all_are_answered() -> None:
    model = Model.build(loss="(prediction - y)**2", prediction="w", parameters=[Parameter("w", ())],
                        inputs=[Input("x", (2,)), Input("y", ())])  # fmt: skip
    parameters = np.full(1, 3, np.float32)
    plan = PredictionPlan(model)
    assert plan.predict(parameters, {}).tolist() == [3.0]
    assert plan.predict(parameters, {"x": np.ones((35, 2), np.float32)}).tolist() == [3.0] * 35
    assert plan.predict(parameters, {"x": np.ones((0, 2), np.float32)}).shape == (0,)


@pytest.mark.parametrize(("x", "message"), [
    (np.ones((3, 4)), r"'x' must have shape \(3, 2\), but has \(3, 4\)"),
    ({"x": np.ones((3, 2)), "z": np.ones((2, 2))}, r"'z' must have shape \(3, 2\), but has \(2, 2\)"),
    ({"x": np.ones((3, 2)), "z": np.ones(())}, r"'z' must have shape \(3, 2\), but has \(\)"),
])  # fmt: skip
def test_rows_of_another_shape_are_refused(x: Any, message: str) -> None:
    inputs = [Input("x", (2,)), Input("z", (2,))]
    formula = "sum(x)" if isinstance(x, np.ndarray) else "sum(x) + sum(z)"
    model = Model.build(loss="w", prediction=formula, parameters=[Parameter("w", ())], inputs=inputs)
    with pytest.raises(ValueMismatch, match=message):
        PredictionPlan(model).predict(np.ones(1, np.float32), x)
