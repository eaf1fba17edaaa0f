"""What a model computes: the writings of a formula, closed forms, the loss over rows."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule_engine.backpropagation import backward, forward
from chainrule_engine.graph import Graph
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter
from chainrule_engine.plan import EvaluationPlan, PredictionPlan, TrainingPlan

LECTURE = "(w · φ(V3φ(V2φ(V1φ(x)))) - y)^2"
PYTHON = "(w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x)))) - y)**2"


def four_layer(loss: str, prediction: str | None = None) -> Model:
    shapes = {"V1": (5, 3), "V2": (5, 5), "V3": (5, 5), "w": (5,)}
    return Model.build(
        loss=loss,
        prediction=prediction,
        functions={"phi": "sigmoid"},
        parameters=[Parameter(name, shape) for name, shape in shapes.items()],
        inputs=[Input("x", (3,)), Input("y", ())],
    )


def described(graph: Graph) -> list[tuple[object, ...]]:
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    return [
        (node.operation, node.name, node.value, node.shape, node.batched, [numbers[o] for o in node.operands])
        for node in graph.nodes
    ]


@pytest.mark.parametrize(
    "writing",
    [
        LECTURE,
        "(w⋅ϕ(V3 ϕ(V2 ϕ(V1 ϕ(x)))) − y)²",
        "(w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x)))) - y)^2",
        "(dot(w, σ(V3(σ(V2(σ(V1(σ(x)))))))) - y)**2",
    ],
)
def test_the_lectures_own_writing_gives_the_same_graph(writing: str) -> None:
    assert described(four_layer(writing).loss) == described(four_layer(PYTHON).loss)


def test_the_name_prediction_stands_for_the_same_nodes() -> None:
    model = four_layer("(prediction - y)**2", "w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x))))")
    assert described(model.loss) == described(four_layer(PYTHON).loss)
    assert model.prediction is not None
    assert set(model.prediction.nodes) < set(model.loss.nodes)


def test_equal_subexpressions_are_one_node() -> None:
    model = four_layer("exp(w @ phi(V1 @ x)) + (w @ phi(V1 @ x))")
    assert [node.operation for node in model.loss.nodes].count("matmul") == 2


def test_operands_come_before_their_node() -> None:
    nodes = four_layer(PYTHON).loss.nodes
    places = {node: place for place, node in enumerate(nodes)}
    assert all(places[operand] < places[node] for node in nodes for operand in node.operands)


def values_for(model: Model, row_count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(row_count)
    parameters = rng.normal(size=model.layout.size).astype(np.float32)
    inputs = {i.name: rng.normal(size=(row_count, *i.shape)).astype(np.float32) for i in model.inputs}
    return parameters, inputs


def test_the_gradient_of_the_hinge_loss_has_its_closed_form() -> None:
    model = Model.build(
        loss="max(1 - (w @ phi(x)) * y, 0)",
        functions={"phi": "tanh"},
        parameters=[Parameter("w", (4,))],
        inputs=[Input("x", (4,)), Input("y", ())],
    )
    w, inputs = values_for(model, 9)
    inputs["y"] = np.sign(inputs["y"])
    gradient = np.empty_like(w)
    loss = TrainingPlan(model, 9).gradient(w, inputs, gradient)
    margin = np.tanh(inputs["x"]) @ w * inputs["y"]
    expected = -((margin < 1) * inputs["y"]) @ np.tanh(inputs["x"])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    assert loss == pytest.approx(float(np.maximum(1 - margin, 0).sum()), rel=1e-6)


def test_the_gradient_of_two_layers_has_its_closed_form() -> None:
    model = Model.build(
        loss="(w @ phi(V @ phi(x)) - y)**2",
        functions={"phi": "sigmoid"},
        parameters=[Parameter("V", (5, 4)), Parameter("w", (5,))],
        inputs=[Input("x", (4,)), Input("y", ())],
    )
    parameters, inputs = values_for(model, 5)
    views = model.layout.views(parameters)
    gradient = np.empty_like(parameters)
    TrainingPlan(model, 5).gradient(parameters, inputs, gradient)
    hidden = 1 / (1 + np.exp(-(1 / (1 + np.exp(-inputs["x"]))) @ views["V"].T))
    expected = 2 * (hidden @ views["w"] - inputs["y"]) @ hidden
    np.testing.assert_allclose(model.layout.views(gradient)["w"], expected, rtol=1e-5, atol=1e-6)


def test_a_term_without_inputs_counts_once_for_each_row() -> None:
    model = Model.build(loss="0.5 * (w @ w) + 0 * x[0]", parameters=[Parameter("w", (3,))], inputs=[Input("x", (2,))])
    alone = Model.build(loss="0.5 * (w @ w)", parameters=[Parameter("w", (3,))], inputs=[Input("x", (2,))])
    w, inputs = values_for(model, 7)
    for each in (model, alone):
        gradient = np.empty_like(w)
        loss = TrainingPlan(each, 7).gradient(w, inputs, gradient)
        np.testing.assert_allclose(gradient, 7 * w, rtol=1e-6)
        assert loss == pytest.approx(3.5 * float(w @ w), rel=1e-6)


def test_a_parameter_outside_the_loss_has_gradient_zero() -> None:
    model = Model.build(loss="w @ w", parameters=[Parameter("w", (3,)), Parameter("u", (2,))], inputs=[])
    gradient = np.full(5, np.nan, np.float32)
    TrainingPlan(model, 1).gradient(np.ones(5, np.float32), {}, gradient)
    np.testing.assert_array_equal(gradient, [2, 2, 2, 0, 0])


@pytest.mark.parametrize("row_count", [1, 3, 5, 8])
def test_a_batch_size_that_equals_a_dimension_changes_nothing(row_count: int) -> None:
    model = four_layer(PYTHON)
    parameters, inputs = values_for(model, row_count)
    together = np.empty_like(parameters)
    loss = TrainingPlan(model, row_count).gradient(parameters, inputs, together)
    one_by_one, losses = np.zeros_like(parameters), 0.0
    single = np.empty_like(parameters)
    for row in range(row_count):
        losses += TrainingPlan(model, 1).gradient(
            parameters, {name: value[row : row + 1] for name, value in inputs.items()}, single
        )
        one_by_one += single
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(losses, rel=1e-5)


def test_evaluation_and_prediction_agree_with_training() -> None:
    model = four_layer("(prediction - y)**2", "w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x))))")
    parameters, inputs = values_for(model, 6)
    plan = TrainingPlan(model, 6)
    loss = plan.gradient(parameters, inputs, np.empty_like(parameters))
    evaluated, predictions = EvaluationPlan(model, 6).evaluate(parameters, inputs)
    assert predictions is not None
    assert evaluated == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(plan.row_losses, (predictions - inputs["y"]) ** 2, rtol=1e-4)
    predicted = PredictionPlan(model).predict(parameters, {"x": inputs["x"]})
    np.testing.assert_allclose(predicted, predictions, rtol=1e-5)


def test_forward_and_backward_keep_the_value_of_every_node() -> None:
    model = four_layer(PYTHON)
    parameters, inputs = values_for(model, 4)
    f = forward(model.loss, {**model.layout.views(parameters), **inputs})
    g = backward(model.loss, f)
    assert set(f) == set(model.loss.nodes)
    assert set(g) == {node for node in model.loss.nodes if node.operation != "constant"}
    for node in g:
        assert g[node].shape == f[node].shape == ((4, *node.shape) if node.batched else node.shape)
        assert g[node].dtype == f[node].dtype == np.float32
