"""The check of gradients itself: it finds what is wrong, and kinks and steep formulas are no false alarm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule_engine.backpropagation import dropout_masks
from chainrule_engine.gradient_check import (
    GradientMismatch,
    PrecisionCheck,
    check_gradients,
    compare_in_float32,
    compare_with_differences,
    float32_noise,
    in_float64,
    sum_of_gradients,
    ties_of,
)
from chainrule_engine.graph import Node
from chainrule_engine.model import Input, Model
from chainrule_engine.operations import OPERATIONS, Axiswise, Elementwise
from chainrule_engine.parameters import Parameter
from chainrule_engine.plan import TrainingPlan


def model_of(formula: str) -> Model:
    return Model.build(loss=formula, parameters=[Parameter("P", (3,))], inputs=[Input("x", (3,))])


def test_an_element_at_a_kink_is_left_out_and_one_beside_it_is_checked_with_a_smaller_step() -> None:
    # 0 is at the kink; 3e-6 is beside it, but within the first step.
    (result,) = check_gradients(model_of("sum(relu(P))").loss, {"P": np.array([0.0, 3e-6, 1.0])})
    np.testing.assert_array_equal(result.at_kink, [True, False, False])
    assert (result.checked, result.skipped) == (2, 1)
    assert result.error < 1e-6


@pytest.mark.parametrize("formula", ["max(P, x)", "min(P, x)", "abs(P - x)", "leaky_relu(P - x)", "hinge(P, 1 / x)"])
def test_a_tie_is_no_false_alarm(formula: str) -> None:
    values = {"P": np.array([1.0, 2.0, 3.0]), "x": np.array([[1.0, 2.0, 3.0], [0.5, 2.0, 4.0]])}
    result = next(each for each in check_gradients(model_of(f"sum({formula})").loss, values) if each.name == "P")
    assert result.checked + result.skipped == 3


def test_a_tie_that_lasts_along_the_step_is_no_false_alarm() -> None:
    model = Model.build(
        loss="sum(max(P * x + b, Q * x + b))",
        parameters=[Parameter("P", (3,)), Parameter("Q", (3,)), Parameter("b", ())],
        inputs=[Input("x", (3,))],
    )
    values = {"P": np.zeros(3), "Q": np.zeros(3), "b": np.zeros(()), "x": np.ones((2, 3))}
    results = {result.name: result for result in compare_with_differences(model.loss, [values])}
    assert {name: (result.skipped, result.mismatch) for name, result in results.items()} == {
        "P": (3, None),
        "Q": (3, None),
        "b": (1, None),
    }


@pytest.mark.parametrize("p", [0.0, 1e-9, 1.0])
def test_a_wrong_derivative_is_found_beside_a_kink_too(monkeypatch: pytest.MonkeyPatch, p: float) -> None:
    wrong = Elementwise(
        "relu", "", 1, value=lambda a: np.maximum(a, 0), partials=(lambda f, _: 1.01 * np.heaviside(f, 0) + 0.005,)
    )
    monkeypatch.setitem(OPERATIONS, "relu", wrong)
    with pytest.raises(
        GradientMismatch, match=r"∂loss/∂P, element \d: backpropagation gives 1\.015, differences give 1"
    ):
        check_gradients(model_of("sum(relu(P))").loss, {"P": np.array([p, 1.0, 2.0])})


@pytest.mark.parametrize("formula", ["sum(sin(1000 * P))", "sum(tanh(P * x * 3000))", "sum((P - x * 1000)**2)"])
def test_a_steep_formula_is_checked_with_a_smaller_step(formula: str) -> None:
    values = {"P": np.array([0.3, -0.2, 0.1]), "x": np.array([[0.1, 0.2, -0.3]])}
    assert all(result.skipped == 0 for result in check_gradients(model_of(formula).loss, values))


def test_a_small_gradient_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Elementwise("sin", "", 1, value=lambda a: np.sin(a), partials=(lambda _, a: 1.1 * np.cos(a),))
    monkeypatch.setitem(OPERATIONS, "sin", wrong)
    with pytest.raises(GradientMismatch):
        check_gradients(model_of("sum(sin(P)) / 100000000").loss, {"P": np.array([0.1, 0.2, 0.3])})


def test_a_gradient_that_is_not_a_number_is_a_mismatch() -> None:
    (result,) = compare_with_differences(model_of("sum(log(P))").loss, [{"P": np.array([-1.0, 1.0, 2.0])}])
    assert result.mismatch is not None


def test_batches_with_masks_of_their_own_add_up() -> None:
    model = model_of("sum(sin(dropout(P * x, 0.5)))")
    rng = np.random.default_rng(3)
    parameters = {"P": rng.normal(size=3)}
    batches = [
        parameters
        | {"x": rng.normal(size=(rows, 3))}
        | dropout_masks(model.loss.nodes, row_count=rows, randomness=(0, 1, shard))
        for shard, rows in enumerate((4, 3))
    ]
    (result,) = compare_with_differences(model.loss, batches)
    assert (result.name, result.mismatch, result.checked) == ("P", None, 3)
    each = [sum_of_gradients(model.loss, [batch])["P"] for batch in batches]
    np.testing.assert_allclose(result.gradient, each[0] + each[1], rtol=1e-12)


def test_a_loss_without_inputs_counts_once_for_each_row() -> None:
    batches = [{"P": np.array([1.0, 2.0, 3.0])}] * 2
    (result,) = compare_with_differences(model_of("sum(P**2)").loss, batches, row_counts=[4, 3])
    assert result.mismatch is None
    np.testing.assert_allclose(result.gradient, 7 * np.array([2.0, 4.0, 6.0]))


def test_a_float32_gradient_may_lose_what_float32_loses_and_not_more() -> None:
    exact = np.array([[1.0, 1e-3], [0.5, -2.0]])
    single = exact.astype(np.float32)
    assert compare_in_float32(single, exact).mismatch is None
    wrong = single.copy()
    wrong[1, 0] += 1e-4
    check = compare_in_float32(wrong, exact)
    assert check.mismatch == 2
    assert check.error == pytest.approx(5e-5, rel=1e-2)
    assert compare_in_float32(np.full((2, 2), np.nan, np.float32), exact).mismatch == 0


def test_a_sum_that_cancels_is_excused_by_its_terms() -> None:
    model = model_of("(sum(P * x) - 3e4)**2")
    values = {"P": np.array([1e4, 1e4, 1e4], np.float32), "x": np.array([[1.0, 1.0, 1.0 + 2.0**-22]], np.float32)}
    exact = sum_of_gradients(model.loss, [in_float64(values)])["P"]
    wrong = (exact * 1.05).astype(np.float32)
    assert compare_in_float32(wrong, exact).mismatch is not None
    assert compare_in_float32(wrong, exact, noise=float32_noise(model.loss, [values])["P"]).mismatch is None


def test_an_unstable_rule_is_not_excused_by_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("-log_softmax(P * x)[0]")
    values = {"P": np.full(3, 1e7, np.float32), "x": np.ones((1, 3), np.float32)}

    def compared() -> PrecisionCheck:
        exact = sum_of_gradients(model.loss, [in_float64(values)])["P"]
        gradient = np.empty(3, np.float32)
        TrainingPlan(model, 1).gradient(values["P"], {"x": values["x"]}, gradient)
        return compare_in_float32(gradient, exact, noise=float32_noise(model.loss, [values])["P"])

    assert compared().mismatch is None
    stable = OPERATIONS["log_softmax"]
    assert isinstance(stable, Axiswise)

    def textbook(node: Node, a: Any) -> Any:
        largest = a.max(axis=-1, keepdims=True)
        return a - (np.log(np.exp(a - largest).sum(axis=-1, keepdims=True)) + largest)

    monkeypatch.setitem(OPERATIONS, "log_softmax", replace(stable, value=textbook))
    assert compared().mismatch is not None


def test_a_row_that_float32_takes_to_the_other_side_of_a_kink_is_seen_in_the_noise() -> None:
    model = model_of("sum(relu(P * x - 0.1))")
    # In float32 the first product is 0.1 itself, in float64 it is just above.
    values = {"P": np.array([0.3, 1.0, 1.0], np.float32), "x": np.array([[0.0, 2.0, 3.0]], np.float32)}
    values["x"][0, 0] = np.float32(0.1) / np.float32(0.3)
    exact = sum_of_gradients(model.loss, [in_float64(values)])["P"]
    single = sum_of_gradients(model.loss, [values])["P"]
    noise = float32_noise(model.loss, [values])["P"]
    assert noise[0] >= 0.3
    assert noise[1:].max() < 1e-5
    other_side = np.where(np.arange(3) == 0, values["x"][0, 0] - exact, single).astype(np.float32)
    assert compare_in_float32(other_side, exact).mismatch == 0
    assert compare_in_float32(other_side, exact, noise=noise).mismatch is None


def test_ties_are_found_by_their_text() -> None:
    model = model_of("sum(max(P * x, P)) + sum(min(P, 3))")
    values = {"P": np.array([1.0, 2.0, 3.0]), "x": np.array([[1.0, 2.0, 1.0], [1.0, 2.0, 3.0]])}
    assert ties_of(model.loss, values) == {"max(P * x, P)": 3, "min(P, 3)": 1}
    assert ties_of(model_of("sum(relu(P * x))").loss, values) == {}


def test_each_batch_is_normalized_by_its_own_rows() -> None:
    model = model_of("sum(sin(batch_norm(P * x)))")
    rng = np.random.default_rng(4)
    parameters = {"P": rng.normal(size=3)}
    batches = [parameters | {"x": rng.normal(size=(rows, 3))} for rows in (5, 2, 1)]
    (result,) = compare_with_differences(model.loss, batches)
    assert (result.mismatch, result.checked) == (None, 3)
