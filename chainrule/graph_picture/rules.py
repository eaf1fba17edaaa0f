"""The local partial derivatives as texts, for edges.

Letters as in the operations' formulas: a, b, c the operands, f the value. An operation that is not in the table gets
the general chain rule, and an elementwise one its value all the same.
"""

from __future__ import annotations

LETTERS = ("a", "b", "c")

# Element by element: g of an operand is g times the partial derivative.
ELEMENTWISE: dict[str, tuple[str, ...]] = {
    "add": ("1", "1"),
    "subtract": ("1", "−1"),
    "multiply": ("b", "a"),
    "divide": ("1/b", "−f/b"),
    "power": ("b aᵇ⁻¹", "f ln a"),
    "negative": ("−1",),
    "square": ("2a",),
    "sqrt": ("1/(2f)",),
    "abs": ("sign a",),
    "maximum": ("1[a > b]", "1[a < b]"),
    "minimum": ("1[a < b]", "1[a > b]"),
    "exp": ("f",),
    "log": ("1/a",),
    "log1p": ("1/(1 + a)",),
    "sigmoid": ("f (1 − f)",),
    "tanh": ("1 − f²",),
    "relu": ("1[a > 0]",),
    "leaky_relu": ("1 or slope",),
    "softplus": ("σ(a)",),
    "silu": ("σ(a) + f (1 − σ(a))",),
    "gelu": ("gelu′(a)",),
    "sin": ("cos a",),
    "cos": ("−sin a",),
    "squared": ("2 (a − b)", "−2 (a − b)"),
    "absolute": ("sign(a − b)", "sign(b − a)"),
    "huber": ("a − b, cut at ±δ", "b − a, cut at ±δ"),
    "hinge": ("−b 1[f > 0]", "−a 1[f > 0]"),
    "logistic": ("−b / (1 + eᵃᵇ)", "−a / (1 + eᵃᵇ)"),
    "normalize": ("1/√(c + ε)", "−1/√(c + ε)", "−f / (2 (c + ε))"),
    "dropout": ("b", "a"),
}

# Over axes: the partial derivative, and what g contributes to g of the operand.
AXISWISE: dict[str, tuple[tuple[str, str], ...]] = {
    "sum": (("1", "g"),),
    "mean": (("1/n", "g · 1/n"),),
    "norm": (("a / f", "g · a / f"),),
    "softmax": (("∂fᵢ/∂aⱼ = fᵢ (1[i=j] − fⱼ)", "f (g − Σⱼ gⱼ fⱼ)"),),
    "log_softmax": (("∂fᵢ/∂aⱼ = 1[i=j] − e^fⱼ", "g − eᶠ Σⱼ gⱼ"),),
    "logsumexp": (("softmax(a)", "g · softmax(a)"),),
    "component": (("1 at i, else 0", "g at i, else 0"),),
    "concatenate": (("1 at its place", "its part of g"),),
    "cross_entropy": (("softmax(a) − 1[j=b]", "g · (softmax(a) − 1[j=b])"), ("", "")),
    "layer_norm": (("depends on all of a", "(g − mean g − f · mean(g f)) / s"),),
    "batch_norm": (("depends on all rows", "(g − mean g − f · mean(g f)) / s"),),
}


def partial_and_contribution(operation: str, index: int, ranks: tuple[int, ...]) -> tuple[str, str]:
    """(∂f/∂operand, what g contributes) as texts. ranks: the number of axes of each operand."""
    if operation == "matmul":
        return _product(index, ranks)
    if operation in ELEMENTWISE and index < len(ELEMENTWISE[operation]):
        partial = ELEMENTWISE[operation][index]
        contribution = {"1": "g", "−1": "−g"}.get(partial, f"g · ({partial})" if " " in partial else f"g · {partial}")
        return partial, contribution
    if operation in AXISWISE:
        rules = AXISWISE[operation]
        return rules[min(index, len(rules) - 1)]
    letter = letter_of(index)
    return f"{operation}′", f"g · ∂f/∂{letter}"


def letter_of(index: int) -> str:
    """The letter of an operand: a, b, c, and then a numbered."""
    return LETTERS[index] if index < len(LETTERS) else f"a{index + 1}"


def _product(index: int, ranks: tuple[int, ...]) -> tuple[str, str]:
    """f = a b: dot, matrix–vector, vector–matrix and matrix–matrix product."""
    table = {
        (1, 1): (("b", "g b"), ("a", "g a")),
        (2, 1): (("∂fᵢ/∂aᵢⱼ = bⱼ", "g bᵀ"), ("a", "aᵀ g")),
        (1, 2): (("bᵀ", "b g"), ("∂fₖ/∂bⱼₖ = aⱼ", "a gᵀ")),
        (2, 2): (("∂fᵢₖ/∂aᵢⱼ = bⱼₖ", "g bᵀ"), ("∂fᵢₖ/∂bⱼₖ = aᵢⱼ", "aᵀ g")),
    }
    return table[(ranks[0], ranks[1])][index]
