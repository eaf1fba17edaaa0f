"""Losses of a prediction a and a target b, each in its stable form, with its partial derivatives.

All but cross_entropy go element by element, so a loss of vectors is written `sum(squared(prediction, y))`.
"""

# ruff: noqa: ARG001, ARG005  (all rules of a kind take the same arguments)

from __future__ import annotations

import numpy as np

from chainrule_engine.graph import Node
from chainrule_engine.operations.axes import exponentials
from chainrule_engine.operations.operation import Array, Axiswise, Elementwise, Misfit, Operation, OptionRule, Shape


def _one_hot(node: Node, b: Array) -> Array:
    """1 at the class and 0 elsewhere: (rows, classes)."""
    return np.equal(np.arange(node.operands[0].shape[-1]), b.reshape((*b.shape, 1)))


def _others(e: Array, one_hot: Array) -> Array:
    """e, but 0 at the class."""
    return e - e * one_hot


def _cross_entropy_shape(logits: Node, target: Node, *, options: tuple[float, ...]) -> Shape:
    if target.class_count is None:
        raise Misfit("the second operand must be an input that holds classes")
    if logits.shape != (target.class_count,):
        raise Misfit(f"there must be one logit for each of the {target.class_count} classes")
    return ()


def _cross_entropy(node: Node, a: Array, b: Array) -> Array:
    # With m = max a, and s the sum of e^(aⱼ − m) over the other classes: (m − a_b) + ln(s + e^(a_b − m)). The logarithm
    # is taken as ln(1 + …), because where the class is the likeliest, s is all of the loss, and too small beside 1.
    one_hot = _one_hot(node, b)
    below = (a * one_hot).sum(axis=-1) - a.max(axis=-1)
    return np.log1p(_others(exponentials(a), one_hot).sum(axis=-1) + (np.exp(below) - 1)) - below


def _cross_entropy_pullback(node: Node, g: Array, f: Array, a: Array, b: Array) -> Array:
    # Of the class itself softmax(a) − 1 is −(the sum of the others): where that is small, 1 − 1 would be nothing.
    e, one_hot = exponentials(a), _one_hot(node, b)
    others = _others(e, one_hot)
    contributions = others - one_hot * others.sum(axis=-1, keepdims=True)
    return contributions * (g.reshape((*g.shape, 1)) / e.sum(axis=-1, keepdims=True))


# fmt: off
LOSSES: tuple[Operation, ...] = (
    Elementwise(
        "squared", "(a − b)²", 2,
        value=lambda a, b: (a - b) * (a - b),
        partials=(lambda f, a, b: 2 * (a - b), lambda f, a, b: -2 * (a - b)),
        partial_formulas=("2 (a − b)", "−2 (a − b)"),
    ),
    Elementwise(
        "absolute", "|a − b|", 2,
        value=lambda a, b: np.absolute(a - b),
        partials=(lambda f, a, b: np.sign(a - b), lambda f, a, b: np.sign(b - a)),
        partial_formulas=("sign(a − b)", "sign(b − a)"),
    ),
    Elementwise(
        # With c = min(|a − b|, δ) both branches are one.
        "huber", "(a − b)²/2 where |a − b| ≤ δ, else δ (|a − b| − δ/2)", 2, (OptionRule("δ", 1.0, 1e-30, 1e30),),
        value=lambda a, b, delta: np.minimum(np.absolute(a - b), delta)
        * (np.absolute(a - b) - 0.5 * np.minimum(np.absolute(a - b), delta)),
        partials=(
            lambda f, a, b, delta: np.maximum(np.minimum(a - b, delta), -delta),
            lambda f, a, b, delta: np.maximum(np.minimum(b - a, delta), -delta),
        ),
        partial_formulas=("max(min(a − b, δ), −δ)", "max(min(b − a, δ), −δ)"),
    ),
    Elementwise(
        "hinge", "max(1 − a b, 0), b = ±1", 2,
        value=lambda a, b: np.maximum(1 - a * b, 0),
        partials=(lambda f, a, b: -b * np.heaviside(f, 0), lambda f, a, b: -a * np.heaviside(f, 0)),
        partial_formulas=("−b 1[f > 0]", "−a 1[f > 0]"),
    ),
    Elementwise(
        # e to a positive power is never taken in the value: ln(1 + e⁻ᵐ) = max(−m, 0) + ln(1 + e^−|m|), m = a b.
        "logistic", "ln(1 + e^(−a b)), b = ±1", 2,
        value=lambda a, b: np.maximum(-(a * b), 0) + np.log1p(np.exp(-np.absolute(a * b))),
        partials=(lambda f, a, b: -b / (1 + np.exp(a * b)), lambda f, a, b: -a / (1 + np.exp(a * b))),
        partial_formulas=("−b / (1 + eᵃᵇ)", "−a / (1 + eᵃᵇ)"),
    ),
    Axiswise(
        "cross_entropy", "ln Σⱼ e^aⱼ − a_b, b the class", 2,
        shape_rule=_cross_entropy_shape,
        value=_cross_entropy,
        pullbacks=(_cross_entropy_pullback, None),
        partial_formulas=("softmax(a) − 1[j=b]", ""),
        pullback_formulas=("g · (softmax(a) − 1[j=b])", ""),
    ),
)
# fmt: on
