"""Every entry of the table: its derivative, its plan, its stable form."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule_engine.backpropagation import backward, forward, local_partial
from chainrule_engine.gradient_check import GradientMismatch, check_gradients
from chainrule_engine.model import Input, Model
from chainrule_engine.operations import FUNCTIONS, OPERATIONS, Elementwise
from chainrule_engine.operations.operation import Operation
from chainrule_engine.parameters import Parameter
from chainrule_engine.plan import TrainingPlan

FORMULAS = {
    "add": "P + x",
    "subtract": "P - x",
    "multiply": "P * x",
    "divide": "P / (3 + x)",
    "power": "(4 + P)**(x / 4)",
    "negative": "-P",
    "square": "P**2",
    "sqrt": "sqrt(4 + P)",
    "log": "log(4 + P)",
    "log1p": "log1p(3 + P)",
    "maximum": "max(P, x)",
    "minimum": "min(P, x)",
    "huber": "huber(P, x, 0.5)",
    "component": "P[1] * x",
    "concatenate": "concatenate(P, x, P[0])",
    "matmul": "V @ (P * x)",
    "dropout": "dropout(P * x, 0.5)",
    "batch_norm": "batch_norm(P * x)",
    "layer_norm": "layer_norm(P * x)",
    "cross_entropy": "P * cross_entropy(P * x, label)",
    "hinge": "hinge(P, x)",
    "logistic": "logistic(P, x)",
    "squared": "squared(P, x)",
    "absolute": "absolute(P, x)",
}  # fmt: skip
INPUTS = [Input("x", (3,)), Input("label", (), class_count=3)]
PARAMETERS = [Parameter("P", (3,)), Parameter("V", (2, 3))]


def model_of(formula: str) -> Model:
    return Model.build(loss=formula, parameters=PARAMETERS, inputs=INPUTS)


def values_of(model: Model, row_count: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    values = {p.name: rng.normal(size=p.shape) for p in model.layout.parameters}
    values |= {"x": rng.normal(size=(row_count, 3)), "label": rng.integers(0, 3, row_count)}
    masks = [node for node in model.loss.nodes if node.operation == "mask"]
    return values | {node.name: rng.integers(0, 2, (row_count, *node.shape)) * 2.0 for node in masks}


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "normalize"])
def test_the_derivative_is_that_of_central_differences(name: str) -> None:
    model = model_of(f"sum(sin({FORMULAS.get(name, f'{name}(P * x)')}))")
    assert any(node.operation == name for node in model.loss.nodes)
    results = check_gradients(model.loss, values_of(model))
    assert {result.name for result in results} >= {"P"}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_every_entry_says_its_formula(operation: Operation) -> None:
    assert operation.formula
    if isinstance(operation, Elementwise):
        assert len(operation.partials) == operation.operand_count


def test_a_tie_in_max_has_both_partial_derivatives_0() -> None:
    model = model_of("sum(max(P, 1))")
    values = {"P": np.array([1.0, 2.0, 0.0])}
    gradient = backward(model.loss, forward(model.loss, values))[model.loss.parameters[0]]
    np.testing.assert_array_equal(gradient, [0, 1, 0])


@pytest.mark.parametrize(
    ("formula", "p", "expected", "slope"),
    [
        ("sigmoid(P)", -1000.0, 0.0, 0.0),
        ("sigmoid(P)", 1000.0, 1.0, 0.0),
        ("softplus(P)", 1000.0, 1000.0, 1.0),
        ("softplus(P)", -1000.0, 0.0, 0.0),
        ("silu(P)", -1000.0, 0.0, 0.0),
        ("logistic(P, 1)", -1000.0, 1000.0, -1.0),
        ("logistic(P, 1)", 1000.0, 0.0, 0.0),
        ("tanh(P)", 1000.0, 1.0, 0.0),
        ("logsumexp(concatenate(P, 0))", 1000.0, 1000.0, 1.0),
        ("softmax(concatenate(P, 0))[0]", 1000.0, 1.0, 0.0),
        ("log_softmax(concatenate(P, 0))[1]", 1000.0, -1000.0, -1.0),
        ("cross_entropy(concatenate(0, P), c)", 1000.0, 1000.0, 1.0),
    ],
)
def test_a_large_argument_gives_the_limit_and_no_warning(formula: str, p: float, expected: float, slope: float) -> None:
    model = Model.build(loss=formula, parameters=[Parameter("P", ())], inputs=[Input("c", (), class_count=2)])
    parameters, inputs = np.array([p], np.float32), {"c": np.array([0])}
    f = forward(model.loss, {"P": parameters[0], **inputs})
    assert float(np.ravel(f[model.loss.root])[0]) == pytest.approx(expected, abs=1e-30)
    gradient = np.empty(1, np.float32)
    assert TrainingPlan(model, 1).gradient(parameters, inputs, gradient) == pytest.approx(expected, abs=1e-30)
    assert gradient[0] == pytest.approx(slope, abs=1e-30)


def test_a_local_partial_derivative_stands_on_each_edge() -> None:
    model = model_of("sum(P * x)")
    f = forward(model.loss, values_of(model))
    product = next(node for node in model.loss.nodes if node.operation == "multiply")
    np.testing.assert_array_equal(local_partial(product, 0, f), f[product.operands[1]])


def test_an_operation_is_added_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = Elementwise("cube", "a³", 1, value=lambda a: a * a * a, partials=(lambda _, a: 3 * a * a,))
    monkeypatch.setitem(OPERATIONS, "cube", cube)
    monkeypatch.setitem(FUNCTIONS, "cube", "cube")
    model = model_of("sum(cube(P * x))")
    check_gradients(model.loss, values_of(model))
    gradient = np.empty(model.layout.size, np.float32)
    values = {name: v.astype(np.float32) if v.dtype.kind == "f" else v for name, v in values_of(model).items()}
    parameters = np.concatenate([values["P"].ravel(), values["V"].ravel()])
    TrainingPlan(model, 5).gradient(parameters, {"x": values["x"], "label": values["label"]}, gradient)
    expected = 3 * (values["x"] ** 3).sum(axis=0) * values["P"] ** 2
    np.testing.assert_allclose(gradient[:3], expected, rtol=1e-5)


def test_a_wrong_derivative_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Elementwise("sin", "sin a", 1, value=lambda a: np.sin(a), partials=(lambda _, a: np.cos(a) + 1e-3,))
    monkeypatch.setitem(OPERATIONS, "sin", wrong)
    model = model_of("sum(sin(P))")
    with pytest.raises(GradientMismatch, match="∂loss/∂P, element 0"):
        check_gradients(model.loss, values_of(model))
