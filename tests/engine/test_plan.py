"""What a plan promises beyond the mathematics: memory, bits, refusals, randomness, statistics."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from chainrule_engine.errors import SettingError, ValueMismatch
from chainrule_engine.evaluation import initial_statistics, updated_statistics
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter
from chainrule_engine.plan import EvaluationPlan, PredictionPlan, TrainingPlan

FOUR_LAYER = "(w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x)))) - y)**2"


def four_layer(features: int = 32, hidden: int = 48, phi: str = "sigmoid") -> Model:
    shapes = {"V1": (hidden, features), "V2": (hidden, hidden), "V3": (hidden, hidden), "w": (hidden,)}
    return Model.build(
        loss=FOUR_LAYER,
        functions={"phi": phi},
        parameters=[Parameter(name, shape) for name, shape in shapes.items()],
        inputs=[Input("x", (features,)), Input("y", ())],
    )


def data_for(model: Model, row_count: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    parameters = (rng.normal(size=model.layout.size) * 0.2).astype(np.float32)
    inputs = {i.name: rng.normal(size=(row_count, *i.shape)).astype(np.float32) for i in model.inputs}
    return parameters, inputs


@pytest.mark.parametrize("phi", ["sigmoid", "relu", "tanh", "gelu"])
def test_nothing_is_allocated_after_the_first_step(phi: str) -> None:
    model = four_layer(phi=phi)
    parameters, inputs = data_for(model, 128)
    plan, gradient = TrainingPlan(model, 128), np.empty(model.layout.size, np.float32)
    plan.gradient(parameters, inputs, gradient)
    tracemalloc.start()
    for _ in range(3):
        plan.gradient(parameters, inputs, gradient)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One activation has 128 · 48 · 4 = 24,576 bytes.
    assert peak_bytes < 2_000


@pytest.mark.parametrize("phi", ["sigmoid", "relu", "tanh", "gelu"])
@pytest.mark.parametrize("row_count", [4, 512])
def test_a_plan_holds_no_more_than_the_activations_and_one_gradient(phi: str, row_count: int) -> None:
    model = four_layer(phi=phi)
    sizes = [node.size * row_count for node in model.loss.nodes if not node.is_leaf]
    working = 3 * max(sizes) if phi == "gelu" else 0  # its derivative has steps in between
    assert TrainingPlan(model, row_count).size_bytes <= 4 * (sum(sizes) + model.layout.size + working)


def test_the_gradient_is_written_to_the_array_that_is_given() -> None:
    model = four_layer()
    plan = TrainingPlan(model, 8)
    pairs = [data_for(model, 8, seed) for seed in range(5)]
    outs = [np.empty(model.layout.size, np.float32) for _ in pairs]
    losses = [plan.gradient(p, i, out) for (p, i), out in zip(pairs, outs, strict=True)]
    for (parameters, inputs), out, loss in zip(pairs, outs, losses, strict=True):
        alone = np.empty_like(out)
        assert TrainingPlan(model, 8).gradient(parameters, inputs, alone) == loss
        assert alone.tobytes() == out.tobytes()


def test_new_arrays_at_an_old_address_are_not_mistaken() -> None:
    model = four_layer(3, 4)
    plan = TrainingPlan(model, 2)
    for seed in range(20):
        parameters, inputs = data_for(model, 2, seed)
        gradient = np.empty_like(parameters)
        plan.gradient(parameters, inputs, gradient)
        expected = np.empty_like(parameters)
        TrainingPlan(model, 2).gradient(parameters, inputs, expected)
        np.testing.assert_array_equal(gradient, expected)
        del parameters, inputs, gradient  # their memory may come again


def test_values_changed_in_place_are_seen() -> None:
    model = four_layer(3, 4)
    parameters, inputs = data_for(model, 2)
    plan, gradient = TrainingPlan(model, 2), np.empty(model.layout.size, np.float32)
    before = plan.gradient(parameters, inputs, gradient)
    parameters += 1
    inputs["x"] += 1
    assert plan.gradient(parameters, inputs, gradient) != before


PROGRAM = """
import hashlib, sys
sys.path[:0] = ["."]
from tests.engine.test_plan import digest
print(digest())
"""


def digest() -> str:
    model = four_layer()
    found = hashlib.sha256()
    for row_count in (1, 7, 64):
        parameters, inputs = data_for(model, row_count)
        gradient = np.empty_like(parameters)
        loss = TrainingPlan(model, row_count).gradient(parameters, inputs, gradient)
        found.update(gradient.tobytes() + repr(loss).encode())
    return found.hexdigest()


def test_another_process_gets_the_same_bits() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest()


def test_the_code_of_a_plan_holds_nothing_of_what_a_user_wrote() -> None:
    model = Model.build(
        loss="(secret_parameter @ secret_input)**2",
        parameters=[Parameter("secret_parameter", (3,))],
        inputs=[Input("secret_input", (3,))],
    )
    assert "secret" not in TrainingPlan(model, 2).source


def test_a_deep_graph_is_compiled() -> None:
    layers = 800
    model = Model.build(
        loss="w" + " * exp(w - w)" + " + w" * layers, parameters=[Parameter("w", ())], inputs=[Input("y", ())]
    )
    gradient = np.empty(1, np.float32)
    plan = TrainingPlan(model, 2)
    plan.gradient(np.ones(1, np.float32), {"y": np.zeros(2, np.float32)}, gradient)
    assert gradient[0] == pytest.approx(2 * (layers + 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": np.zeros((4, 9), np.float32)}, "input 'x' must have shape (4, 3), but has (4, 9)"),
        ({"label": np.zeros(4, np.float32)}, "must be of integers, but is float32"),
        ({"label": np.array([0, 1, 2, 3])}, "holds classes from 0 to 2, but has values from 0 to 3"),
        ({"label": np.array([0, 1, 2, -1])}, "holds classes from 0 to 2, but has values from -1 to 2"),
        ({"x": None}, "input 'x' has no value"),
        ({"parameters": np.zeros(8, np.float32)}, "the vector of parameters must be (9,) float32, not (8,) float32"),
        ({"parameters": np.zeros(9)}, "the vector of parameters must be (9,) float32, not (9,) float64"),
        ({"gradient": np.zeros(18, np.float32)[::2]}, "the vector of gradients must be contiguous, but has stride 8"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, np.ndarray | None], said: str) -> None:
    model = Model.build(
        loss="cross_entropy(V @ x, label)",
        parameters=[Parameter("V", (3, 3))],
        inputs=[Input("x", (3,)), Input("label", (), class_count=3)],
    )
    given = {
        "parameters": np.zeros(9, np.float32),
        "gradient": np.zeros(9, np.float32),
        "x": np.zeros((4, 3), np.float32),
        "label": np.array([0, 1, 2, 0]),
        **change,
    }
    parameters, gradient = given.pop("parameters"), given.pop("gradient")
    with pytest.raises(ValueMismatch) as caught:
        TrainingPlan(model, 4).gradient(parameters, {n: v for n, v in given.items() if v is not None}, gradient)
    assert said in str(caught.value)


def test_a_gradient_over_the_parameters_is_refused() -> None:
    model = four_layer(3, 4)
    parameters, inputs = data_for(model, 5)
    with pytest.raises(ValueMismatch, match="the memory of the parameters"):
        TrainingPlan(model, 5).gradient(parameters, inputs, parameters)


def test_an_input_in_another_order_or_type_is_converted() -> None:
    model = four_layer(3, 4)
    parameters, inputs = data_for(model, 5)
    plan, gradient = TrainingPlan(model, 5), np.empty(model.layout.size, np.float32)
    loss = plan.gradient(parameters, inputs, gradient)
    other = {"x": np.asfortranarray(inputs["x"].astype(np.float64)), "y": inputs["y"].tolist()}
    assert plan.gradient(parameters, other, gradient) == loss


def test_nan_gives_nan_and_no_warning() -> None:
    model = four_layer(3, 4)
    parameters, inputs = data_for(model, 5)
    inputs["x"][2, 1] = np.nan
    plan, gradient = TrainingPlan(model, 5), np.empty(model.layout.size, np.float32)
    assert np.isnan(plan.gradient(parameters, inputs, gradient))
    np.testing.assert_array_equal(np.isnan(plan.row_losses), [False, False, True, False, False])


def test_a_plan_without_rows_or_with_an_unknown_backend_is_refused() -> None:
    with pytest.raises(SettingError, match="row_count"):
        TrainingPlan(four_layer(3, 4), 0)
    with pytest.raises(SettingError, match="unknown backend 'abacus'"):
        TrainingPlan(four_layer(3, 4), 1, backend="abacus")


def dropout_model() -> Model:
    return Model.build(
        loss="(prediction - y)**2",
        prediction="w @ dropout(dropout(x, 0.25), 0.5)",
        parameters=[Parameter("w", (40,))],
        inputs=[Input("x", (40,)), Input("y", ())],
    )


def test_dropout_depends_on_seed_step_shard_and_place_and_on_nothing_else() -> None:
    model = dropout_model()
    parameters, inputs = data_for(model, 6)
    seen = {}
    for randomness in [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0), (0, 1, 0)]:
        gradient = np.empty_like(parameters)
        TrainingPlan(model, 6).gradient(parameters, inputs, gradient, randomness=randomness)
        assert seen.setdefault(randomness, gradient.tobytes()) == gradient.tobytes()
    assert len(set(seen.values())) == 4


def test_dropout_keeps_the_mean_and_is_off_in_evaluation() -> None:
    model = Model.build(
        loss="sum(dropout(x, 0.25)) + 0 * w", prediction="dropout(x, 0.25)", parameters=[Parameter("w", ())],
        inputs=[Input("x", (100,))],
    )  # fmt: skip
    inputs = {"x": np.ones((200, 100), np.float32)}
    parameters = np.zeros(1, np.float32)
    loss = TrainingPlan(model, 200).gradient(parameters, inputs, np.empty_like(parameters), randomness=(0, 0, 0))
    assert loss == pytest.approx(20_000, rel=0.02)
    evaluated, predictions = EvaluationPlan(model, 200).evaluate(parameters, inputs)
    assert evaluated == 20_000
    np.testing.assert_array_equal(predictions, inputs["x"])


def test_dropout_without_randomness_is_refused() -> None:
    model = dropout_model()
    parameters, inputs = data_for(model, 2)
    with pytest.raises(ValueMismatch, match="randomness"):
        TrainingPlan(model, 2).gradient(parameters, inputs, np.empty_like(parameters))


def normalized_model() -> Model:
    return Model.build(
        loss="squared(prediction, y)",
        prediction="w @ batch_norm(V @ x)",
        parameters=[Parameter("V", (4, 3)), Parameter("w", (4,))],
        inputs=[Input("x", (3,)), Input("y", ())],
    )


def test_running_statistics_become_those_of_the_batches() -> None:
    model = normalized_model()
    parameters, inputs = data_for(model, 50)
    plan = TrainingPlan(model, 50)
    plan.gradient(parameters, inputs, np.empty_like(parameters))
    activations = (inputs["x"] @ model.layout.views(parameters)["V"].T).astype(np.float64)
    statistics = initial_statistics(model.statistics)
    for _ in range(300):
        statistics = updated_statistics(statistics, plan.statistics_sums, layout=model.statistics, row_count=50)
    views = model.statistics.views(statistics)
    np.testing.assert_allclose(views["batch_norm 1 mean"], activations.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(views["batch_norm 1 variance"], activations.var(axis=0), rtol=1e-5)
    # With those statistics, evaluation normalizes as training did.
    evaluated, predictions = EvaluationPlan(model, 50).evaluate(parameters, inputs, statistics)
    assert evaluated == pytest.approx(float(plan.row_losses.sum(dtype=np.float64)), rel=1e-4)
    predicted = PredictionPlan(model).predict(parameters, inputs["x"], statistics)
    np.testing.assert_allclose(predicted, predictions, rtol=1e-5, atol=1e-6)


def test_the_sums_of_two_microbatches_are_those_of_the_batch() -> None:
    model = normalized_model()
    parameters, inputs = data_for(model, 6)
    sums = []
    for rows in (slice(0, 2), slice(2, 6), slice(0, 6)):
        part = {name: value[rows] for name, value in inputs.items()}
        plan = TrainingPlan(model, len(part["y"]))
        plan.gradient(parameters, part, np.empty_like(parameters))
        sums.append(plan.statistics_sums)
    np.testing.assert_allclose(sums[0] + sums[1], sums[2], rtol=1e-6)


def test_evaluation_with_batch_norm_needs_its_statistics() -> None:
    model = normalized_model()
    parameters, inputs = data_for(model, 2)
    with pytest.raises(ValueMismatch, match="running statistics"):
        EvaluationPlan(model, 2).evaluate(parameters, inputs)
