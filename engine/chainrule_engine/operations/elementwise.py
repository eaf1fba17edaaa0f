"""Operations element by element: formula, value f, and the partial derivative of f for each operand.

Everywhere a, b are the operands, f the value. An indicator 1[a > b] is heaviside(a - b, 0): 0 where a = b.
"""

# ruff: noqa: ARG005  (all rules of a kind take the same arguments)

from __future__ import annotations

import math

import numpy as np

from chainrule_engine.operations.operation import Array, Elementwise, OptionRule

_GELU = math.sqrt(2 / math.pi)


def _sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def _gelu_tanh(a: Array) -> Array:
    return np.tanh(_GELU * a * (1 + 0.044715 * a * a))


def _gelu_partial(a: Array, t: Array) -> Array:
    # t = tanh(u(a)), so ∂t/∂a = (1 − t²) ∂u/∂a. Beyond ±10 that is 0, and a³ may be ∞: 0 · ∞ would be NaN.
    c = np.maximum(np.minimum(a, 10), -10)
    return 0.5 * (1 + t) + 0.5 * c * (1 - t * t) * _GELU * (1 + 3 * 0.044715 * c * c)


# fmt: off
ELEMENTWISE = (
    Elementwise(
        "add", "a + b", 2, symbol="+",
        value=lambda a, b: a + b,
        partials=(lambda f, a, b: 1.0, lambda f, a, b: 1.0),
        partial_formulas=("1", "1"),
    ),
    Elementwise(
        "subtract", "a − b", 2, symbol="−",
        value=lambda a, b: a - b,
        partials=(lambda f, a, b: 1.0, lambda f, a, b: -1.0),
        partial_formulas=("1", "−1"),
    ),
    Elementwise(
        "multiply", "a b", 2, symbol="·",
        value=lambda a, b: a * b,
        partials=(lambda f, a, b: b, lambda f, a, b: a),
        partial_formulas=("b", "a"),
    ),
    Elementwise(
        "divide", "a / b", 2, symbol="/",
        value=lambda a, b: a / b,
        partials=(lambda f, a, b: 1 / b, lambda f, a, b: -f / b),
        partial_formulas=("1/b", "−f/b"),
    ),
    Elementwise(
        # At a = 0: a⁰ doesn't depend on a, and 0ᵇ = 0 not on b, where 0 · ∞ would be NaN.
        "power", "aᵇ", 2, symbol="**",
        value=lambda a, b: np.power(a, b),
        partials=(
            lambda f, a, b: b * np.power(a, b - np.not_equal(b, 0)),
            lambda f, a, b: f * np.log(a + np.equal(a, 0)),
        ),
        partial_formulas=("b aᵇ⁻¹", "f ln a"),
    ),
    Elementwise(
        "negative", "−a", 1, symbol="−",
        value=lambda a: -a,
        partials=(lambda f, a: -1.0,),
        partial_formulas=("−1",),
    ),
    Elementwise(
        "square", "a²", 1, symbol="( )²",
        value=lambda a: a * a,
        partials=(lambda f, a: 2 * a,),
        partial_formulas=("2a",),
    ),
    Elementwise(
        "sqrt", "√a", 1, symbol="√",
        value=lambda a: np.sqrt(a),
        partials=(lambda f, a: 0.5 / f,),
        partial_formulas=("1/(2f)",),
    ),
    Elementwise(
        "abs", "|a|", 1,
        value=lambda a: np.absolute(a),
        partials=(lambda f, a: np.sign(a),),
        partial_formulas=("sign a",),
    ),
    Elementwise(
        "maximum", "max(a, b)", 2, symbol="max",
        value=lambda a, b: np.maximum(a, b),
        partials=(lambda f, a, b: np.heaviside(a - b, 0), lambda f, a, b: np.heaviside(b - a, 0)),
        partial_formulas=("1[a > b]", "1[a < b]"),
    ),
    Elementwise(
        "minimum", "min(a, b)", 2, symbol="min",
        value=lambda a, b: np.minimum(a, b),
        partials=(lambda f, a, b: np.heaviside(b - a, 0), lambda f, a, b: np.heaviside(a - b, 0)),
        partial_formulas=("1[a < b]", "1[a > b]"),
    ),
    Elementwise(
        "exp", "eᵃ", 1,
        value=lambda a: np.exp(a),
        partials=(lambda f, a: f,),
        partial_formulas=("f",),
    ),
    Elementwise(
        "log", "ln a", 1,
        value=lambda a: np.log(a),
        partials=(lambda f, a: 1 / a,),
        partial_formulas=("1/a",),
    ),
    Elementwise(
        "log1p", "ln(1 + a)", 1,
        value=lambda a: np.log1p(a),
        partials=(lambda f, a: 1 / (1 + a),),
        partial_formulas=("1/(1 + a)",),
    ),
    Elementwise(
        # Where exp(−a) is inf, 1 / inf is the right value.
        "sigmoid", "σ(a) = 1 / (1 + e⁻ᵃ)", 1, symbol="σ",
        value=lambda a: 1 / (1 + np.exp(-a)),
        partials=(lambda f, a: f * (1 - f),),
        partial_formulas=("f (1 − f)",),
    ),
    Elementwise(
        "tanh", "tanh a", 1,
        value=lambda a: np.tanh(a),
        partials=(lambda f, a: 1 - f * f,),
        partial_formulas=("1 − f²",),
    ),
    Elementwise(
        "relu", "max(a, 0)", 1,
        value=lambda a: np.maximum(a, 0),
        partials=(lambda f, a: np.heaviside(f, 0),),
        partial_formulas=("1[a > 0]",),
    ),
    Elementwise(
        "leaky_relu", "max(a, 0) + slope · min(a, 0)", 1, (OptionRule("slope", 0.01, 0.0, 1.0),),
        value=lambda a, slope: np.maximum(a, slope * a),
        partials=(lambda f, a, slope: slope + (1 - slope) * np.heaviside(a, 0),),
        partial_formulas=("slope + (1 − slope) 1[a > 0]",),
    ),
    Elementwise(
        "softplus", "ln(1 + eᵃ)", 1,
        value=lambda a: np.maximum(a, 0) + np.log1p(np.exp(-np.absolute(a))),
        partials=(lambda f, a: 1 / (1 + np.exp(-a)),),
        partial_formulas=("σ(a)",),
    ),
    Elementwise(
        "silu", "a σ(a)", 1,
        value=lambda a: a / (1 + np.exp(-a)),
        # Not (1 + a − f) σ(a): where a is large, the 1 would be rounded away.
        partials=(lambda f, a: _sigmoid(a) + f * (1 - _sigmoid(a)),),
        partial_formulas=("σ(a) + f (1 − σ(a))",),
    ),
    Elementwise(
        # The usual approximation of a Φ(a): Hendrycks & Gimpel 2016 (arXiv:1606.08415).
        "gelu", "a/2 (1 + tanh(√(2/π) (a + 0.044715 a³)))", 1,
        value=lambda a: 0.5 * a * (1 + _gelu_tanh(a)),
        partials=(lambda f, a: _gelu_partial(a, _gelu_tanh(a)),),
        partial_formulas=("gelu′(a)",),
    ),
    Elementwise(
        "sin", "sin a", 1,
        value=lambda a: np.sin(a),
        partials=(lambda f, a: np.cos(a),),
        partial_formulas=("cos a",),
    ),
    Elementwise(
        "cos", "cos a", 1,
        value=lambda a: np.cos(a),
        partials=(lambda f, a: -np.sin(a),),
        partial_formulas=("−sin a",),
    ),
)
# fmt: on
