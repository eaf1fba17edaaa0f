"""Operations where they are hard: large, tiny, equal and zero operands, in float32, against references of 60 digits.

The interpreter and both plans have the value and the gradient that the formula has, not what float32 would make of the
formula as it is written in a textbook.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from chainrule_engine.backpropagation import backward, forward
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter
from chainrule_engine.plan import EvaluationPlan, TrainingPlan

Numbers = Sequence[Decimal]
ROWS = 3
CONTEXT = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN)
BACKENDS = ["interpreter", "numpy", *(["numba"] if importlib.util.find_spec("numba") else [])]
EPSILON = Decimal(np.float32(1e-5).item())


def logsumexp(a: Numbers) -> Decimal:
    return sum((each.exp() for each in a), Decimal(0)).ln()


def sigmoid(a: Decimal) -> Decimal:
    return 1 / (1 + (-a).exp())


def tanh(a: Decimal) -> Decimal:
    return 2 * sigmoid(2 * a) - 1


def norm(a: Numbers) -> Decimal:
    return sum((each * each for each in a), Decimal(0)).sqrt()


def layer_norm(a: Numbers) -> list[Decimal]:
    mean = sum(a, Decimal(0)) / len(a)
    variance = sum(((each - mean) ** 2 for each in a), Decimal(0)) / len(a)
    return [(each - mean) / (variance + EPSILON).sqrt() for each in a]


def gelu(a: Decimal) -> Decimal:
    root = Decimal(2) / Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
    return a / 2 * (1 + tanh(root.sqrt() * (a + Decimal("0.044715") * a**3)))


def huber(d: Decimal) -> Decimal:
    return d * d / 2 if abs(d) <= 1 else abs(d) - Decimal("0.5")


Vectors = list[list[float]]
LOGITS: Vectors = [
    [1e7, 1e7], [1e8, 1e8, 1e8], [-1e7, -1e7], [1e7, 1e7 + 1, 1e7 - 3], [0.0, 0.0, 0.0], [1e-30, -1e-30], [3e4, 1.0],
    [20.0, 0.0, -20.0], [88.0, 87.0], [-200.0, -201.0, 400.0], [1e6, -1e6],
]  # fmt: skip
TINY_AND_LARGE: Vectors = [
    [1e-25, 1e-25], [1e-38, -3e-38], [1e-37, 2e-37], [1e25, 1e25], [3e38, 1e38], [1e-30, 1e30], [3.0, 4.0], [1e20, 1.0],
]  # fmt: skip
EQUAL: Vectors = [
    [0.1] * 3, [1e7] * 7, [1e7, 1e7 + 1, 1e7 + 2, 1e7 + 3], [0.0] * 4, [-3e5, -3e5 - 1, -3e5 + 5], [1.0, 2.0, 4.0],
]  # fmt: skip
MODERATE: Vectors = [[v] for v in (0.0, 1e-30, -1e-30, 1e-3, 1.0, -1.0, 5.3, -5.3)]
SCALARS: Vectors = [*MODERATE, *([v] for v in (17.5, -17.5, 90.0, -90.0, 1003.7, -1003.7, 3e4, 1e6, -1e6))]
NEAR_ZERO: Vectors = [[v] for v in (0.0, 1e-30, -1e-30, 1e-8, -0.999, 1e10)]
POWERS: Vectors = [[0.0, 2.0], [0.0, 1.5], [0.0, 1.0], [1e-20, 1.5], [1e10, 3.0], [2.0, 0.0], [1e-30, 0.5], [5.0, -2.0]]
QUOTIENTS: Vectors = [[1.0, 1e-15], [1e-25, 1e-25], [1e30, 1e30], [0.0, 3.0], [1e10, -1e-10]]

# A formula of p, its reference, values of p, and what a gradient may be off by: relative to the largest of the
# reference, or to 1 where a function that goes to a limit has a derivative that float32 can't tell from 0.
CASES: list[tuple[str, Callable[[Numbers], Decimal], Vectors, float]] = [
    ("-log_softmax({p})[0]", lambda a: logsumexp(a) - a[0], LOGITS, 1.0),
    ("-log_softmax({p})[1]", lambda a: logsumexp(a) - a[1], LOGITS, 1.0),
    ("logsumexp({p})", logsumexp, LOGITS, 0.0),
    ("softmax({p})[0]", lambda a: (a[0] - logsumexp(a)).exp(), LOGITS, 1.0),
    ("cross_entropy({p}, label)", lambda a: logsumexp(a) - a[1], LOGITS, 0.0),
    ("norm({p})", norm, TINY_AND_LARGE, 0.0),
    ("layer_norm({p})[1]", lambda a: layer_norm(a)[1], EQUAL, 0.0),
    ("sum({p})", lambda a: sum(a, Decimal(0)), EQUAL, 0.0),
    ("mean({p})", lambda a: sum(a, Decimal(0)) / len(a), EQUAL, 0.0),
    ("sum(sigmoid({p}))", lambda a: sigmoid(a[0]), SCALARS, 1.0),
    ("sum(tanh({p}))", lambda a: tanh(a[0]), SCALARS, 1.0),
    ("sum(softplus({p}))", lambda a: (1 + a[0].exp()).ln(), SCALARS, 0.0),
    ("sum(silu({p}))", lambda a: a[0] * sigmoid(a[0]), SCALARS, 1e-3),
    ("sum(gelu({p}))", lambda a: gelu(a[0]), MODERATE, 1.0),
    ("sum(logistic({p}, 1))", lambda a: (1 + (-a[0]).exp()).ln(), SCALARS, 0.0),
    ("sum(logistic({p}, -1))", lambda a: (1 + a[0].exp()).ln(), SCALARS, 0.0),
    ("sum(huber({p}, 0))", lambda a: huber(a[0]), SCALARS, 0.0),
    ("sum(log1p({p}))", lambda a: (1 + a[0]).ln(), NEAR_ZERO, 0.0),
    ("({p})[0] ** ({p})[1]", lambda a: a[0] ** a[1], POWERS, 0.0),
    ("({p})[0] / ({p})[1]", lambda a: a[0] / a[1], QUOTIENTS, 0.0),
]


@functools.cache
def reference(function: Callable[[Numbers], Decimal], values: tuple[float, ...]) -> tuple[float, np.ndarray]:
    """The value and the gradient, by differences that lose nothing at 60 digits."""
    with localcontext(CONTEXT):
        exact = [Decimal(np.float32(value).item()) for value in values]
        gradient = []
        for index, value in enumerate(exact):
            h = abs(value) * Decimal("1e-20") or Decimal("1e-50")
            # From the right at 0, where a power has no left side.
            ends = [[*exact[:index], value + by, *exact[index + 1 :]] for by in ((h, -h) if value else (h, Decimal(0)))]
            above, below = (function(end) for end in ends)
            gradient.append(float((above - below) / (2 * h if value else h)))
        return float(function(exact)), np.array(gradient)


@functools.cache
def model_of(formula: str, size: int, *, is_batched: bool) -> Model:
    inputs = [Input("x", (size,)), Input("label", (), size if "label" in formula else 2)]
    text = formula.format(p="p * x" if is_batched else "p")
    return Model.build(loss=text, parameters=[Parameter("p", (size,))], inputs=inputs)


@functools.cache
def plans_of(formula: str, size: int, backend: str, *, is_batched: bool) -> tuple[TrainingPlan, EvaluationPlan]:
    """Made once: numba compiles for seconds."""
    model = model_of(formula, size, is_batched=is_batched)
    return TrainingPlan(model, ROWS, backend=backend), EvaluationPlan(model, ROWS, backend=backend)


def computed(formula: str, values: list[float], backend: str, *, is_batched: bool) -> tuple[float, np.ndarray]:
    """The mean loss of a row and its gradient, in float32."""
    size = len(values)
    parameters = np.array(values, np.float32)
    rows: dict[str, Any] = {"x": np.ones((ROWS, size), np.float32), "label": np.ones(ROWS, np.int64)}
    if backend == "interpreter":
        model = model_of(formula, size, is_batched=is_batched)
        f = forward(model.loss, {"p": parameters, **rows})
        g = backward(model.loss, f, row_count=ROWS)
        (node,) = model.loss.parameters
        return float(np.mean(f[model.loss.root], dtype=np.float64)), g[node].astype(np.float64) / ROWS
    gradient = np.empty_like(parameters)
    training, evaluation = plans_of(formula, size, backend, is_batched=is_batched)
    loss = training.gradient(parameters, rows, gradient)
    if "batch_norm" not in formula:
        np.testing.assert_allclose(evaluation.evaluate(parameters, rows)[0], loss, rtol=1e-6)
    return loss / ROWS, gradient.astype(np.float64) / ROWS


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("formula", "function", "vectors", "floor"), CASES, ids=[case[0] for case in CASES])
def test_a_hard_value_has_the_value_and_the_gradient_of_its_formula(
    formula: str, function: Callable[[Numbers], Decimal], vectors: Vectors, floor: float, backend: str
) -> None:
    for values in vectors:
        value, gradient = reference(function, tuple(values))
        # numba compiles for seconds, so it has one of the two.
        for is_batched in (True,) if "label" in formula or backend == "numba" else (True, False):
            found, slopes = computed(formula, values, backend, is_batched=is_batched)
            told = f"{formula} of {values}, {'batched' if is_batched else 'unbatched'}"
            if abs(value) < 3e38:
                size = max(abs(value), floor * 0.5, 1e-30)
                assert abs(found - value) <= 1e-6 * size, f"{told}: {found} instead of {value}"
            size = max(float(np.abs(gradient).max()), floor, 1e-15)
            np.testing.assert_allclose(slopes, gradient, rtol=0, atol=2e-6 * size, err_msg=told)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("formula", "values", "value", "gradient"), [
    ("norm({p})", [0.0, 0.0], 0.0, [0.0, 0.0]),
    ("sum(({p}) ** 0)", [0.0, 2.0], 2.0, [0.0, 0.0]),
    ("({p})[0] ** ({p})[1]", [0.0, 0.0], 1.0, [0.0, 0.0]),
    ("sum(gelu({p}))", [1e25, -1e25], 1e25, [1.0, 0.0]),
    ("sum(silu({p}))", [1e30, -1e30], 1e30, [1.0, 0.0]),
    ("sum(softplus({p}))", [1e30, -1e30], 1e30, [1.0, 0.0]),
    ("logsumexp({p})", [3e38, -3e38], 3e38, [1.0, 0.0]),
    ("cross_entropy({p}, label)", [-3e38, 3e38], 0.0, [0.0, 0.0]),
    ("sum(layer_norm({p}))", [1e30, 1e30], 0.0, [0.0, 0.0]),
    ("sum(batch_norm({p}))", [1e7, 3e5], 0.0, [0.0, 0.0]),
    ("sum(huber({p}, 0))", [1e30, -1e30], 2e30, [1.0, -1.0]),
    ("sum(sigmoid({p}))", [1e30, -1e30], 1.0, [0.0, 0.0]),
    ("sum(logistic({p}, 1))", [1e30, -1e30], 1e30, [0.0, -1.0]),
])  # fmt: skip
def test_an_extreme_has_its_limit_and_no_nan(
    formula: str, values: list[float], value: float, gradient: list[float], backend: str
) -> None:
    found, slopes = computed(formula, values, backend, is_batched=True)
    assert found == pytest.approx(value, rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(slopes, gradient, rtol=1e-6, atol=1e-6)


def test_a_likely_class_keeps_the_digits_of_its_loss_and_of_its_gradient() -> None:
    for backend in BACKENDS:
        loss, gradient = computed("cross_entropy({p}, label)", [0.0, 20.0], backend, is_batched=True)
        expected = float(np.log1p(np.exp(-20.0)))
        assert loss == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(gradient, [expected, -expected], rtol=1e-5)


@pytest.mark.parametrize("formula", ["log(0 * 1 + 0) * p[0]", "p[0] / 1e-300", "1e300 * p[0]", "sum(exp(p * 1e300))"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_numpy_warns_nobody(formula: str, backend: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        computed(formula, [1.0, 2.0], backend, is_batched=False)
