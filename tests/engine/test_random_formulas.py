"""What holds for every formula: the plan is the interpreter, and the gradient is the derivative.

A failure prints the formula, its shapes and the seed of its values, and a line that reproduces it. The end of a test
run says how many formulas were tried; to try more:

    RANDOM_FORMULAS=20000 pytest --timeout 0 --hypothesis-seed 1 tests/engine/test_random_formulas.py
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from chainrule_engine.backpropagation import backward, dropout_masks, forward
from chainrule_engine.gradient_check import check_gradients
from chainrule_engine.graph import Node
from chainrule_engine.plan import EvaluationPlan, TrainingPlan
from tests.engine.random_formulas import Case, cases, distance_to_a_kink

RANDOMNESS = (3, 14, 15)
SETTINGS = settings(
    max_examples=int(os.environ.get("RANDOM_FORMULAS", "150")),
    deadline=None,
    print_blob=True,
    # CI repeats one sequence of formulas, so that a change is judged by what it changed; other runs have their own.
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def exact_values(case: Case) -> dict[str, Any]:
    """All leaves in float64, with the masks that a plan draws."""
    masks = dropout_masks(case.model.loss.nodes, row_count=case.row_count, randomness=RANDOMNESS)
    return {
        name: value if value.dtype.kind in "iu" else value.astype(np.float64)
        for name, value in {**case.values, **masks}.items()
    }


class Interpreted(NamedTuple):
    """largest_f, largest_g: of any node's forward and backward values."""

    row_losses: np.ndarray
    gradient: np.ndarray
    largest_f: float
    largest_g: float


def interpreted(case: Case, dtype: type) -> Interpreted:
    """Row losses and the flat gradient by the interpreter."""
    model = case.model
    values = {n: v if v.dtype.kind in "iu" else v.astype(dtype) for n, v in exact_values(case).items()}
    f = forward(model.loss, values)
    g = backward(model.loss, f, row_count=case.row_count)
    gradient = np.zeros(model.layout.size, dtype)
    views = model.layout.views(gradient)
    for node in model.loss.parameters:
        views[node.name][...] = g[node]
    row_losses = np.broadcast_to(f[model.loss.root], (case.row_count,))
    return Interpreted(row_losses, gradient, largest(f), largest(g))


def largest(values: dict[Node, Any]) -> float:
    """The largest absolute value of any node."""
    return max(float(np.abs(value).max(initial=0.0)) for value in values.values())


def assert_close_in_float32(
    case: Case, found: np.ndarray, single: np.ndarray, exact: np.ndarray, what: str, *, scale: float
) -> None:
    """`found` is within 16 ulp of `scale`, or within 8 times what the interpreter itself is rounded off.

    scale: of what was added up; a sum that cancels to nearly 0 is rounded by its summands, not by itself."""
    unit = np.finfo(np.float32).eps * max(scale, 1e-3)
    own_error = float(np.abs(single - exact).max(initial=0.0))
    worst = float(np.abs(found.astype(np.float64) - exact).max(initial=0.0))
    assert worst <= 16 * unit + 8 * own_error, (
        f"{what} of {case}: {worst / unit:.1f} ulp, interpreter {own_error / unit:.1f}"
    )


@SETTINGS
@given(case=cases(normalization=True))
def test_the_plan_computes_what_the_interpreter_does_and_repeats_itself_to_the_bit(
    case: Case, tried: Counter[str]
) -> None:
    plan = TrainingPlan(case.model, case.row_count)
    gradient = np.full(case.model.layout.size, np.nan, np.float32)
    loss = plan.gradient(case.parameters, case.inputs, gradient, randomness=RANDOMNESS)
    row_losses = plan.row_losses.copy()
    exact, single = interpreted(case, np.float64), interpreted(case, np.float32)
    assume(np.isfinite(exact.gradient).all() and np.isfinite(single.gradient).all())
    assert_close_in_float32(case, row_losses, single.row_losses, exact.row_losses, "loss", scale=exact.largest_f)
    assert_close_in_float32(case, gradient, single.gradient, exact.gradient, "gradient", scale=exact.largest_g)
    assert loss == pytest.approx(float(row_losses.astype(np.float64).sum()), rel=1e-12)
    # Other arrays at another alignment, and a plan of its own: the same bits.
    shifted = np.empty(case.parameters.size + 1, np.float32)[1:]
    shifted[...] = case.parameters
    inputs = {name: np.concatenate([value[:1], value])[1:] for name, value in case.inputs.items()}
    for other in (plan, TrainingPlan(case.model, case.row_count)):
        again = np.empty(case.parameters.size + 3, np.float32)[3:]
        assert other.gradient(shifted, inputs, again, randomness=RANDOMNESS) == loss
        assert again.tobytes() == gradient.tobytes()
        assert other.row_losses.tobytes() == row_losses.tobytes()
    tried["plan == interpreter, to the bit when repeated"] += 1


@SETTINGS
@given(case=cases(normalization=True, depth=4))
def test_backward_agrees_with_central_differences(case: Case, tried: Counter[str]) -> None:
    values = exact_values(case)
    assume(distance_to_a_kink(case.model.loss, forward(case.model.loss, values)) > 1e-3)
    check_gradients(case.model.loss, values, tolerance=1e-4, most=20)
    tried["central differences"] += 1


@SETTINGS
@given(case=cases(normalization=True))
def test_backward_agrees_with_pytorch(case: Case, tried: Counter[str]) -> None:
    pytest.importorskip("torch", reason="PyTorch, the independent referee, is not installed")
    from tests.engine.torch_graphs import total_and_gradients

    graph, values = case.model.loss, exact_values(case)
    f = forward(graph, values)
    assume(distance_to_a_kink(graph, f) > 1e-9)
    g = backward(graph, f, row_count=case.row_count)
    total, gradients, names = total_and_gradients(graph, values, case.row_count)
    assert float(np.broadcast_to(f[graph.root], (case.row_count,)).sum()) == pytest.approx(total, rel=1e-9, abs=1e-9)
    leaves = {node.name: node for node in graph.nodes if node.is_leaf}
    for name in names:
        if leaves[name] in g:
            scale = max(1.0, float(np.abs(gradients[name]).max()))
            np.testing.assert_allclose(g[leaves[name]], gradients[name], rtol=1e-7, atol=1e-9 * scale)
    tried["PyTorch autograd"] += 1


@SETTINGS
@given(case=cases(normalization=True, depth=4))
def test_evaluation_is_the_interpreter_on_the_evaluated_graph(case: Case, tried: Counter[str]) -> None:
    model = case.model
    rng = np.random.default_rng(case.seed)
    statistics = rng.uniform(0.5, 1.5, model.statistics.size)
    plan = EvaluationPlan(model, case.row_count)
    plan.evaluate(case.parameters, case.inputs, statistics)
    results = []
    for dtype in (np.float32, np.float64):
        values = {n: v if v.dtype.kind in "iu" else v.astype(dtype) for n, v in case.values.items()}
        f = forward(model.evaluation_loss, {**values, **model.statistics.views(statistics)})
        results.append(np.broadcast_to(f[model.evaluation_loss.root], (case.row_count,)))
    assume(np.isfinite(results[0]).all())
    assert_close_in_float32(case, plan.row_losses, results[0], results[1], "evaluated loss", scale=largest(f))
    tried["evaluation"] += 1
