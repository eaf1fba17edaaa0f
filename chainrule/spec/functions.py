"""The functions of formulas, for expressions: each is the operation of that name in engine/operations.

Where a function is a formula's second name for another (ln, matmul, maximum, minimum, negative, power), the first one,
or Python's operator, is here.
"""

# ruff: noqa: A001  (a formula's sum is called sum)

from __future__ import annotations

from chainrule.spec.expressions import Expression, Operand, call


def abs(a: Operand) -> Expression:
    """|a|, element by element."""
    return call("abs", a)


def cos(a: Operand) -> Expression:
    """cos a, element by element."""
    return call("cos", a)


def exp(a: Operand) -> Expression:
    """eᵃ, element by element."""
    return call("exp", a)


def gelu(a: Operand) -> Expression:
    """a Φ(a) by its usual approximation with tanh, element by element."""
    return call("gelu", a)


def log(a: Operand) -> Expression:
    """ln a, element by element."""
    return call("log", a)


def log1p(a: Operand) -> Expression:
    """ln(1 + a), element by element."""
    return call("log1p", a)


def relu(a: Operand) -> Expression:
    """max(a, 0), element by element."""
    return call("relu", a)


def sigmoid(a: Operand) -> Expression:
    """1 / (1 + e⁻ᵃ), element by element."""
    return call("sigmoid", a)


def silu(a: Operand) -> Expression:
    """a σ(a), element by element."""
    return call("silu", a)


def sin(a: Operand) -> Expression:
    """sin a, element by element."""
    return call("sin", a)


def softplus(a: Operand) -> Expression:
    """ln(1 + eᵃ), element by element."""
    return call("softplus", a)


def sqrt(a: Operand) -> Expression:
    """√a, element by element."""
    return call("sqrt", a)


def square(a: Operand) -> Expression:
    """a², element by element; the same as a**2."""
    return call("square", a)


def tanh(a: Operand) -> Expression:
    """tanh a, element by element."""
    return call("tanh", a)


def sum(a: Operand) -> Expression:
    """Σ aⱼ over all elements of one example."""
    return call("sum", a)


def mean(a: Operand) -> Expression:
    """The mean of all elements of one example."""
    return call("mean", a)


def norm(a: Operand) -> Expression:
    """√Σ aⱼ² over all elements of one example."""
    return call("norm", a)


def softmax(a: Operand) -> Expression:
    """e^aᵢ / Σⱼ e^aⱼ along the last axis."""
    return call("softmax", a)


def log_softmax(a: Operand) -> Expression:
    """aᵢ − ln Σⱼ e^aⱼ along the last axis."""
    return call("log_softmax", a)


def logsumexp(a: Operand) -> Expression:
    """ln Σⱼ e^aⱼ along the last axis."""
    return call("logsumexp", a)


def squared(a: Operand, b: Operand) -> Expression:
    """(a − b)², element by element."""
    return call("squared", a, b)


def absolute(a: Operand, b: Operand) -> Expression:
    """|a − b|, element by element."""
    return call("absolute", a, b)


def hinge(a: Operand, b: Operand) -> Expression:
    """max(1 − a b, 0), with b = ±1, element by element."""
    return call("hinge", a, b)


def logistic(a: Operand, b: Operand) -> Expression:
    """ln(1 + e^(−a b)), with b = ±1, element by element."""
    return call("logistic", a, b)


def cross_entropy(a: Operand, b: Operand) -> Expression:
    """ln Σⱼ e^aⱼ − a_b, with b the class y."""
    return call("cross_entropy", a, b)


def dot(a: Operand, b: Operand) -> Expression:
    """a @ b by name."""
    return call("dot", a, b)


def max(a: Operand, b: Operand, *more: Operand) -> Expression:
    """The largest, element by element."""
    return call("max", a, b, *more)


def min(a: Operand, b: Operand, *more: Operand) -> Expression:
    """The smallest, element by element."""
    return call("min", a, b, *more)


def concatenate(*parts: Operand) -> Expression:
    """The vectors and numbers joined to one vector."""
    return call("concatenate", *parts)


def leaky_relu(a: Operand, slope: float | None = None) -> Expression:
    """a where it is positive, else slope · a. slope: 0.01 where none is given."""
    return call("leaky_relu", a, *_given(slope))


def huber(a: Operand, b: Operand, delta: float | None = None) -> Expression:
    """(a − b)²/2 where |a − b| ≤ delta, else delta (|a − b| − delta/2). delta: 1 where none is given."""
    return call("huber", a, b, *_given(delta))


def layer_norm(a: Operand, epsilon: float | None = None) -> Expression:
    """(a − mean a) / √(variance a + epsilon), over one example. epsilon: 1e-5 where none is given."""
    return call("layer_norm", a, *_given(epsilon))


def batch_norm(a: Operand, epsilon: float | None = None) -> Expression:
    """(a − mean a) / √(variance a + epsilon), over the rows of the microbatch; running statistics where it predicts.

    epsilon: 1e-5 where none is given."""
    return call("batch_norm", a, *_given(epsilon))


def dropout(a: Operand, rate: float) -> Expression:
    """In training each element is 0 with probability `rate`, else a / (1 − rate); elsewhere a."""
    return call("dropout", a, rate)


def _given(option: float | None) -> list[float]:
    """An option as the text has it: one that isn't given isn't written, so that the graph is that of the same text."""
    return [] if option is None else [option]
